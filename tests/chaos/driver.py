"""One round: topics of its own, workers, a seeded load, faults in the midst of it, and what is there afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from types import TracebackType

import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams import topics
from streams.broker import EmbeddedBroker
from tests.chaos.checker import Report, check, conclude
from tests.chaos.history import BATCH_PATIENCE_S, TOPICS, Exit, History, Sent, Topic, stores_in
from tests.chaos.parts import Share, check_shares
from tests.chaos.scenario import Endless
from tests.cluster import Cluster
from tests.integration.harness import (
    ANSWER_S,
    CHANGES,
    PARTITIONS,
    PATIENCE_S,
    REQUESTS,
    SHORT_SESSION,
    Loop,
    Place,
    Worker,
    World,
    wait_for,
)
from tests.integration.load import Load
from tests.model.generate import Step

#: The fence must not run out of time while things are broken: what is tested is what it says, not how soon. Small
#: checkpoints make many of them.
ENV = SHORT_SESSION | {"CONSENT_MAX_WAIT_MS": "60000", "CONSENT_BATCH_RECORDS": "50"}
#: How long after the last fault all must be worked off: many times what it takes on a quiet machine.
LAG_WITHIN_S = 120.0
#: One load of a round, a few seconds of it; a round goes on with the next as long as its faults take.
EVENTS = 250
PAUSE_S = 0.01
LAUNCHER = "tests.chaos.launcher"
#: Of the brokers that are hurt: what a topic's settings say of compaction is done soon.
BROKER = {"log.cleaner.backoff.ms": "500"}
#: One broker, or several.
Kafka = EmbeddedBroker | Cluster
#: Where there are several, others are asked soon.
CLUSTER_ANSWER_S = 5.0


class NotingLoad(Load):
    """A load that keeps every acknowledgement."""

    sent: list[Sent]

    def __init__(self, world: World, steps: Sequence[Step], pause_s: float = 0.0) -> None:
        super().__init__(world, steps, pause_s)
        self.sent = []

    @property
    def left(self) -> int:
        """Steps that are not written yet."""
        return len(self._steps) - self.written

    def writes(self, count: int) -> None:
        """Wait until so many more are written."""
        self.reaches((self.written + count) / len(self._steps))

    def acknowledged(self, topic: str, key: bytes | None, value: bytes | None, place: Place) -> None:
        self.sent.append(Sent.of(topic, place, key, value))


class Hand(Worker):
    """A worker whose every end is noted, with how it was allowed to end."""

    def __init__(self, name: str, env: dict[str, str], folder: Path) -> None:
        super().__init__(env, folder, LAUNCHER)
        self.name = name
        self.exits: list[Exit] = []
        self.allowed = frozenset({0})

    def may_end(self, *codes: int) -> Hand:
        """With what it may end from here until its next start."""
        self.allowed = frozenset(codes)
        return self

    def start(self, **env: str) -> Hand:
        """Start it; a fault that was built in lasts for one start only."""
        self.allowed = frozenset({0})
        for name in ("CHAOS_AT", "CHAOS_DO", "CHAOS_LEASE"):
            self._env.pop(name, None)
        super().start(**env)
        return self

    def came_to(self) -> str:
        """What the fault that was built in said when it was reached; empty before."""
        return next((line for line in self._out.read_text().splitlines() if line.startswith("chaos: ")), "")

    def wait(self, patience_s: float = 60.0) -> int:
        noted = len(self.exits) == self._starts
        code = super().wait(patience_s)
        if not noted:
            said = "Traceback" in self.errors
            self.exits.append(Exit(f"{self.name}, start {self._starts}", code, self.allowed, self.last_line, said))
        return code

    def kill(self) -> None:
        self.may_end(-signal.SIGKILL, *(() if self.running else self.allowed))
        super().kill()

    def open_partitions(self) -> int:
        """How many partitions it has; 0 while it cannot say."""
        if not self.running or self._said_ready() is None:
            return 0
        with suppress(httpx.HTTPError):
            lines = httpx.get(f"{self.url}/metrics", timeout=2).text.splitlines()
            return next((int(float(line.split()[1])) for line in lines if line.startswith("consent_partitions_o")), 0)
        return 0


class Round:
    """A `with` block around topics, workers and a load; `finish` checks what is left of them."""

    def __init__(
        self, kafka: Kafka, loop: Loop, folder: Path, seed: int, partitions: int = PARTITIONS
    ) -> None:
        self.kafka = kafka
        self.seed = seed
        self.rng = random.Random(f"faults {seed}")
        several = isinstance(kafka, Cluster)
        self.world = World(
            kafka.bootstrap,
            loop,
            partitions,
            replication=kafka.replication if several else 1,
            answer_s=CLUSTER_ANSWER_S if several else ANSWER_S,
        )
        self.partitions = partitions
        self.workers: list[Hand] = []
        self.loads: list[NotingLoad] = []
        #: Around when things happen; a scenario is repeatable but for this.
        self.base_ms = int(time.time() * 1000)
        self.scenario = Endless(seed, self.base_ms, partitions)
        self._count = count()
        #: What is to be called at the end.
        self.undoes: list[Callable[[], None]] = []
        self._folder = folder

    def __enter__(self) -> Round:
        self.world.create_topics()
        if isinstance(self.kafka, Cluster):
            self.kafka.balance(apart=self.world.config.topic(REQUESTS))
        producer = self.world.loop.run(self.world._opened())
        producer._message_accumulator._batch_ttl = BATCH_PATIENCE_S
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()
        self.world.close()
        for undo in self.undoes:
            undo()
        # Many rounds on one small broker: their topics must not add up.
        self.world.loop.run(self._delete_topics())

    async def _delete_topics(self) -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        with suppress(KafkaError):
            await client.start()
            await client.delete_topics([self.world.config.topic(spec.name) for spec in topics.ALL])
        await client.close()

    # -- what a fault works with --

    @property
    def broker(self) -> EmbeddedBroker:
        """The one broker, for faults that belong to one only."""
        assert isinstance(self.kafka, EmbeddedBroker)
        return self.kafka

    @property
    def cluster(self) -> Cluster:
        """The several brokers, for faults that belong to them."""
        assert isinstance(self.kafka, Cluster)
        return self.kafka

    def leave(self, node: int) -> None:
        """Write through the other brokers only, from when they say that this one is gone."""
        self.world.loop.run(self.world.forget(self.cluster.nodes[node].port))

    def worker(self, **env: str) -> Hand:
        """One more worker, not started."""
        name = f"worker {len(self.workers) + 1}"
        folder = self._folder / f"{self.world.config.topic_prefix}{len(self.workers) + 1}"
        self.workers.append(Hand(name, self.world.env | ENV | env, folder))
        return self.workers[-1]

    def start(self, count: int, **env: str) -> list[Hand]:
        """So many workers, ready, and sharing the partitions."""
        hands = [self.worker(**env).start() for _ in range(count)]
        for hand in hands:
            hand.ready()
        wait_for("all partitions to be shared", lambda: all(hand.open_partitions() for hand in hands))
        return hands

    def load(self, events: int = EVENTS, pause_s: float = PAUSE_S, steps: Sequence[Step] = ()) -> NotingLoad:
        """Begin to write these steps, or the next of the round's scenario."""
        load = NotingLoad(self.world, list(steps) or list(islice(self.scenario, events)), pause_s)
        if self.loads:
            self.loads[-1].join()
        # What was acknowledged to those before is known to this one.
        load._acknowledged |= self.acknowledged()
        self.loads.append(load)
        load.start()
        return load

    def acknowledged(self) -> dict[int, int]:
        """The end of each partition of the changes, as far as it was acknowledged to those who write."""
        return dict(self.loads[-1]._acknowledged) if self.loads else {}

    def goes_on(self, low: int = 30, high: int = 120) -> None:
        """Let so many more records be written; the load is followed by another where it has not as many left."""
        count = self.rng.randint(low, high)
        load = self.loads[-1]
        if load.left < count:
            load = self.load(max(count, EVENTS // 2))
        load.writes(count)

    def comes_to_rest(self) -> None:
        """Wait until all is written and worked off; the next load begins where something is to be written."""
        self.loads[-1].join()
        self.world.settle()

    def passes_time(self, seconds: float) -> None:
        """Let some time pass under load, where time is what the fault is about."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.goes_on(5, 10)

    def until(self, what: str, found: Callable[[], object]) -> None:
        """Keep the load up until something has come about."""
        deadline = time.monotonic() + PATIENCE_S
        while not found():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain, under load, for {what}\n{self.state()}")
            self.goes_on(3, 6)

    def count(self) -> int:
        """A number that the round has not given before."""
        return next(self._count)

    def environment(self) -> dict[str, str]:
        """For a command on the round's topics."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("CONSENT_")}
        return outside | self.world.env

    def settings_are_at(self, org_id: int, version: int) -> None:
        """Somebody else has written an org's settings: the scenario's next are newer."""
        self.scenario.versions[org_id] = version

    def settings_in_log(self, org_id: int) -> list[tuple[Place, int]]:
        """Where each version of an org's settings lies."""
        found = [record for record in self.world.read(CHANGES) if record.key == f"{org_id}:".encode()]
        return [(record.place, record.body["settings"]["version"]) for record in found]

    def pick(self) -> Hand:
        """Some worker that runs."""
        return self.rng.choice([worker for worker in self.workers if worker.running])

    def others_take_over(self, absent: Hand) -> None:
        """Wait until the workers that run, but for one, have all partitions."""
        others = [worker for worker in self.workers if worker.running and worker is not absent]
        try:
            wait_for("the others to have all", lambda: sum(o.open_partitions() for o in others) == self.partitions)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state()}") from None

    def state(self) -> str:
        """What every worker has and said last, for a failure's message."""
        return "\n".join(
            f"{one.name}, {one.running=}, {one.open_partitions()} partitions\n{one.errors[-6000:]}"
            for one in self.workers
        )

    # -- the end --

    def finish(self, *, late: bool = False, large: bool = False) -> Report:
        """Wait until all is written and worked off, stop the workers in order, and check.

        `late`: things were broken for longer than a request waits, so that some may be told `state_behind`.
        `large`: there is too much to hold it in memory at once.
        """
        if large:
            ending = self.end(late=late)
            return conclude(ending, check_shares(self.shares(late=late)))
        return check(self.history(late=late))

    def history(self, *, late: bool = False) -> History:
        """All that there is to check, once all is written and worked off and the workers are stopped."""
        ending = self.end(late=late)
        numbers = range(self.partitions)
        return replace(
            ending,
            topics={spec.name: Topic(list(self.world.read(spec.name))) for spec in TOPICS},
            numbers=numbers,
            ends=self.ends(),
            sent=self.sent(),
            stores=[one for worker in self.workers for one in stores_in(worker.datadir, worker.name, numbers)],
        )

    def shares(self, *, late: bool = False) -> list[Share]:
        """The same for a check in parts: what is in the logs and on the disks is read there."""
        sent: list[list[Sent]] = [[] for _ in range(self.partitions)]
        for one in self.sent():
            sent[one.place.partition].append(one)
        folders = {worker.name: worker.datadir for worker in self.workers}
        return [
            Share(self.world.config, number, self.ends(number), sent[number], folders, late)
            for number in range(self.partitions)
        ]

    def ends(self, number: int | None = None) -> dict[str, int]:
        """By request id, what was acknowledged before; at least of the requests at home in a partition."""
        return {name: end for load in self.loads for name, end in load.ends.items()}

    def sent(self) -> list[Sent]:
        """What was acknowledged to those who write."""
        return [sent for load in self.loads for sent in load.sent]

    def end(self, *, late: bool) -> History:
        """Wait, and stop the workers; a history without what is in the logs and on the disks."""
        for load in self.loads:
            load.join()
        for worker in self.workers:
            if worker.running:
                worker.resume()
        if not any(worker.running for worker in self.workers):
            self.workers[0].start().ready()
        started = time.monotonic()
        with suppress(AssertionError):  # what is left then is told
            self.world.settle(LAG_WITHIN_S)
        took = time.monotonic() - started
        left = self.world.unsettled()
        self.stop(self.workers)
        return History(
            config=self.world.config,
            exits=[one for worker in self.workers for one in worker.exits],
            unsettled=left,
            settled_s=took,
            allowed_s=LAG_WITHIN_S,
            late=late,
        )

    def stop(self, workers: Iterable[Hand]) -> None:
        """SIGTERM to all at once, and wait for every end."""
        going = [worker for worker in workers if worker.running]
        for worker in going:
            if worker._said_ready() is None:
                # It may not have come to where it listens to signals.
                worker.may_end(0, -signal.SIGTERM)
            worker.signal(signal.SIGTERM)
        for worker in going:
            try:
                worker.wait()
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{worker.name} does not end:\n{worker.errors[-6000:]}") from None
