"""Both agents on a store in memory against the slow model: whole scenarios, bad and misrouted records included."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from schemas.audit import ChangeAudit, DecisionAudit
from schemas.eligibility import DECISION
from schemas.notifications import NOTIFICATION
from streams import topics
from streams.agents.changes import Changes
from streams.agents.eligibility import Eligibility
from streams.agents.notices import Notices
from streams.agents.writing import Scribe
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition, View
from streams.engine.records import FORWARDED, Arrivals, keys_of
from streams.engine.requests import Progress
from streams.kafka.records import Record
from streams.links import Links
from tests.memory import Memory
from tests.model import messages
from tests.model.generate import BASE_MS, Step, scenario
from tests.model.slow import SlowModel
from tests.model.wire import partition_of
from tests.written import Message, by_place

Doc = dict[str, Any]

PARTITIONS = 2
MOST_BYTES = 20_000
CHECKPOINT = 7  # records; small, so that states go through their written form again and again
TYPES = {"change": TypeAdapter(ChangeAudit), "decision": TypeAdapter(DecisionAudit)}


class Worker:
    """One partition's agents beside the slow model."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.slow = SlowModel(number, PARTITIONS, MOST_BYTES)
        self.state = Partition(number, Memory())  # type: ignore[arg-type]
        notices = Notices(Links("s3cret"), "https://consent.example")
        self.changes = Changes(Scribe("consent.changes", number, ""), PARTITIONS, MOST_BYTES, notices)
        scribe = Scribe("eligibility.requests", number, "")
        self.requests = Eligibility(scribe, Arrivals(), PARTITIONS, MOST_BYTES, 5_000)
        self.log: list[Record] = []
        self.asked = 0
        self.codes: set[str] = set()
        self.told: Counter[tuple[str, str]] = Counter()

    def change(self, record: Record) -> None:
        self.log.append(record)
        if len(self.log) == CHECKPOINT:
            self.checkpoint()

    def checkpoint(self) -> None:
        view = View(self.state, keys_of(self.log))
        for record in self.log:
            outputs = Outputs()
            self.changes.apply(view, record, outputs)
            view.applied = record.offset + 1
            expected = self.slow.apply(record.offset, record.timestamp, record.key, record.value)
            assert expected is not None
            self.compare(record, outputs, expected)
        self.state.publish(view)
        self.state.begin_write()
        self.state.commit(0)
        self.changes.checkpoint()()
        self.log.clear()

    def compare(self, record: Record, outputs: Outputs, expected: Doc) -> None:
        # What the identity table is told has tests of its own.
        public = {place: found for place, found in by_place(outputs).items() if place[0] != topics.IDENTITIES.name}
        self.compare_message(record, public.pop(("consent.notifications", self.number), []))
        (((topic, partition), ((key, value, headers),)),) = public.items()
        assert key == record.key
        if expected["kind"] == "forward":
            assert (topic, partition, value) == ("consent.changes", expected["to"], record.value)
            return
        assert partition == self.number
        if expected["kind"] == "deadletter":
            assert (topic, value) == ("consent.deadletter", record.value)
            assert dict(headers)["consent.error"].decode() == expected["code"]
            self.codes.add(expected["code"])
            return
        assert topic == "consent.audit"
        assert value is not None
        assert b"\n" not in value
        audit = orjson.loads(value)
        TYPES["change"].validate_python(audit)
        assert audit["position"] == {"partition": self.number, "offset": record.offset}
        for name in ("outcome", "outcome_reason", "settings_version", "cells"):
            assert audit[name] == expected[name], (record.value, name)
        assert audit["input"]["event_id"] == expected["event_id"]
        assert audit["input"].keys().isdisjoint({"identifiers", "proof"})

    def compare_message(self, record: Record, written: list[Message]) -> None:
        told = self.slow.message
        assert len(written) == (told is not None)
        for key, value, _ in written:
            body, event = orjson.loads(value or b""), orjson.loads(record.value or b"")
            NOTIFICATION.validate_python(body)
            assert (key, body["position"]) == (record.key, {"partition": self.number, "offset": record.offset})
            assert told is not None
            assert messages.faults(self.slow.settings[event["org_id"]], event, told, body) == []
            self.told[body["kind"], body["language"]] += 1

    def request(self, key: bytes | None, value: bytes | None) -> None:
        self.checkpoint()
        record, outputs = Record(self.asked, BASE_MS, key, value, []), Outputs()
        self.asked += 1
        expected = self.slow.answer(key, value)
        asked = self.requests.read([record], outputs)
        out, answers = Outputs(), []
        if asked:
            behind = asked[0][2] > self.state.applied
            answers = self.requests.decide(self.state, asked, Progress(0, 1), out, outputs, behind=behind)
        if expected["kind"] == "forward":
            # Sent home as soon as that is known: when it is read, or when its state is looked up.
            assert (set(by_place(outputs)), by_place(out)) == ({("eligibility.requests", expected["to"])}, {})
            return
        written = {topic: [headers for _, _, headers in messages] for (topic, _), messages in by_place(outputs).items()}
        if expected["kind"] == "deadletter":
            assert asked == []
            assert dict(written["consent.deadletter"][0])["consent.error"].decode() == expected["code"]
            return
        ((_, explained, _),) = by_place(out)["consent.audit", self.number]
        ((_, body, _),) = by_place(out)["eligibility.decisions", self.number]
        assert answers == [(record.offset, body)]
        assert body is not None
        assert explained is not None
        decision, audit = orjson.loads(body), orjson.loads(explained)
        DECISION.validate_python(decision)
        TYPES["decision"].validate_python(audit)
        assert audit["decision"] == decision
        assert decision["as_of"] == {"partition": self.number, "offset": self.state.applied}
        assert bool(written) == (decision["reason"] == "invalid_request"), "unreadable: a dead letter beside the answer"
        wanted = ["eligible", "reason", "policy", "settings_version", "opt_in_type"]
        assert {name: decision[name] for name in wanted} == {name: expected[name] for name in wanted}
        assert [sorted(one.items()) for one in audit["inputs"]] == [sorted(one.items()) for one in expected["inputs"]]


