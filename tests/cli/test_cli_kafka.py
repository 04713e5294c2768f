"""The commands on a real broker, each test under its own prefix of topic names. No worker runs here."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.deadletter import Code
from streams import topics
from streams.cli.letters import CODE, CONNECT
from streams.domain.keys import partition_of
from streams.kafka import admin
from streams.kafka.client import Header
from tests.cli.world import PARTITIONS, World

pytestmark = pytest.mark.kafka

AT = "2026-01-02T03:04:05.678Z"


def change(event_id: str, customer: str = "c-1", **fields: Any) -> dict[str, Any]:
    return {
        "event": "consent.changed", "event_id": event_id, "org_id": 100, "customer_id": customer, "source": "INSTORE",
        "account_id": "01", "channel": "EMAIL", "priority": "BULK", "type": "OPTIN", "org_unit_id": -1,
        "occurred_at": AT, **fields,
    }  # fmt: skip


def settings_event(version: int = 1) -> dict[str, Any]:
    return {
        "event": "settings.changed", "event_id": f"s-{version}", "org_id": 100, "occurred_at": AT,
        "settings": {"org_id": 100, "version": version},
    }  # fmt: skip


def ndjson(*events: dict[str, Any] | str) -> str:
    return "".join((event if isinstance(event, str) else json.dumps(event)) + "\n" for event in events)


# --- topics ----------------------------------------------------------------------------------------


def test_create_makes_every_topic_and_does_nothing_the_second_time(bare_world: World) -> None:
    missing = bare_world.run("topics", "check", "--json")
    assert missing.exit_code == 1
    assert len(json.loads(missing.stdout)["problems"]) == len(topics.ALL)

    first = json.loads(bare_world.run("topics", "create", "--json").stdout)
    assert set(first["created"]) == {bare_world.config.topic(spec.name) for spec in topics.ALL}
    second = bare_world.run("topics", "create", "--json")
    assert json.loads(second.stdout)["created"] == []
    assert second.stderr == ""
    check = bare_world.run("topics", "check")
    assert check.exit_code == 0
    (warning,) = check.stderr.splitlines()
    assert warning.startswith("warning: fewer than 3 replicas: all 10 topics; a lost disk loses acknowledged records")
    told = json.loads(bare_world.run("topics", "check", "--json").stdout)
    assert told == {"problems": [], "warnings": [warning.removeprefix("warning: ")]}


def test_check_names_another_partition_count(world: World) -> None:
    result = world.run("topics", "check", "--partitions", str(PARTITIONS + 1))
    assert result.exit_code == 1
    problems = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(problems) == len(topics.ALL)
    assert f"has {PARTITIONS} partitions, but CONSENT_PARTITIONS says {PARTITIONS + 1}" in result.stderr


def test_check_finds_settings_that_lose_or_refuse_records(bare_world: World) -> None:
    config = bare_world.config
    wrong = {
        "consent.changes": {"retention.ms": "3600000", "cleanup.policy": "compact,delete"},
        "consent.audit": {"max.message.bytes": "1000000", "retention.ms": "-1"},
        "eligibility.decisions": {"max.message.bytes": str(topics.OUTPUT_BYTES), "retention.ms": "1000"},
        topics.CHANGELOG.name: {"cleanup.policy": "delete", "max.message.bytes": "1000000"},
    }

    async def create() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=config.bootstrap_servers)
        await client.start()
        try:
            await client.create_topics(
                [NewTopic(config.topic(n), PARTITIONS, 1, topic_configs=c) for n, c in wrong.items()]
            )
        finally:
            await client.close()

    asyncio.run(create())
    asyncio.run(admin.create_topics(config))
    found = asyncio.run(admin.check_topics(config))
    by_topic = defaultdict(set)
    for problem in found:
        name, _, text = problem.partition(": ")
        by_topic[name.removeprefix(config.topic_prefix)].add(text.split()[0])
    assert by_topic == {
        "consent.changes": {"retention.ms", "cleanup.policy", "message.timestamp.type"},
        "consent.audit": {"max.message.bytes"},
        "eligibility.decisions": {"retention.ms"},
        topics.CHANGELOG.name: {"cleanup.policy", "max.message.bytes"},
    }
    fatal = asyncio.run(admin.check_topics(config, fatal_only=True))
    assert not any("decisions" in problem for problem in fatal)
    assert any("consent.changes: retention.ms" in problem for problem in fatal)


def test_a_topic_created_again_has_another_id_in_the_same_cluster(world: World) -> None:
    async def all_of_it() -> tuple[admin.Cluster, admin.Cluster]:
        before = await admin.describe(world.config)
        client = AIOKafkaAdminClient(bootstrap_servers=world.config.bootstrap_servers)
        await client.start()
        await client.delete_topics([world.config.topic("consent.audit")])
        await client.close()
        async with asyncio.timeout(20):
            while "consent.audit" in (await admin.describe(world.config)).topics:
                await asyncio.sleep(0.02)  # the broker tells nobody when it has deleted a topic
            await admin.create_topics(world.config)
        return before, await admin.describe(world.config)

    before, after = asyncio.run(all_of_it())
    assert before.cluster_id == after.cluster_id != ""
    changed = {name for name, state in before.topics.items() if state.id != after.topics[name].id}
    assert changed == {"consent.audit"}


# --- publish ---------------------------------------------------------------------------------------


def test_publish_keys_partitions_and_prints_each_position(world: World) -> None:
    events = [change(f"e-{i}", f"customer {i % 7}:ü") for i in range(50)]
    result = world.run("publish", "--json", text=ndjson(*events))
    assert result.exit_code == 0
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [p["event_id"] for p in printed] == [e["event_id"] for e in events]
    there = {(r.partition, r.offset): r for r in world.read("consent.changes")}
    for event, place in zip(events, printed, strict=True):
        record = there[place["partition"], place["offset"]]
        key = f"100:{event['customer_id']}".encode()
        assert (record.key, json.loads(record.value or b"")) == (key, event)
        assert place["partition"] == partition_of(key, PARTITIONS)


def test_publish_prints_line_id_and_place_for_people(world: World) -> None:
    result = world.run("publish", text="\n" + ndjson(change("e-1")))
    partition = partition_of(b"100:c-1", PARTITIONS)
    assert result.stdout == f"2 e-1 {world.config.topic('consent.changes')}-{partition}@0\n"
    assert result.stderr == "1 event published\n"


def test_publish_of_nothing_says_so(world: World) -> None:
    result = world.run("publish", text="\n  \n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to publish" in result.stderr


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        (change("e-2", channel="PIGEON"), "channel"),
        ({**change("e-2"), "event": "consent.chnged"}, "consent.chnged"),
        ({k: v for k, v in change("e-2").items() if k != "occurred_at"}, "occurred_at"),
        (change("e-2", org_id="100"), "org_id"),
        ("{not json", "not JSON"),
        ("[1]", "object"),
        (change("e-2", reason="x" * 300_000), "too large"),
        ({**settings_event(), "settings": {"org_id": 7, "version": 1}}, "settings.org_id"),
        ({**settings_event(), "settings": {"org_id": 100, "version": 0}}, "settings.version"),
    ],
)
def test_publish_stops_at_the_first_bad_line(world: World, bad: dict[str, Any] | str, names: str) -> None:
    result = world.run("publish", text=ndjson(change("e-1"), bad, change("e-3")))
    assert result.exit_code == 1
    assert "line 2: " in result.stderr
    assert names in result.stderr
    assert "1 event before it published" in result.stderr
    assert len(world.read("consent.changes")) == 1


def test_publish_keeps_going_if_asked_to(world: World) -> None:
    result = world.run("publish", "--keep-going", text=ndjson(change("e-1"), "nope", change("e-3"), change("", "c")))
    assert result.exit_code == 1
    assert "line 2: " in result.stderr
    assert "line 4: event_id" in result.stderr
    assert len(world.read("consent.changes")) == 2


def test_publish_writes_settings_to_every_partition_behind_what_came_before(world: World) -> None:
    before = [change(f"e-{i}", f"c-{i}") for i in range(20)]
    after = [change(f"f-{i}", f"c-{i}") for i in range(20)]
    result = world.run("publish", text=ndjson(*before, settings_event(), *after))
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 40 + PARTITIONS
    orders = defaultdict(list)
    for record in world.read_all("consent.changes", 40 + PARTITIONS):
        orders[record.partition].append(json.loads(record.value or b"")["event_id"][0])
    for order in orders.values():
        assert "".join(order).strip("e").strip("f") == "s"
    assert sorted(orders) == list(range(PARTITIONS))


def test_publish_says_which_topic_is_missing(bare_world: World) -> None:
    result = bare_world.run("publish", text=ndjson(change("e-1")))
    assert result.exit_code == 1
    assert "consent.changes does not exist" in result.stderr
    assert "topics create" in result.stderr


def test_publish_from_a_pipe_prints_while_the_input_is_open(world: World, checkout_env: dict[str, str]) -> None:
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-u", "-m", "streams", "publish"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**checkout_env, **world.env},
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for i in (1, 2):
            process.stdin.write(ndjson(change(f"e-{i}")))
            process.stdin.flush()
            assert f" e-{i} " in process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 0


# --- ask -------------------------------------------------------------------------------------------

ASK = ("ask", "100", "c-1", "--channel", "email", "--priority", "BULK")


def test_ask_without_a_worker_times_out_with_a_hint(world: World) -> None:
    result = world.run(*ASK, "--org-unit", "7", "--min-position", "1:42", "--request-id", "r-1", "--timeout", "0.3")
    assert result.exit_code == 1
    assert "consent-streams worker" in result.stderr
    (record,) = world.read("eligibility.requests")
    assert (record.key, record.partition) == (b"100:c-1", partition_of(b"100:c-1", PARTITIONS))
    assert json.loads(record.value or b"") == {
        "request_id": "r-1", "org_id": 100, "customer_id": "c-1", "channel": "EMAIL", "priority": "BULK",
        "org_unit_id": 7, "min_position": {"partition": 1, "offset": 42},
    }  # fmt: skip


DECISION = {
    "request_id": "r-1", "decision_id": "d", "org_id": 100, "customer_id": "c-1", "channel": "EMAIL",
    "priority": "BULK", "org_unit_id": -1, "eligible": False, "reason": "recent_opt_out", "policy": "recent",
    "opt_in_type": None, "as_of": {"partition": 1, "offset": 42}, "settings_version": 3, "campaign_id": None,
    "communication_id": None,
}  # fmt: skip


@pytest.mark.parametrize("machine", [True, False])
def test_ask_finds_its_own_decision_among_others(world: World, machine: bool) -> None:
    # A worker in miniature: answers with two decisions, the second of which belongs to the request.
    from concurrent.futures import ThreadPoolExecutor

    from streams.kafka.client import Producer, Reader

    async def answer() -> None:
        async with Reader(world.config, world.config.topic("eligibility.requests")) as reader:
            async for bundle in reader.bundles(follow=True):
                record = bundle[0]
                async with Producer(world.config) as producer:
                    for request_id in ("other", json.loads(record.value or b"")["request_id"]):
                        body = json.dumps({**DECISION, "request_id": request_id}).encode()
                        topic = world.config.topic("eligibility.decisions")
                        await (await producer.send(topic, record.key or b"", body, partition=record.partition))
                return

    with ThreadPoolExecutor() as pool:
        answered = pool.submit(asyncio.run, answer())
        result = world.run(*ASK, *(["--json"] if machine else []))
        answered.result(20)
    assert result.exit_code == 0
    if machine:
        assert json.loads(result.stdout)["reason"] == "recent_opt_out"
    else:
        assert result.stdout.startswith("NO  recent_opt_out\n")
        assert "most recent word over all profiles is an opt-out." in result.stdout
        assert "1@42" in result.stdout
        assert "settings version 3" in result.stdout


# --- audit -----------------------------------------------------------------------------------------


def write_audit(world: World) -> None:
    cell = {
        "source": "INSTORE", "account_id": "01", "channel": "EMAIL", "priority": "BULK", "org_unit_id": 8,
        "before": "NOT_SET", "after": "OPTIN", "synced": True,
    }  # fmt: skip
    position = {"partition": 1, "offset": 42}
    head = {"record": "change", "position": position, "settings_version": 1, "outcome_reason": None, "cells": []}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("100:c-1", {**head, "outcome": "applied", "cells": [cell], "input": change("e-1")}),
        ("100:c-2", {**head, "outcome": "ignored", "outcome_reason": "duplicate", "input": change("e-1", "c-2")}),
        ("1001:c-1", {**head, "outcome": "settings_applied", "input": settings_event(4)}),
        ("100:c-1", {"record": "decision", "position": position, "settings_version": 1, "decision": DECISION,
                     "inputs": [{"source": "INSTORE", "account_id": "01", "opt_in_type": "SINGLE", "status": "OPTOUT",
                                 "pending": False, "since": AT, "event_id": "e", "org_unit_id": -1}]}),
    ]  # fmt: skip
    for key, body in bodies:
        world.write("consent.audit", key.encode(), json.dumps(body).encode())


def test_audit_prints_one_readable_line_per_record(world: World) -> None:
    write_audit(world)
    result = world.run("audit")
    assert result.exit_code == 0
    lines = [line.split(" ", 1)[1] for line in result.stdout.splitlines()]
    assert set(lines) == {
        "1@42 100:c-1 consent.changed OPTIN INSTORE 01 EMAIL BULK -1: applied; "
        "INSTORE 01 EMAIL BULK 8 NOT_SET -> OPTIN by sync",
        "1@42 100:c-2 consent.changed OPTIN INSTORE 01 EMAIL BULK -1: ignored (duplicate)",
        "1@42 1001:c-1 settings.changed version 4: settings_applied",
        "1@42 100:c-1 request r-1 EMAIL BULK -1: no (recent_opt_out); INSTORE 01 SINGLE OPTOUT",
    }


def test_audit_of_one_org_and_of_one_customer(world: World) -> None:
    write_audit(world)
    of_org = world.run("audit", "--org", "100", "--json").stdout.splitlines()
    of_customer = world.run("audit", "--org", "100", "--customer", "c-1", "--json").stdout.splitlines()
    assert len(of_org) == 3
    assert [json.loads(line)["record"] for line in of_customer] == ["change", "decision"]


def test_audit_follow_goes_on_until_ctrl_c_and_exits_0(world: World, checkout_env: dict[str, str]) -> None:
    import signal
    import subprocess
    import sys

    write_audit(world)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "streams", "audit", "--follow", "--org", "100", "--customer", "c-2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**checkout_env, **world.env},
    ) as process:  # fmt: skip
        assert process.stdout
        assert "100:c-2" in process.stdout.readline()
        write_audit(world)
        assert "100:c-2" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


# --- dead letters ----------------------------------------------------------------------------------


def bury(world: World, code: Code, value: bytes, key: bytes = b"100:c-1", topic: str = "consent.changes") -> Any:
    headers: list[Header] = [
        ("own", b"kept"),
        (CONNECT + "topic", world.config.topic(topic).encode()),
        (CONNECT + "partition", b"2"),
        (CONNECT + "offset", b"17"),
        (CONNECT + "stage", b"VALUE_CONVERTER"),
        (CONNECT + "exception.class.name", b"streams.errors.BadRecord"),
        (CONNECT + "exception.message", b"channel: what is wrong"),
        (CODE, code.encode()),
    ]
    return world.write("consent.deadletter", key, value, headers)


def test_deadletter_list_shows_code_origin_key_message_and_value(world: World) -> None:
    bury(world, "malformed_json", b"{" + b"x" * 500)
    sent = bury(world, "invalid_field", json.dumps(change("e-1", channel="PIGEON")).encode())
    lines = world.run("deadletter", "list").stdout.splitlines()
    assert len(lines) == 2
    (line,) = world.run("deadletter", "list", "--code", "invalid_field").stdout.splitlines()
    origin = f"{world.config.topic('consent.changes')}-2@17"
    place = f"{sent.partition}/{sent.offset}"
    assert line.startswith(f"{place} invalid_field {origin} 100:c-1: channel: what is wrong | {{")
    assert all(len(line) < 400 for line in lines)
    letter = json.loads(world.run("deadletter", "list", "--code", "invalid_field", "--json").stdout)
    assert (letter["topic_partition"], letter["topic_offset"], letter["stage"]) == (2, 17, "VALUE_CONVERTER")
    assert json.loads(letter["value"])["channel"] == "PIGEON"


def test_deadletter_list_of_none_says_so(world: World) -> None:
    result = world.run("deadletter", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no dead letters\n")


def test_replay_repairs_a_field_and_sends_under_the_right_key(world: World) -> None:
    bad = change("e-1", "c-9", channel="PIGEON", extra={"kept": True})
    sent = bury(world, "invalid_field", json.dumps(bad).encode(), key=b"wrong")
    place = ["--partition", str(sent.partition), "--offset", str(sent.offset)]
    refused = world.run("deadletter", "replay", *place)
    assert refused.exit_code == 1
    assert f"{sent.partition}/{sent.offset}: channel" in refused.stderr
    assert world.read("consent.changes") == []

    tried = world.run("deadletter", "replay", *place, "--set", 'channel="EMAIL"', "--dry-run")
    assert tried.exit_code == 0
    assert world.read("consent.changes") == []

    done = world.run("deadletter", "replay", *place, "--set", 'channel="EMAIL"')
    assert done.exit_code == 0
    (record,) = world.read("consent.changes")
    assert (record.key, record.partition) == (b"100:c-9", partition_of(b"100:c-9", PARTITIONS))
    assert json.loads(record.value or b"") == {**bad, "channel": "EMAIL"}
    came_from = f"{sent.partition}/{sent.offset}".encode()
    assert list(record.headers) == [("own", b"kept"), ("consent.replayed_from", came_from)]
    assert f"{record.topic}-{record.partition}@{record.offset}" in done.stdout
    assert len(world.read("consent.deadletter")) == 1


def test_replay_of_a_code_takes_values_from_a_file(world: World, tmp_path: Any) -> None:
    for i in range(3):
        bury(world, "malformed_json", b"{", key=b"100:c-%d" % i)
    bury(world, "unknown_org", json.dumps(change("e-0")).encode())
    edits = tmp_path / "values"
    edits.write_text(ndjson(change("e-1"), change("e-2")))
    few = world.run("deadletter", "replay", "--code", "malformed_json", "--edit", str(edits))
    assert few.exit_code == 1
    assert "2 lines for 3" in few.stderr

    edits.write_text(ndjson(change("e-1"), "still {", change("e-3")))
    assert world.run("deadletter", "replay", "--code", "malformed_json", "--edit", str(edits)).exit_code == 1
    assert world.read("consent.changes") == []
    most = world.run("deadletter", "replay", "--code", "malformed_json", "--edit", str(edits), "--keep-going")
    assert most.exit_code == 1
    assert {json.loads(r.value or b"")["event_id"] for r in world.read("consent.changes")} == {"e-1", "e-3"}


def test_replay_of_all_sends_requests_and_settings_where_they_belong(world: World) -> None:
    request = {"request_id": "r", "org_id": 100, "customer_id": "c-1", "channel": "EMAIL", "priority": "BULK"}
    bury(world, "unknown_org", json.dumps(request).encode(), topic="eligibility.requests")
    for i in range(PARTITIONS):  # a bad document is one dead letter in every partition
        bury(world, "invalid_field", json.dumps(settings_event()).encode(), key=b"%d" % i)
    result = world.run("deadletter", "replay", "--all", "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1 + PARTITIONS
    assert len(world.read("eligibility.requests")) == 1
    settings = world.read("consent.changes")
    assert [(r.partition, r.key) for r in sorted(settings, key=lambda r: r.partition)] == [
        (partition, b"100:") for partition in range(PARTITIONS)
    ]


def test_replay_of_a_place_without_a_dead_letter_fails(world: World) -> None:
    result = world.run("deadletter", "replay", "--partition", "0", "--offset", "5")
    assert result.exit_code == 1
    assert "0/5" in result.stderr
