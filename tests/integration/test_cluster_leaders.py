"""After every kind of leader change no decision is older than a change that was acknowledged before its request."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from typing import NamedTuple

import pytest

from streams.broker import kafka_jars
from tests.cluster import Cluster, Place
from tests.integration.conftest import MakeWorker
from tests.integration.harness import (
    CHANGES,
    DECISIONS,
    PATIENCE_S,
    REQUESTS,
    SHORT_SESSION,
    Log,
    Loop,
    Worker,
    World,
    wait_for,
)
from tests.integration.orgs import Org, dump

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 8
CUSTOMERS = 40
PAIRS, MANY_PAIRS, TIMES = 100, 400, 3
#: A client of a cluster asks others soon.
ANSWER_S = 5.0
#: How soon a request is answered whose partition was led by a leader that is cut off, and how long it is cut off at
#: least, which is longer than its session.
ANSWERED_S = 10.0
CUT_S = 8.0
SHOWN = 5


class Pair(NamedTuple):
    """A change that was acknowledged, and the request that was written behind it."""

    request_id: str
    partition: int
    #: The offset behind the change.
    end: int
    requested_ms: int


@dataclass
class Outcome:
    """What was decided on some pairs."""

    pairs: int = 0
    #: Decisions by a state that is older than the change.
    stale: list[str] = field(default_factory=list)
    behind: int = 0
    late: int = 0
    unanswered: int = 0
    repeated: int = 0
    slowest_s: float = 0.0

    def __str__(self) -> str:
        first = "; ".join(self.stale[:SHOWN]) or "none"
        return (
            f"stale: {len(self.stale)} of {self.pairs}, first ones: {first}. state_behind: {self.behind}, "
            f"later than {ANSWERED_S:.0f} s: {self.late}, slowest: {self.slowest_s:.1f} s, "
            f"unanswered: {self.unanswered}, repeated: {self.repeated}"
        )


class Scene:
    """A cluster with one worker on it, and the node that is hurt: only what it leads in the beginning is written to."""

    def __init__(self, cluster: Cluster, world: World, org: Org, pairs: int) -> None:
        cluster.mend()
        self.cluster, self.world, self.org = cluster, world, org
        cluster.balance(apart=world.config.topic(REQUESTS))
        self.node = cluster.leader_of(world.config.topic(CHANGES), 0)
        self.led = cluster.led_by(self.node)
        self.pairs = pairs
        self.written: list[Pair] = []
        #: What else is to be told of it, and whether that fails.
        self.said: list[str] = []
        self.fails = False
        topic, names = world.config.topic(CHANGES), (f"c{n}" for n in count())
        self._customers = cycle(islice((name for name in names if (topic, org.home(name)) in self.led), CUSTOMERS))
        self._numbers = count(1)
        self._others: World | None = None

    @property
    def others(self) -> World:
        """The same topics for clients that know the other nodes only; first asked for when the node is gone."""
        if self._others is None:
            addresses, config = self.cluster.bootstrap_without(self.node), self.world.config
            self._others = World(
                addresses, self.world.loop, PARTITIONS, config.topic_prefix, replication=3, answer_s=ANSWER_S
            )
        return self._others

    def close(self) -> None:
        if self._others is not None:
            self._others.close()

    def is_moved(self) -> None:
        """Wait until others lead what the node led."""
        self.cluster.wait_until_moved(self.node, self.led)

    def writing(self, share: float, world: World | None = None) -> Future[None]:
        """Begin to write so many of the pairs."""
        return self.world.loop.start(self._write(world or self.world, round(self.pairs * share)))

    def write(self, share: float, world: World | None = None) -> None:
        """Write so many of the pairs; returns when all are acknowledged."""
        self.writing(share, world).result(2 * PATIENCE_S)

    async def _write(self, world: World, pairs: int) -> None:
        for customer in islice(self._customers, pairs):
            number = next(self._numbers)
            kind = "OPTOUT" if number % 2 else "OPTIN"
            event = self.org.opt_in_event(number, customer_id=customer, type=kind)
            request = self.org.request(customer_id=customer)
            key = self.org.key(customer)
            partition, offset = await (await world.sending(CHANGES, key, dump(event)))
            requested_ms = int(time.time() * 1000)
            await (await world.sending(REQUESTS, key, dump(request)))
            self.written.append(Pair(request["request_id"], partition, offset + 1, requested_ms))

    def answered(self, world: World | None = None, patience_s: float = PATIENCE_S) -> Outcome:
        """What was decided on all pairs that are written; waits for it."""
        log = Log(world or self.world, DECISIONS)
        asked = {pair.request_id for pair in self.written}
        with suppress(AssertionError):  # what has no decision by then is told
            wait_for("all decisions", lambda: asked <= {r.body["request_id"] for r in log.complete()}, patience_s)
        self.world.loop.run(log.close())
        outcome, times = Outcome(len(asked)), Counter(record.body["request_id"] for record in log.records)
        decided = {record.body["request_id"]: record for record in log.records}
        for pair in self.written:
            record = decided.get(pair.request_id)
            if record is None:
                outcome.unanswered += 1
                continue
            offset, took_s = record.body["as_of"]["offset"], (record.timestamp - pair.requested_ms) / 1000
            outcome.repeated += times[pair.request_id] - 1
            outcome.late += took_s > ANSWERED_S
            outcome.slowest_s = max(outcome.slowest_s, took_s)
            if record.body["reason"] == "state_behind":
                outcome.behind += 1
            elif offset < pair.end:
                text = f"{pair.request_id} of partition {pair.partition} at {offset}, acknowledged was {pair.end}"
                outcome.stale.append(text)
        return outcome


MakeScene = Callable[[int], Scene]


# --- kinds of leader changes -------------------------------------------------------------------------


def suspended_and_woken(scene: Scene) -> None:
    """It believes that it leads when it wakes up, and soon follows; its connections live on."""
    scene.cluster.suspend(scene.node)
    scene.is_moved()
    scene.others.loop.run(scene.others._opened())
    writing = scene.writing(0.5, scene.others)
    scene.cluster.resume(scene.node)
    writing.result(PATIENCE_S)
    scene.cluster.wait_until_whole()
    scene.write(0.5)


def killed_and_restarted(scene: Scene) -> None:
    scene.cluster.kill(scene.node)
    scene.is_moved()
    writing = scene.writing(0.5, scene.others)
    scene.cluster.start(scene.node)
    writing.result(PATIENCE_S)
    scene.cluster.wait_until_whole()
    # It leads again.
    scene.cluster.lead(dict.fromkeys(scene.led, scene.node))
    scene.write(0.5)


def ended_in_order_and_restarted(scene: Scene) -> None:
    writing = scene.writing(0.5)
    scene.cluster.restart(scene.node)
    writing.result(PATIENCE_S)
    scene.cluster.wait_until_whole()
    scene.cluster.lead(dict.fromkeys(scene.led, scene.node))
    scene.write(0.5)


def elected_away(scene: Scene) -> None:
    writing = scene.writing(0.5)
    scene.cluster.elect_away(scene.node)
    writing.result(PATIENCE_S)
    scene.write(0.5)


def reassigned(scene: Scene) -> None:
    writing = scene.writing(0.25)
    scene.cluster.reassign_away(scene.node)
    writing.result(PATIENCE_S)
    scene.write(0.5)
    scene.cluster.reassign_back()
    scene.write(0.25)


def cut_off_and_joined(scene: Scene) -> None:
    """It goes on believing that it leads for as long as it is cut off, and answers everybody so."""
    scene.cluster.cut(scene.node)
    cut_at = time.monotonic()
    scene.is_moved()
    scene.write(0.5, scene.others)
    wait_for("the time to pass", lambda: time.monotonic() > cut_at + CUT_S)
    assert believes_it_leads(scene) == scene.led, "it knows that it does not lead any more"
    scene.write(0.5, scene.others)
    outcome = scene.answered(scene.others, 2 * ANSWERED_S)
    assert believes_it_leads(scene) == scene.led, "it knows that it does not lead any more"
    scene.cluster.join(scene.node)
    scene.said.append(f"while it was cut off: {outcome}")
    scene.fails |= bool(outcome.behind or outcome.late or outcome.unanswered)


def believes_it_leads(scene: Scene) -> set[Place]:
    return scene.cluster.led_by(scene.node, by=scene.node)


KINDS: dict[str, Callable[[Scene], None]] = {
    "suspended and woken": suspended_and_woken,
    "killed and restarted": killed_and_restarted,
    "ended in order and restarted": ended_in_order_and_restarted,
    "elected away": elected_away,
    "reassigned": reassigned,
    "cut off and joined": cut_off_and_joined,
}


@pytest.fixture(scope="module")
def cluster(kafka_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that may be hurt; the clients of one say so, hundreds of times."""
    log = logging.getLogger("aiokafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    with Cluster(tmp_path_factory.mktemp("cluster"), jars=kafka_jars(version=kafka_version)) as cluster:
        yield cluster
    log.setLevel(level)


@pytest.fixture(scope="module")
def cluster_world(cluster: Cluster, loop: Loop) -> Iterator[World]:
    world = World(cluster.bootstrap, loop, PARTITIONS, replication=cluster.replication, answer_s=ANSWER_S)
    yield world.create_topics()
    world.close()


@pytest.fixture(scope="module")
def org(cluster_world: World) -> Org:
    return Org(cluster_world)


@pytest.fixture(scope="module")
def only_worker(cluster_world: World, make_worker: MakeWorker) -> Worker:
    return make_worker(cluster_world, **SHORT_SESSION)


@pytest.fixture
def make_scene(cluster: Cluster, cluster_world: World, org: Org, only_worker: Worker) -> Iterator[MakeScene]:
    """Makes a scene of so many pairs, with a cluster that is whole and a worker that has just learnt who leads."""
    scenes: list[Scene] = []

    def make(pairs: int) -> Scene:
        only_worker.end()
        scenes.append(Scene(cluster, cluster_world, org, pairs))
        only_worker.start().ready()
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


def changes_leaders(scene: Scene, worker: Worker, kind: str) -> None:
    """Hold every decision against what was acknowledged before."""
    try:
        KINDS[kind](scene)
    finally:
        scene.cluster.mend()
    outcome = scene.answered()
    said = "; ".join((kind, *scene.said, str(outcome)))
    print(said)
    is_well = not (scene.fails or outcome.stale or outcome.unanswered or outcome.repeated)
    assert is_well, said
    assert worker.running, worker.errors[-3000:]


@pytest.mark.parametrize("kind", KINDS)
def test_no_decision_is_older_than_what_was_acknowledged(
    make_scene: MakeScene, only_worker: Worker, kind: str
) -> None:
    changes_leaders(make_scene(PAIRS), only_worker, kind)


@pytest.mark.long
@pytest.mark.parametrize("time", range(TIMES))
@pytest.mark.parametrize("kind", KINDS)
def test_no_decision_is_older_than_what_was_acknowledged_many_times(
    make_scene: MakeScene, only_worker: Worker, kind: str, time: int
) -> None:
    changes_leaders(make_scene(MANY_PAIRS), only_worker, kind)