def run(steps: list[Step]) -> list[Worker]:
    workers = [Worker(number) for number in range(PARTITIONS)]
    offsets = [0] * PARTITIONS
    for kind, key, value, partition in steps:
        number = partition_of(key or b"", PARTITIONS) if partition is None else partition
        if kind == "change":
            workers[number].change(Record(offsets[number], BASE_MS, key, value, []))
            offsets[number] += 1 + offsets[number] % 3  # gaps, as transactions leave them
        else:
            workers[number].request(key, value)
    for worker in workers:
        worker.checkpoint()
    return workers


@pytest.mark.parametrize("seed", range(8))
def test_every_record_of_a_scenario_has_the_output_that_the_slow_model_expects(seed: int) -> None:
    steps = scenario(seed, customers=6, events=600, partitions=PARTITIONS, too_large_bytes=MOST_BYTES)
    workers = run(steps)
    assert "too_large" in workers[0].codes | workers[1].codes
    assert len(workers[0].codes | workers[1].codes) >= 3
    assert sum(worker.state.applied for worker in workers) > 300
    told = workers[0].told + workers[1].told
    assert {kind for kind, _ in told} == {"confirm_opt_in", "confirm_opt_out", "verify"}, told


def _decision(value: Doc, key: bytes = b"100:c") -> tuple[Doc | None, set[str]]:
    eligibility = Eligibility(Scribe("eligibility.requests", 0, ""), Arrivals(), 1, MOST_BYTES, 5_000)
    partition = Partition(0, Memory())  # type: ignore[arg-type]
    record, outputs = Record(4, BASE_MS, key, orjson.dumps(value), []), Outputs()
    asked = eligibility.read([record], outputs)
    codes = {
        dict(headers)["consent.error"].decode() for messages in by_place(outputs).values() for _, _, headers in messages
    }
    if not asked:
        return None, codes
    out = Outputs()
    eligibility.decide(partition, asked, Progress(0, 5), out, Outputs(), behind=False)
    ((_, body, _),) = by_place(out)["eligibility.decisions", 0]
    found: Doc = DECISION.validate_json(body or b"")  # type: ignore[assignment]
    return found, codes


