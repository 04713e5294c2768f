"""`settings` and `state`: documents with faults, one transaction, and what a worker's HTTP says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.cli import sample
from tests.cli.world import PARTITIONS, World, invoke

GOOD = sample.SETTINGS
BAD = """
org_id: 100
version: 0
org_units: [{id: 1}, {id: 1}]
accounts: [{source: INSTORE, account_id: 01, channels: [PIGEON]}]
"""
CONTRADICTS = """
org_id: 100
version: 1
accounts: [{source: INSTORE, account_id: "01", channels: [EMAIL]}]
opt_in_types: [{source: INSTORE, channel: EMAIL, type: DOUBLE}, {org_unit_id: 9, type: SINGLE}]
unified: {org_units: {7: {enabled: true}}}
"""


def written(tmp_path: Path, text: str, name: str = "org.yaml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_good_document_is_valid(tmp_path: Path) -> None:
    result = invoke("settings", "check", written(tmp_path, GOOD))
    assert result.exit_code == 0
    assert "org 100, version 1" in result.stdout
    as_json = written(tmp_path, json.dumps(sample.settings()), "org.json")
    assert json.loads(invoke("settings", "check", as_json, "--json").stdout) == {"valid": True, "faults": []}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (BAD, ["version", "accounts[0].account_id", "accounts[0].channels[0]"]),
        (CONTRADICTS, ["opt_in_types[0].type", "opt_in_types[1].org_unit_id", "unified.org_units.7"]),
        ("org_id: 100\nversion: 1\norg_id: 101\n", ["org_id"]),
        ("[1, 2]", [""]),
        ("a: [", [""]),
        ("", [""]),
    ],
)
def test_every_fault_is_listed_by_its_path(tmp_path: Path, text: str, paths: list[str]) -> None:
    file = written(tmp_path, text)
    machine = invoke("settings", "check", file, "--json")
    assert machine.exit_code == 1
    found = json.loads(machine.stdout)
    assert not found["valid"]
    assert paths == [""] or sorted(fault["path"] for fault in found["faults"]) == sorted(paths)
    people = invoke("settings", "check", file)
    assert people.exit_code == 1
    assert len(people.stderr.splitlines()) == len(found["faults"]) + 1
    assert all(path in people.stderr for path in paths)


@pytest.mark.kafka
def test_apply_writes_to_every_partition_in_one_transaction(world: World, tmp_path: Path) -> None:
    result = world.run("settings", "apply", written(tmp_path, GOOD))
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == PARTITIONS
    assert "no worker answers" in result.stderr
    records = world.read("consent.changes")
    assert sorted(r.partition for r in records) == list(range(PARTITIONS))
    assert {r.key for r in records} == {b"100:"}
    (event,) = {r.value for r in records}
    body = json.loads(event or b"")
    assert (body["event"], body["event_id"]) == ("settings.changed", "settings-100-1")
    assert body["settings"] == sample.settings()
    # Behind each record stands the marker of its transaction.
    assert asyncio.run(_ends(world)) == dict.fromkeys(range(PARTITIONS), 2)


async def _ends(world: World) -> dict[int, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=world.config.bootstrap_servers, isolation_level="read_committed")
    await consumer.start()
    try:
        tps = [TopicPartition(world.config.topic("consent.changes"), p) for p in range(PARTITIONS)]
        return {tp.partition: offset for tp, offset in (await consumer.end_offsets(tps)).items()}
    finally:
        await consumer.stop()


@pytest.mark.kafka
def test_apply_again_and_again_ends(world: World, tmp_path: Path) -> None:
    for _ in range(3):
        assert world.run("settings", "apply", written(tmp_path, GOOD), "--json").exit_code == 0
    assert len(world.read("consent.changes")) == 3 * PARTITIONS


@pytest.mark.kafka
def test_apply_of_a_bad_document_writes_nothing(world: World, tmp_path: Path) -> None:
    result = world.run("settings", "apply", written(tmp_path, CONTRADICTS))
    assert result.exit_code == 1
    assert "opt_in_types[0].type" in result.stderr
    assert world.read("consent.changes") == []


def answer(*versions: int) -> Any:
    body = {"org_id": 100, "version": max(versions), "settings": sample.settings()}
    return 200, {**body, "partitions": {str(p): version for p, version in enumerate(versions)}}


@pytest.mark.kafka
def test_apply_reports_that_it_is_in_force_everywhere(
    world: World, worker_http: dict[str, Any], tmp_path: Path
) -> None:
    steps = iter([(404, {"detail": "unknown org"}), answer(0, 1, 0), answer(1, 1, 1)])
    worker_http["/v1/orgs/100/settings"] = lambda: next(steps)
    result = world.run("settings", "apply", written(tmp_path, GOOD))
    assert "version 1 is in force" in result.stderr
    worker_http["/v1/orgs/100/settings"] = answer(4, 4, 4)
    stale = world.run("settings", "apply", written(tmp_path, GOOD), "--json")
    assert (stale.exit_code, json.loads(stale.stdout)["outcome"]) == (0, "stale")


@pytest.mark.kafka
def test_apply_says_what_a_change_between_sms_and_missed_calls_gives_up(
    world: World, worker_http: dict[str, Any], tmp_path: Path
) -> None:
    place = "source: INSTORE, account_id: '01', org_unit_id: -1, priority: BULK"
    sms = f"{{{place}, mode: SMS, number: '1234', commands: {{OPTOUT: STOP}}}}"
    calls = f"{{{place}, mode: MISSED_CALL, numbers: {{OPTOUT: '+4930'}}}}"
    before = yaml.safe_load(sample.SETTINGS + f"mobile: [{sms}]")
    body = {"org_id": 100, "version": 1, "settings": json.loads(orjson.dumps(before, option=orjson.OPT_NON_STR_KEYS))}
    steps = iter([body, {**body, "version": 2}])
    worker_http["/v1/orgs/100/settings"] = lambda: (200, {**next(steps), "partitions": {"0": 2}})
    after = sample.SETTINGS.replace("version: 1", "version: 2") + f"mobile: [{calls}]"
    result = world.run("settings", "apply", written(tmp_path, after))
    assert result.exit_code == 0
    assert "mobile[0]: INSTORE 01 -1 BULK changes from SMS to MISSED_CALL, what 1234 meant there is given up" in (
        result.stderr
    )


def test_show_prints_the_document_that_is_in_force(worker_http: dict[str, Any]) -> None:
    assert invoke("settings", "show", "100").exit_code == 1
    worker_http["/v1/orgs/100/settings"] = answer(3, 2)
    result = invoke("settings", "show", "100")
    assert result.exit_code == 0
    assert "name: Example Retail" in result.stdout
    assert "1: 2" in result.stderr
    assert json.loads(invoke("settings", "show", "100", "--json").stdout)["version"] == 3


def test_state_shows_cells_and_quotes_the_customer(worker_http: dict[str, Any]) -> None:
    cell = {
        "source": "INSTORE", "account_id": "01", "channel": "EMAIL", "priority": "BULK", "org_unit_id": -1,
        "status": "OPTIN", "pending": None, "since": "2026-01-02T03:04:05.678Z", "event_id": "e-1",
    }  # fmt: skip
    body = {"org_id": 100, "customer_id": "a/b", "registered": True, "cells": [cell]}
    worker_http["/v1/customers/100/a%2Fb"] = (200, body)
    result = invoke("state", "100", "a/b")
    assert result.exit_code == 0
    assert "INSTORE" in result.stdout
    assert "2026-01-02T03:04:05.678Z" in result.stdout
    assert json.loads(invoke("state", "100", "a/b", "--json").stdout) == body
    unknown = invoke("state", "100", "nobody")
    assert (unknown.exit_code, unknown.stderr) == (1, "Error: unknown customer 100:nobody: not found\n")


def test_the_token_is_sent_and_never_printed(worker_http: dict[str, Any]) -> None:
    worker_http["/v1/customers/100/1"] = (401, {"detail": "no"})
    result = invoke("state", "100", "1", env={"CONSENT_HTTP_TOKEN": "secret-token"})
    assert result.exit_code == 1
    assert "CONSENT_HTTP_TOKEN" in result.stderr
    assert "secret-token" not in result.output
    ((_, headers),) = worker_http["asked"]
    assert headers["authorization" if "authorization" in headers else "Authorization"] == "Bearer secret-token"


@pytest.mark.parametrize(("status", "says"), [(503, "not ready"), (500, "answered 500")])
def test_a_worker_that_cannot_answer_is_one_line(worker_http: dict[str, Any], status: int, says: str) -> None:
    worker_http["/v1/customers/100/1"] = (status, {"detail": "why"})
    result = invoke("state", "100", "1")
    assert result.exit_code == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
