"""Stages `changes` and `decisions`: N events that wait in their topic, then a worker, then the check of its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from tests.bench.events import change_record, changes, request_records
from tests.bench.measure import Measured, watch
from tests.bench.plan import CUSTOMERS, BenchError
from tests.bench.reference import Expected
from tests.bench.systems import System


def run_changes(system: System, events: int, expect: Expected) -> Measured:
    """Measure `events` consent changes, from a topic to the audit."""
    kafka = system.kafka
    kafka.produce(system.changes, (change_record(change) for change in changes(events, CUSTOMERS)))
    base = kafka.ends(system.audit)
    with system.start("changes") as worker:
        measured = watch(kafka, worker, system.audit, sum(base) + system.markers(system.audit), events)
        kafka.wait_committed(system.group, system.changes)
    _check_audit(system, base, events, expect)
    return measured


def run_decisions(system: System, events: int, expect: Expected) -> Measured:
    """Measure `events` requests, from a topic to the decisions."""
    kafka = system.kafka
    kafka.produce(system.requests, request_records(events, CUSTOMERS))
    base = kafka.ends(system.decisions)
    with system.start("decisions") as worker:
        measured = watch(kafka, worker, system.decisions, sum(base) + system.markers(system.decisions), events)
        kafka.wait_committed(system.group, system.requests)
    _check_decisions(system, base, events, expect)
    return measured


def _outputs(system: System, topic: str, base: list[int]) -> Iterator[dict[str, Any]]:
    for message in system.kafka.read(topic, base, system.kafka.ends(topic)):
        yield orjson.loads(message.value())


def _check_audit(system: System, base: list[int], events: int, expect: Expected) -> None:
    """Every change has exactly one audit record, and as many took effect as must."""
    seen: set[str] = set()
    applied = count = 0
    for record in _outputs(system, system.audit, base):
        count += 1
        if system.full_rules:
            seen.add(record["input"]["event_id"])
            applied += record["outcome"] == "applied"
        else:
            seen.add(record["event_id"])
            applied += record["status"] == "APPLIED"
    if (count, len(seen), applied) != (events, events, expect.applied):
        raise BenchError(
            f"{system.name}: {count} audit records, {len(seen)} distinct, {applied} applied; "
            f"right are {events}, {events}, {expect.applied}"
        )


def _check_decisions(system: System, base: list[int], events: int, expect: Expected) -> None:
    """Every request has exactly one decision, and the right one."""
    answers: dict[int, bool] = {}
    count = 0
    for record in _outputs(system, system.decisions, base):
        count += 1
        answers[int(record["request_id"][1:])] = record["eligible"]
    wrong = sum(answers.get(number) is not right for number, right in enumerate(expect.eligible))
    if count != events or wrong:
        raise BenchError(f"{system.name}: {count} decisions for {events} requests, {wrong} of them wrong or missing")