REQUEST: Doc = {"request_id": "r", "org_id": 100, "customer_id": "c", "channel": "EMAIL", "priority": "BULK"}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"channel": "FAX"}, {"channel"}),
        (
            {"channel": "FAX", "priority": 7, "customer_id": 5, "org_id": "x"},
            {"channel", "priority", "customer_id", "org_id"},
        ),
        ({"org_id": 2**63}, {"org_id"}),
        ({"org_unit_id": "north"}, set()),
        ({"campaign_id": {"a": 1}}, set()),
        ({"priority": None}, {"priority"}),
    ],
)
def test_an_unreadable_request_is_answered_with_what_could_be_read_of_it(change: Doc, lost: set[str]) -> None:
    decision, codes = _decision(REQUEST | change)
    assert codes == {"invalid_field"}
    assert decision is not None
    assert (decision["request_id"], decision["eligible"], decision["reason"]) == ("r", False, "invalid_request")
    assert {name for name in REQUEST if decision[name] is None} == lost
    assert decision["as_of"] == {"partition": 0, "offset": 0}


@pytest.mark.parametrize("request_id", [None, "", 5, "r" * 129, ["r"]])
def test_a_request_that_nobody_could_match_is_only_a_dead_letter(request_id: object) -> None:
    decision, codes = _decision(REQUEST | {"request_id": request_id})
    assert (decision, codes) == (None, {"invalid_field"})


def test_a_request_under_another_customers_key_is_no_and_a_dead_letter() -> None:
    decision, codes = _decision(REQUEST, key=b"100:other")
    assert decision is not None
    assert (decision["reason"], codes) == ("invalid_request", {"key_mismatch"})


def test_a_decision_has_an_id_made_of_the_request_and_its_place() -> None:
    one, _ = _decision(REQUEST)
    assert one is not None
    assert one["decision_id"] == "r/0/4"
    assert one == _decision(REQUEST)[0]
    assert (one["reason"], one["org_unit_id"]) == ("unknown_org", -1)


