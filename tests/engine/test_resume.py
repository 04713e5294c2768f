"""What a restart reads back of its predecessor's outputs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from streams.config import Config
from streams.engine import resume
from streams.engine.records import FORWARDED
from streams.kafka.records import Record

CONFIG = Config(topic_prefix="p-", batch_records=10)
WRITTEN_AT = 1_795_000_000_000.0
Header = tuple[str, bytes | None]


class Reader:
    """Ends of topics in memory; gives ever longer tails until enough of one was seen, as the real one does."""

    def __init__(self, **topics: list[Any]) -> None:
        self._topics = {f"p-{name.replace('_', '.')}": records for name, records in topics.items()}

    async def end(self, topic: str, partition: int) -> int:
        return 100

    async def is_within_tail(self, topic: str, partition: int) -> bool:
        return True

    async def written_at(self, topic: str, partition: int, offset: int) -> float | None:
        return None if offset >= 100 else WRITTEN_AT

    async def tail(
        self, topic: str, partition: int, enough: Any, keep: Any = lambda _: True, *, since: float = 0.0, most: int = 0
    ) -> list[Any]:
        assert most or since in (0.0, WRITTEN_AT - resume.SKEW_MS)
        records = [record for record in self._topics.get(topic, []) if keep(record)]
        for count in range(1, len(records) + 1):
            if enough(records[-count:]):
                return records[-count:]
        return records


def audit(source: str, offset: int, *more: Header, value: Any = None, partition: int = 3) -> Any:
    headers = [("ce_specversion", b"1.0"), ("ce_id", f"{source}/{partition}/{offset}".encode()), *more]
    return SimpleNamespace(headers=headers, value=orjson.dumps(value), timestamp=WRITTEN_AT)


def dead(topic: str, offset: int, *original: Header, partition: int = 3) -> Any:
    own = [
        ("__connect.errors.topic", topic.encode()),
        ("__connect.errors.partition", b"%d" % partition),
        ("__connect.errors.offset", b"%d" % offset),
        ("consent.error", b"malformed_json"),
    ]
    return SimpleNamespace(headers=[*original, *own], value=b"{")


def mark(floor: int, high: int) -> Header:
    return ("consent.progress", b"%d/%d" % (floor, high))


def of_changes(applied: int, **topics: list[Any]) -> dict[str, set[int]]:
    return asyncio.run(resume.outputs_of_changes(Reader(**topics), CONFIG, 3, applied))  # type: ignore[arg-type]


def of_requests(committed: int, **topics: list[Any]) -> Any:
    reader: Any = Reader(**topics)
    return asyncio.run(resume.progress_of_requests(reader, CONFIG, 3, committed))


def test_nothing_written_is_nothing_found() -> None:
    assert of_changes(0) == {}
    progress, written = of_requests(7)
    assert (progress.floor, progress.high, progress.answered, progress.promised) == (7, 7, frozenset(), {})
    assert written == {}


def test_where_everything_is_done_nobody_looks_for_outputs() -> None:
    # The logs end at 100; the tails would say otherwise.
    assert of_changes(100, consent_audit=[audit("consent.changes", 100)]) == {}
    progress, written = of_requests(100, eligibility_decisions=[decided(100, 100, 101)])
    assert (progress.floor, progress.answered, written) == (100, frozenset(), {})


def test_outputs_at_or_above_the_state_are_those_of_the_unfinished_checkpoint() -> None:
    audits = [audit("consent.changes", offset) for offset in (7, 8, 9, 10, 12)]
    letters = [dead("p-consent.changes", offset) for offset in (5, 11)]
    notices = [audit("consent.changes", offset) for offset in (8, 12)]
    found = of_changes(10, consent_audit=audits, consent_deadletter=letters, consent_notifications=notices)
    assert found == {"consent.audit": {10, 12}, "consent.deadletter": {11}, "consent.notifications": {12}}


def test_no_number_of_answers_beside_a_checkpoint_hides_its_outputs() -> None:
    answers = [audit("eligibility.requests", offset) for offset in range(500)]
    assert of_changes(10, consent_audit=[audit("consent.changes", 10), *answers]) == {"consent.audit": {10}}


def test_outputs_of_other_partitions_and_other_topics_are_not_ours() -> None:
    audits = [
        audit("consent.changes", 20, partition=33),
        audit("eligibility.requests", 21),
        SimpleNamespace(headers=[], value=b"{}"),
    ]
    letters = [
        dead("p-eligibility.requests", 22),
        dead("consent.changes", 23),
        dead("p-consent.changes", 24, partition=1),
    ]
    assert of_changes(0, consent_audit=audits, consent_deadletter=letters) == {}


@pytest.mark.parametrize(
    "original",
    [
        [("ce_id", b"consent.changes/3/99")],
        [("ce_id", b"consent.changes/3/abc")],
        [("ce_id", None)],
        [("__connect.errors.topic", b"p-consent.changes"), ("__connect.errors.offset", b"not a number")],
        [("__connect.errors.partition", b"8"), ("__connect.errors.offset", b"99")],
        [("__connect.errors.offset", None)],
    ],
)
def test_only_our_own_headers_of_a_dead_letter_count_whatever_the_original_brought(original: list[Header]) -> None:
    found = of_changes(0, consent_deadletter=[dead("p-consent.changes", 5, *original)])
    assert found == {"consent.deadletter": {5}}


def decided(offset: int, floor: int, high: int) -> Any:
    return audit("eligibility.requests", offset, mark(floor, high))


def test_what_was_answered_above_the_floor_is_not_answered_again() -> None:
    # 10 waits while 11 and 13 are answered; the last look had come to 14.
    decisions = [decided(8, 8, 10), decided(9, 8, 10), decided(11, 10, 14), decided(13, 10, 14)]
    progress, _ = of_requests(8, eligibility_decisions=decisions)
    assert (progress.floor, progress.high) == (10, 10)
    assert progress.answered == {11, 13}


def test_what_an_owner_answered_ahead_is_known_to_the_owner_after_the_next() -> None:
    first = [decided(8, 8, 10), decided(9, 8, 10), decided(13, 10, 14)]
    progress, _ = of_requests(8, eligibility_decisions=first)
    second = []
    for offset in (10, 11):
        progress.floor, progress.high = offset, offset + 1
        second.append(decided(offset, *map(int, progress.header().split(b"/"))))
    # The third asks for what was answered from 12 on: the second's outputs do not tell, they have to be passed by.
    progress, _ = of_requests(12, eligibility_decisions=first + second)
    assert progress.answered == {13}


def test_a_commit_ahead_of_every_mark_is_the_floor() -> None:
    progress, _ = of_requests(20, eligibility_decisions=[decided(8, 8, 10)])
    assert (progress.floor, progress.answered) == (20, frozenset())


def test_a_decision_that_was_only_audited_is_promised_as_it_was_audited() -> None:
    def audited(offset: int, eligible: bool) -> Any:
        body = {"record": "decision", "decision": {"request_id": f"r{offset}", "eligible": eligible}, "inputs": []}
        return audit("eligibility.requests", offset, mark(10, 12), value=body)

    progress, _ = of_requests(
        10,
        eligibility_decisions=[decided(10, 10, 12)],
        consent_audit=[audited(9, False), audited(10, True), audit("consent.changes", 11), audited(11, True)],
    )
    assert progress.answered == {10}
    assert {offset: orjson.loads(body) for offset, body in progress.promised.items()} == {
        11: {"request_id": "r11", "eligible": True}
    }


def test_dead_letters_of_requests_are_found_from_the_floor_on() -> None:
    letters = [dead("p-eligibility.requests", offset) for offset in (3, 9, 12)] + [dead("p-consent.changes", 40)]
    _, written = of_requests(9, consent_deadletter=letters)
    assert written == {"consent.deadletter": {9, 12}}


def test_dead_letters_of_requests_far_ahead_are_found_behind_those_of_earlier_requests() -> None:
    letters = [dead("p-eligibility.requests", offset) for offset in (12, 3, 9)]
    _, written = of_requests(9, consent_deadletter=letters)
    assert written == {"consent.deadletter": {9, 12}}


def test_what_was_sent_home_is_known_where_it_was_found_and_where_it_came_to() -> None:
    def copy(offset: int, value: bytes, *headers: Header) -> Any:
        return Record(offset, 0, b"k", value, headers)

    mark = (FORWARDED, b"eligibility.requests/2/17")
    requests = [copy(4, b"{}"), copy(5, b"{}", mark), copy(6, b"{}", (FORWARDED, b"nonsense"))]
    reader: Any = Reader(eligibility_requests=requests)
    found = asyncio.run(resume.forwarded_records(reader, CONFIG, "eligibility.requests"))
    assert found.offsets == {2: {17}}
    arrived = found.arrived[0]
    assert not arrived.is_repeated(copy(5, b"{}", mark))
    assert arrived.is_repeated(copy(9, b"{}", mark))
    assert not arrived.is_repeated(copy(9, b"{ }", mark))


def test_a_dead_letter_that_was_written_ahead_is_known_to_the_owner_after_the_next() -> None:
    letter = dead("p-eligibility.requests", 50)
    first = [decided(8, 8, 10)]
    progress, written = of_requests(9, eligibility_decisions=first, consent_deadletter=[letter])
    assert written == {"consent.deadletter": {50}}
    progress.high = 21
    # What the second writes before it has come to 50 itself does not say that nobody has.
    assert progress.header() == b"9/51"
