"""Another number of partitions: copy, compare, switch, on a real broker with real workers of both installations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from streams import topics
from streams.broker import ChosenBroker
from streams.cli import sample
from streams.cli.repartition.closing import close_inputs, closed_inputs, open_inputs
from streams.cli.repartition.copying import copying
from streams.domain.keys import is_settings_key
from streams.kafka import admin
from streams.kafka.topic_configs import own_settings
from streams.topics import TopicSpec
from tests.cli.world import invoke
from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import (
    CHANGELOG,
    CHANGES,
    CHECKOUT,
    DEADLETTER,
    NOTIFICATIONS,
    REQUESTS,
    Doc,
    Loop,
    Record,
    Worker,
    World,
    wait_for,
)
from tests.integration.load import Load
from tests.integration.orgs import BASE_MS, NORTH, SOUTH, WEB, Org, all_types, dump
from tests.integration.test_random import PATIENT
from tests.model.generate import scenario
from tests.model.wire import time_text

pytestmark = pytest.mark.kafka

INBOUND = topics.INBOUND.name
OLD, NEW = 3, 5
MakeCopy = Callable[[], World]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option of the developer's own."""
    for name in [name for name in os.environ if name.startswith("CONSENT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_copy(kafka: ChosenBroker, loop: Loop) -> Iterator[MakeCopy]:
    """Makes a world whose topics do not exist yet."""
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World(kafka.bootstrap, loop, NEW))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def arguments(new: World) -> list[str]:
    where = ["--to-prefix", new.config.topic_prefix, "--to-partitions", str(new.config.partitions)]
    return ["topics", "repartition", *where, "--json"]


def repartition(old: World, new: World, *more: str, code: int = 0) -> Doc:
    """One run of the command; what it said."""
    done = invoke(*arguments(new), *more, env=old.env)
    assert done.exit_code == code, done.output
    told: Doc = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return told


def invoke_and_kill(old: World, new: World, step: str) -> subprocess.CompletedProcess[bytes]:
    """The switch in a process of its own, which is killed at a step of it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.integration.dying", step, *arguments(new), "--switch"],
        env=_environment(old), cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def _environment(old: World) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CONSENT_")} | old.env


@contextmanager
def following(old: World, new: World) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own that goes on until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", *arguments(new), "--follow"],
        env=_environment(old), cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def states(world: World) -> dict[bytes, set[bytes | None]]:
    """The states of customers, and the settings of all partitions, by key."""
    last = {(record.partition, record.key): record.value for record in world.read(CHANGELOG)}
    found: dict[bytes, set[bytes | None]] = defaultdict(set)
    for (_, key), value in last.items():
        if key and key[0]:
            found[key].add(value)
    return found


def histories(records: list[Record]) -> dict[bytes, list[tuple[int, bytes | None]]]:
    """By customer: times and values of its records."""
    found = defaultdict(list)
    for record in records:
        if record.key and not is_settings_key(record.key):
            found[record.key].append((record.timestamp, record.value))
    return found


def at_home(world: World) -> list[Record]:
    return [r for r in world.read(CHANGES) if r.key and (is_settings_key(r.key) or world.home(r.key) == r.partition)]


def answers(worker: Worker, keys: list[bytes], places: list[Doc]) -> list[Doc]:
    """What a worker decides for every customer at each place, but for what names the request and the position."""
    found = []
    with httpx.Client(base_url=worker.url, timeout=20) as client:
        for number, (key, place) in enumerate(product(keys, places)):
            org_id, _, customer = key.decode().partition(":")
            asked = {"request_id": f"asked-{number}", "org_id": int(org_id), "customer_id": customer} | place
            answer = client.post("/v1/eligibility", content=dump(asked))
            assert answer.status_code == 200, answer.text
            found.append({n: v for n, v in answer.json().items() if n not in {"decision_id", "as_of"}})
    return found


def ask(worker: Worker, org: Org, **fields: Any) -> httpx.Response:
    """A worker's answer to a question over HTTP."""
    return httpx.post(f"{worker.url}/v1/eligibility", content=dump(org.request(**fields)), timeout=20)


@pytest.mark.long
def test_a_random_scenario_comes_to_the_same_states_and_decisions_although_the_copy_is_killed(
    make_world: MakeWorld, make_copy: MakeCopy, make_worker: MakeWorker
) -> None:
    old, new = make_world(OLD), make_copy()
    before = make_worker(old, **PATIENT).start()
    steps = scenario(11, events=1500, base_ms=BASE_MS, partitions=OLD)
    load = Load(old, steps, pause_s=0.001).start()
    load.reaches(0.3)
    with following(old, new):
        wait_for("the topics", lambda: len(new.loop.run(admin.describe(new.config)).topics) == len(topics.ALL))
        after = make_worker(new, **PATIENT).start()
        wait_for("some of it to be copied", lambda: sum(new.ends(CHANGES)) > 100)
    load.reaches(0.6)
    copied = sum(new.ends(CHANGES))
    with following(old, new) as second:
        wait_for("more of it to be copied", lambda: sum(new.ends(CHANGES)) > copied)
        load.join()
        old.settle()
        told = repartition(old, new, "--switch")
        ends = new.ends(CHANGES)
        # Small enough for a closed topic to take it.
        old.send(CHANGES, b"1:late", b"{}")
        assert b"took over" in second.communicate(timeout=60)[1], "only one may copy"
        assert (second.returncode, new.ends(CHANGES)) == (1, ends)
    assert told["differences"] == []
    assert told["compared"]["customers"] > 20
    assert states(new) == states(old)
    in_time = [record for record in at_home(old) if record.key != b"1:late"]
    assert histories(new.read(CHANGES)) == histories(in_time)
    assert len(new.read(DEADLETTER)) > 0
    keys = sorted(key for key in states(old) if not is_settings_key(key))
    places = [{"channel": channel, "priority": "BULK"} | WEB for channel in ("EMAIL", "MOBILE")]
    old.loop.run(open_inputs(old.config))
    assert answers(after, keys, places) == answers(before, keys, places)
    # The messages were sent by the old installation.
    assert new.read(NOTIFICATIONS) == []
    wait_for("all audits", lambda: not new.unsettled())
    comparison = Comparison(new)
    assert [fault for fault in comparison.faults() if fault.about != "notifications"] == []


def test_each_customer_is_weighed_under_the_settings_of_its_time(
    make_world: MakeWorld, make_copy: MakeCopy, make_worker: MakeWorker
) -> None:
    # Without changes topics are not in use, though they are there and have a worker.
    old, new = make_world(OLD), make_world(NEW)
    before, after = make_worker(old).start(), make_worker(new).start()
    before.ready()
    early = Org(old)
    names = [f"c{number}" for number in range(12)]
    org = Org(old, opt_in_types=all_types("DOUBLE"), require_registration=True)
    for number, name in enumerate(names):
        org.register(customer_id=name, identifiers={"mobile": f"+4915112345{number:03}"})
        org.opt_in(10, customer_id=name)
    pending = {name: org.opt_in_event(20, customer_id=name, org_unit_id=SOUTH) for name in names}
    for event in pending.values():
        org.send(event)
    org.configure(opt_in_types=[], ou_sync={"opt_in": True, "opt_out": "any"})
    for name in names[::2]:
        org.opt_in(30, customer_id=name)
        org.verify(pending[name]["event_id"], 40, customer_id=name, org_unit_id=SOUTH)
    org.configure(ou_sync={"opt_in": False, "opt_out": "none"})
    for name in names[::3]:
        org.opt_out(5, customer_id=name)
        org.erase(customer_id=name, occurred_at=time_text(BASE_MS + 50))
        org.opt_in(60, customer_id=name)
    for name in names[::4]:
        org.opt_out(70, customer_id=name, org_unit_id=NORTH)
    # A dead letter of each kind that depends on what was in force, or on the time; and one without a key.
    lost = [
        org.opt_in(customer_id="c1", source="LINE", account_id="9"),
        org.opt_in(customer_id="c2", occurred_at=time_text(BASE_MS + 2 * 3_600_000)),
        old.send(CHANGES, None, b"{}", 1),
        old.send(CHANGES, early.key(), b"x" * 300_000),
    ]
    foreign = (org.home("c5") + 1) % OLD
    stray = org.opt_in_event(80, customer_id="c5", type="OPTOUT")
    old.send(CHANGES, org.key("c5"), dump(stray), foreign)
    for place in lost:
        org.dead_letter(place)
    old.settle()
    told = repartition(old, new)
    assert told["left_out"] == {"misrouted": 1, "unsendable": 0}
    assert repartition(old, new)["copied"] == 0, "once is enough"
    told = repartition(old, new, "--switch")
    assert told["differences"] == []
    # A customer of an early org came with too large a record only, so has no state.
    assert told["compared"] == {"customers": len(names), "orgs": 2, "identifiers": len(names) - len(names[::3])}
    assert states(new) == states(old)
    assert histories(new.read(CHANGES)) == histories(at_home(old))
    for number in range(NEW):
        versions = [r.body["settings"]["version"] for r in new.log(CHANGES).of(number) if r.key == org.key("")]
        assert versions == [1, 2, 3]
    codes = sorted(record.header("consent.error") or "" for record in new.read(DEADLETTER))
    assert codes == ["missing_key", "occurred_in_future", "too_large", "unknown_account"]
    assert new.read(NOTIFICATIONS) == []
    assert new.loop.run(admin.check_topics(new.config)) == [], "the broker sets the times again"
    for topic in (CHANGES, REQUESTS, INBOUND):
        with pytest.raises(MessageSizeTooLargeError):
            old.send(topic, org.key(), dump(org.request()))
    assert (ask(before, org).status_code, ask(after, org).status_code) == (503, 200)
    assert "the switch is done" in repartition(old, new, code=1)["error"]
    third = make_copy()
    assert "switch to another prefix" in repartition(old, third, code=1)["error"], "it stays closed"


def test_a_difference_is_named_and_nothing_is_switched(
    make_world: MakeWorld, make_copy: MakeCopy, make_worker: MakeWorker
) -> None:
    old, new = make_world(OLD), make_world(NEW)
    before, after = make_worker(old).start(), make_worker(new).start()
    before.ready()
    org = Org(old)
    org.opt_in(customer_id="same")
    org.opt_in(customer_id="other")
    old.settle()
    repartition(old, new)
    assert ask(after.ready(), org).status_code == 503, "it does not know all yet, so nobody may ask it"
    # Somebody writes to the new installation too early.
    new.send(CHANGES, org.key("other"), dump(org.opt_in_event(5, customer_id="other", type="OPTOUT")))
    told = repartition(old, new, "--switch", code=1)
    key = org.key("other").decode()
    assert told["differences"] == [{"kind": "customer", "key": key, "difference": "different"}]
    problems = " ".join(new.loop.run(admin.check_topics(new.config)))
    assert f"{REQUESTS}: is closed" in problems
    assert "message.timestamp.type is CreateTime" in problems
    org.opt_out(9, customer_id="same")
    assert org.verdict(customer_id="same") == (False, "opted_out"), "the old installation goes on"
    assert ask(before, org, customer_id="same").json()["reason"] == "opted_out"
    assert ask(after, org).status_code == 503


#: Where the command is killed: each time a step further on.
STEPS = [
    "cli.repartition.making:alter:1",
    "cli.repartition.making:close_inputs:1",
    "cli.repartition.making:alter:2",
    "kafka.copier:AIOKafkaProducer.send_offsets_to_transaction:1",
    "kafka.copier:AIOKafkaProducer.send_offsets_to_transaction:2",
    "kafka.copier:AIOKafkaProducer.commit_transaction:1",
    "cli.repartition.running:close_inputs:1",
    "cli.repartition.running:compare:1",
    "cli.repartition.running:finish:1",
    "cli.repartition.switching:delete_records:1",
    "cli.repartition.closing:alter:4",
    "cli.repartition.switching:alter:1",
]


@pytest.mark.long
def test_killed_at_any_step_it_goes_on_there(
    make_world: MakeWorld, make_copy: MakeCopy, make_worker: MakeWorker
) -> None:
    old, new = make_world(OLD), make_copy()
    before = make_worker(old).start().ready()
    org = Org(old, messages=[{"kind": "confirm_opt_in", "texts": {"en": "Welcome"}}])
    names = [f"c{number}" for number in range(20)]
    after: Worker | None = None
    for at, step in enumerate(STEPS):
        if not old.loop.run(closed_inputs(old.config)):
            for name in names:
                org.opt_in(at, customer_id=name, type="OPTIN" if at % 2 else "OPTOUT")
        killed = invoke_and_kill(old, new, step)
        assert killed.returncode == -signal.SIGKILL, (step, killed.stdout, killed.stderr)
        if after is None and _exists(new):
            after = make_worker(new).start().ready()
        if step == "cli.repartition.running:compare:1":
            assert ask(before, org).status_code == 503, "it was killed with the old installation closed"
    repartition(old, new)
    assert ask(before, org).status_code == 200, "whoever copies on has opened it again"
    assert new.loop.run(closed_inputs(new.config)) != []
    told = repartition(old, new, "--switch")
    assert told["differences"] == []
    assert histories(new.read(CHANGES)) == histories(old.read(CHANGES))
    assert new.loop.run(admin.check_topics(new.config)) == []
    assert new.read(NOTIFICATIONS) == []
    assert after is not None
    assert ask(after, org, customer_id="c1").json()["reason"] == "opted_in"


def test_closed_inputs_take_no_event_and_no_request_but_the_end_of_a_transaction(make_world: MakeWorld) -> None:
    world = make_world(1)
    request = {"request_id": "1", "org_id": 1, "customer_id": "1", "channel": "IOS", "priority": "BULK"}
    with world.open_transaction([(CHANGES, b"1:1", b"{}")]) as end:
        world.loop.run(close_inputs(world.config))
        end(True)
    assert [record.value for record in world.read(CHANGES)] == [b"{}"]
    for packed in (None, "gzip"):
        with pytest.raises(MessageSizeTooLargeError):
            world.loop.run(_send_packed(world, dump(request), packed))
    told = invoke("publish", text=dump(sample.events()[0]), env=world.env)
    assert "topics check" in told.stderr
    assert f"{CHANGES}: is closed" in invoke("topics", "check", env=world.env).stderr
    world.loop.run(open_inputs(world.config))
    world.loop.run(_send_packed(world, dump(request), "gzip"))
    assert world.loop.run(admin.check_topics(world.config)) == []


async def _send_packed(world: World, value: bytes, packed: str | None) -> None:
    server = world.config.bootstrap_servers
    async with AIOKafkaProducer(bootstrap_servers=server, compression_type=packed) as producer:
        await producer.send_and_wait(world.config.topic(REQUESTS), value, b"1:1", 0)


def test_a_switch_that_fails_while_it_compares_opens_the_old_installation_again(
    make_world: MakeWorld, make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_world(OLD), make_copy()
    Org(old)
    shut: list[TopicSpec] = []

    async def drained(*_: object) -> bool:
        return True

    async def fail(*_: object) -> None:
        shut.extend(await closed_inputs(old.config))
        raise admin.KafkaFault("the broker went away")

    for name, double in (("drain", drained), ("is_drained", drained), ("compare", fail)):
        monkeypatch.setattr(f"streams.cli.repartition.running.{name}", double)
    assert "the broker went away" in repartition(old, new, "--switch", code=1)["error"]
    assert shut == list(topics.INPUTS)
    assert old.loop.run(closed_inputs(old.config)) == []


def test_a_copy_whose_place_another_took_does_not_switch(make_world: MakeWorld, make_copy: MakeCopy) -> None:
    old, new = make_world(OLD), make_copy()

    async def overtaken() -> None:
        async with copying(old.config, new.config, print) as first, copying(old.config, new.config, print):
            await first.confirm()

    with pytest.raises(admin.KafkaFault, match="took over"):
        old.loop.run(overtaken())


def test_new_topics_have_what_was_set_for_the_old_ones(make_world: MakeWorld, make_copy: MakeCopy) -> None:
    old, new = make_world(OLD), make_copy()
    old.configure(topics.AUDIT.name, **topics.AUDIT.config_for(1) | {"min.insync.replicas": "1"})
    repartition(old, new)
    before, after = (world.loop.run(own_settings(world.config)) for world in (old, new))
    differ = {name for name in before if before[name] != after[name]}
    assert after[topics.AUDIT.name]["min.insync.replicas"] == "1"
    assert differ == {CHANGES, REQUESTS, INBOUND}, "those of a copy under way"


def test_topics_that_are_in_use_take_no_copy(make_world: MakeWorld) -> None:
    old, used = make_world(OLD), make_world(NEW)
    Org(used)
    assert "is in use, choose another --to-prefix" in repartition(old, used, code=1)["error"]
    used.configure(CHANGES, **topics.CHANGES.config | {"message.timestamp.type": "CreateTime"})
    assert "not of this copy" in repartition(old, used, code=1)["error"]


def test_settings_that_are_not_in_every_partition_stop_the_copy_with_a_clear_line(
    make_world: MakeWorld, make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.cli.repartition.copying.HELD_S", 0.5)
    old, new = make_world(OLD), make_copy()
    org = Org(old)
    event = org._event("settings.changed", 0) | {"settings": org.document | {"version": 2}}
    old.send(CHANGES, org.key(""), dump(event), 1)
    org.opt_in(customer_id="c")
    said = repartition(old, new, code=1)["error"]
    assert f"org {org.id}: new settings stand in partitions [1] only" in said
    assert [record.value for record in new.read(CHANGES)] == [], "what was not copied in whole is not there"


def test_ending_what_follows_is_no_failure(make_world: MakeWorld, make_copy: MakeCopy) -> None:
    old, new = make_world(OLD), make_copy()
    Org(old)
    with following(old, new) as process:
        wait_for("the settings to be copied", lambda: _exists(new) and len(new.read(CHANGES)) == NEW)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def _exists(world: World) -> bool:
    return topics.CHANGES.name in world.loop.run(admin.describe(world.config)).topics