TIME = {"occurred_at": "2026-11-21T10:05:00.000Z"}
INSTORE = {"source": "INSTORE", "account_id": "01", "channels": ["EMAIL"]}
DOCUMENT: Doc = {"org_id": 100, "version": 1, "require_registration": False, "accounts": [INSTORE]}
SETTINGS = {"event": "settings.changed", "event_id": "s", "org_id": 100, "settings": DOCUMENT} | TIME
CHANGE: Doc = {
    "event": "consent.changed", "event_id": "e", "org_id": 100, "customer_id": "c", "source": "INSTORE",
    "account_id": "01", "channel": "EMAIL", "priority": "BULK", "type": "OPTOUT", "org_unit_id": -1,
} | TIME  # fmt: skip
REGISTERED: Doc = {"event": "customer.registered", "event_id": "r", "org_id": 100, "customer_id": "c"} | TIME


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("depth", [5, 90, 110, 190, 205, 252, 300, 900, 3_000])
@pytest.mark.parametrize(
    "value",
    [
        orjson.dumps(CHANGE),
        orjson.dumps(CHANGE | {"proof": {"a": 1}}),
        orjson.dumps(REGISTERED | {"identifiers": None}),
        orjson.dumps(REGISTERED)[:-1] + b"\n}",
        orjson.dumps(SETTINGS | {"settings": DOCUMENT | {"version": 2, "more": 0}}),
    ],
    ids=["change", "proof", "identifiers", "newline", "settings"],
)
def test_no_depth_of_nesting_stops_the_agent_or_breaks_the_state(value: bytes, depth: int) -> None:
    store = Memory()
    partition = Partition(0, store)  # type: ignore[arg-type]
    agent = Changes(Scribe("consent.changes", 0, ""), 1, MOST_BYTES)
    if b'"more":0' in value:
        deep, key = value.replace(b'"more":0', b'"more":' + _nested(depth)), b"100:"
    else:
        deep, key = value[:-1] + b',"x":' + _nested(depth) + b"}", b"100:c"
    records = [
        Record(0, BASE_MS, b"100:", orjson.dumps(SETTINGS), []),
        Record(1, BASE_MS, key, deep, []),
        Record(2, BASE_MS, b"100:c", orjson.dumps(CHANGE | {"event_id": "last"}), []),
    ]
    view, outputs = View(partition, keys_of(records)), Outputs()
    for record in records:
        agent.apply(view, record, outputs)
    view.applied = 3
    partition.publish(view)
    partition.begin_write()
    partition.commit(0)
    written = {topic: len(messages) for (topic, _), messages in by_place(outputs).items()}
    assert written in ({"consent.audit": 3}, {"consent.audit": 2, "consent.deadletter": 1})
    assert written == {"consent.audit": 3} if depth == 5 else depth < 1_000 or "consent.deadletter" in written
    # The next owner reads the same settings back.
    org = Partition(0, store).org(100)  # type: ignore[arg-type]
    assert org is not None
    assert org.version == (2 if key == b"100:" and written == {"consent.audit": 3} else 1)


@pytest.mark.parametrize(
    ("key", "event", "code", "field"),
    [
        (None, {}, "missing_key", "key"),
        (b"", {}, "missing_key", "key"),
        (b"100:other", {}, "key_mismatch", "key"),
        (b"100:c", {"event": "consent.revoked"}, "unknown_event", "event"),
        (b"100:c", {"event": None}, "invalid_field", "event"),
        (b"100:c", {"event": 5}, "invalid_field", "event"),
        (b"100:c", {"event": ["x"]}, "invalid_field", "event"),
        (b"100:c", {"type": "MAYBE"}, "invalid_field", "type"),
        (b"7:c", {"org_id": 7}, "unknown_org", "org_id"),
        (b"100:c", {"account_id": "99"}, "unknown_account", "account_id"),
        (b"100:c", {"channel": "WECHAT"}, "channel_not_mapped", "channel"),
        (b"100:c", {"org_unit_id": 9}, "unknown_org_unit", "org_unit_id"),
        (b"100:c", {"occurred_at": "2026-11-21T10:05:00.001Z"}, "occurred_in_future", "occurred_at"),
    ],
)
def test_a_dead_letter_has_its_code_and_names_the_field(key: bytes | None, event: Doc, code: str, field: str) -> None:
    agent = Changes(Scribe("consent.changes", 0, ""), 1, MOST_BYTES)
    partition = Partition(0, Memory())  # type: ignore[arg-type]
    records = [
        Record(0, BASE_MS, b"100:", orjson.dumps(SETTINGS), []),
        Record(1, BASE_MS, b"100:c", orjson.dumps(CHANGE), []),
        Record(2, BASE_MS, key, orjson.dumps(CHANGE | {"event_id": "f"} | event), []),
    ]
    view, outputs = View(partition, keys_of(records)), Outputs()
    for record in records:
        agent.apply(view, record, outputs)
    assert len(by_place(outputs)["consent.audit", 0]) == 2
    ((_, value, headers),) = by_place(outputs)["consent.deadletter", 0]
    assert value == records[2].value
    found = dict(headers)
    assert found["consent.error"].decode() == code
    assert field in found["__connect.errors.exception.message"].decode()


def test_a_misrouted_record_is_sent_home_once_and_buried_the_second_time() -> None:
    home = partition_of(b"100:c", PARTITIONS)
    agent = Changes(Scribe("consent.changes", 1 - home, ""), PARTITIONS, MOST_BYTES)
    view, outputs = View(Partition(1 - home, Memory()), [b"100:c"]), Outputs()  # type: ignore[arg-type]
    agent.apply(view, Record(0, BASE_MS, b"100:c", b"{}", []), outputs)
    ((_, _, headers),) = by_place(outputs)["consent.changes", home]
    again = Outputs()
    agent.apply(view, Record(1, BASE_MS, b"100:c", b"{}", headers), again)
    assert list(by_place(again)) == [("consent.deadletter", 1 - home)]
    ((_, _, headers),) = by_place(again)["consent.deadletter", 1 - home]
    assert dict(headers)["consent.error"] == b"key_mismatch"


def test_a_foreign_request_is_sent_home_once_and_never_answered_in_place() -> None:
    home = partition_of(b"100:c", PARTITIONS)
    partition = Partition(1 - home, Memory())  # type: ignore[arg-type]
    agent = Changes(Scribe("consent.changes", 1 - home, ""), PARTITIONS, MOST_BYTES)
    view, outputs = View(partition, [b"100:"]), Outputs()
    agent.apply(view, Record(0, BASE_MS, b"100:", orjson.dumps(SETTINGS), []), outputs)
    view.applied = 1
    partition.publish(view)
    partition.begin_write()
    partition.commit(0)
    eligibility = Eligibility(Scribe("eligibility.requests", 1 - home, ""), Arrivals(), PARTITIONS, MOST_BYTES, 5_000)
    value = orjson.dumps(REQUEST | {"source": "INSTORE", "account_id": "01"})
    headers: Any = []
    for expected in ({("eligibility.requests", home)}, {("consent.deadletter", 1 - home)}):
        record, outputs = Record(4, BASE_MS, b"100:c", value, headers), Outputs()
        asked = eligibility.read([record], outputs)
        out = Outputs()
        eligibility.decide(partition, asked, Progress(0, 5), out, outputs, behind=False)
        written = by_place(outputs)
        decisions = by_place(out).get(("eligibility.decisions", 1 - home), [])
        assert not any(orjson.loads(body or b"")["eligible"] for _, body, _ in decisions)
        assert expected <= set(written)
        headers = next(iter(written.values()))[0][2]


def test_a_request_that_comes_home_twice_is_answered_once() -> None:
    arrived = Arrivals(most=3)
    eligibility = Eligibility(Scribe("eligibility.requests", 0, ""), arrived, 1, MOST_BYTES, 5_000)

    def asked(offset: int, value: Doc, place: bytes | None) -> int:
        headers: Any = [("theirs", b"x")] + [(FORWARDED, place)] * (place is not None)
        record = Record(offset, BASE_MS, b"100:c", orjson.dumps(value), headers)
        return len(eligibility.read([record], Outputs()))

    assert asked(4, REQUEST, b"eligibility.requests/1/7") == 1
    assert asked(5, REQUEST, b"eligibility.requests/1/7") == 0
    # A restart reads the first one again.
    assert asked(4, REQUEST, b"eligibility.requests/1/7") == 1
    # Others are others: from another place, or another one under a header that somebody made up.
    assert asked(6, REQUEST, b"eligibility.requests/1/8") == 1
    assert asked(7, REQUEST | {"request_id": "other"}, b"eligibility.requests/1/7") == 1
    assert asked(8, REQUEST, None) == asked(9, REQUEST, None) == 1
    # Only so many are remembered.
    assert asked(10, REQUEST, b"eligibility.requests/1/9") == 1
    assert asked(11, REQUEST, b"eligibility.requests/1/7") == 1
