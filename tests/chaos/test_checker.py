"""The checker finds what it is there to find: a real, sound history with one violation planted in it."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from streams import topics
from streams.domain.identities import decode_holders
from streams.engine.records import FORWARDED
from tests.chaos.checker import Report, check, check_part, conclude
from tests.chaos.conftest import MakeRound
from tests.chaos.driver import Round
from tests.chaos.history import Exit, History
from tests.chaos.parts import check_shares
from tests.integration.compare import INVENTED, LOST, REPEATED, STALE, WRONG, plain
from tests.integration.harness import AUDIT, CHANGES, DEADLETTER, DECISIONS, REQUESTS, Record
from tests.integration.orgs import dump

pytestmark = pytest.mark.kafka

CUSTOMERS, IDENTITIES = topics.CHANGELOG.name, topics.IDENTITIES_CHANGELOG.name
Plant = Callable[[History], None]
Check = Callable[[History], Report]


@pytest.fixture(scope="module")
def unhurt(make_round: MakeRound) -> Iterator[tuple[Round, History]]:
    """Two workers that nobody hurts, and what they left."""
    with make_round(7) as round_:
        round_.start(2)
        round_.load(pause_s=0.0)
        yield round_, round_.history()


@pytest.fixture(scope="module")
def sound(unhurt: tuple[Round, History]) -> History:
    return unhurt[1]


def check_in_parts(history: History) -> Report:
    """A partition at a time, as what is large is checked."""
    return conclude(history, [check_part(history.of(number)) for number in history.numbers])


#: Both must find everything.
either_way = pytest.mark.parametrize("check", [check, check_in_parts])


def planted(sound: History, plant: Plant, check: Check) -> set[tuple[str, str]]:
    """Invariant and kind of what the checker finds after something was planted."""
    history = copy.deepcopy(sound)
    plant(history)
    return {(one.invariant, one.kind) for one in check(history).violations}


@either_way
def test_a_round_that_nobody_hurt_has_no_violations_and_something_to_look_at(sound: History, check: Check) -> None:
    report = check(sound)
    assert not report.violations, str(report)
    assert all(report.counts[what] for what in ("changes", "decisions", "audits", "dead letters", "stores", "exits"))
    assert "0 violations" in str(report)


def some(history: History, topic: str, wanted: Callable[[Record], bool] = lambda _: True) -> int:
    """Where in the topic the first wanted record is."""
    return next(at for at, record in enumerate(history.read(topic)) if wanted(record))


def drop(topic: str, wanted: Callable[[Record], bool] = lambda _: True) -> Plant:
    return lambda history: history.read(topic).pop(some(history, topic, wanted)) and None


def repeat(topic: str, wanted: Callable[[Record], bool] = lambda _: True) -> Plant:
    def plant(history: History) -> None:
        record = history.read(topic)[some(history, topic, wanted)]
        history.read(topic).append(record._replace(offset=10**6))

    return plant


def strange(topic: str, wanted: Callable[[Record], bool] = lambda _: True) -> Plant:
    """A record that seems to come of an input which is not there."""

    def plant(history: History) -> None:
        record = history.read(topic)[some(history, topic, wanted)]
        headers = [(name, _moved(name, value)) for name, value in record.headers]
        body = json.loads(record.value or b"")
        if "position" in body:
            body["position"]["offset"] = 10**6
        if "decision_id" in body:
            body["decision_id"] = "another"
        history.read(topic).append(record._replace(offset=10**6, value=dump(body), headers=tuple(headers)))

    return plant


def forwarded_in_vain(history: History) -> None:
    """A request that is at home seems to have been sent there by another partition, to which it never went."""
    log = history.read(REQUESTS)
    record = log[some(history, REQUESTS, lambda r: r.header(FORWARDED) is None)]
    place = f"{REQUESTS}/{(record.partition + 1) % len(history.numbers)}/1000000".encode()
    log.append(record._replace(offset=10**6, headers=((FORWARDED, place),)))


def _moved(name: str, value: bytes) -> bytes:
    return value.rpartition(b"/")[0] + b"/1000000" if name == "ce_id" else value


def altered(topic: str, change: Callable[[Any], None], wanted: Callable[[Record], bool] = lambda _: True) -> Plant:
    """A record whose body says something else."""

    def plant(history: History) -> None:
        at = some(history, topic, wanted)
        record = history.read(topic)[at]
        body = record.body
        change(body)
        history.read(topic)[at] = record._replace(value=dump(body))

    return plant


def is_about(kind: str) -> Callable[[Record], bool]:
    return lambda record: record.body["record"] == kind


def says_no(record: Record) -> bool:
    return record.body["eligible"] is False


def say_yes(body: Any) -> None:
    body |= {"eligible": True, "reason": "opted_in"}


def is_customer(record: Record) -> bool:
    return bool(record.key and record.key[0] and record.value and not record.key.endswith(b":"))


def holders(value: bytes) -> list[str]:
    found = decode_holders(value)
    assert found is not None
    return found.customers()


def lacks_last_word(topic: str, said: Callable[[bytes], Any]) -> Plant:
    """The last record of some key is not there, in the changelog and in every RocksDB; it says what none did before."""

    def is_news(*last: Record) -> bool:
        words = [said(record.value) if record.value else None for record in last]
        return is_customer(last[-1]) and words[-1] not in words[:-1]

    def plant(history: History) -> None:
        words: dict[bytes, list[Record]] = defaultdict(list)
        for record in history.read(topic):
            words[record.key or b""].append(record)
        history.read(topic).remove(next(said_all[-1] for said_all in words.values() if is_news(*said_all[-2:])))
        history.stores = []

    return plant


def decided_too_early(history: History) -> None:
    """Every decision seems to have been asked for after a change that it did not weigh."""
    history.ends = dict.fromkeys(history.ends, 10**6)


def store_lacks_a_key(history: History) -> None:
    stored = next(one for one in history.stores if len(one.items) > 2)
    stored.items.pop(next(key for key in stored.items if key[0]))  # type: ignore[attr-defined]


def no_store_is_up_to_date(history: History) -> None:
    history.stores = [one for one in history.stores if (one.table, one.partition) != ("customers", 0)]


def ended_with(code: int, last_line: str) -> Plant:
    def plant(history: History) -> None:
        history.exits = [*history.exits, Exit("worker 9", code, frozenset({0, 1}), last_line)]

    return plant


def set_to(**fields: Any) -> Plant:
    return lambda history: history.__dict__.update(fields)


PLANTS: dict[str, tuple[Plant, tuple[str, str]]] = {
    "an acknowledged change is not in the log": (drop(CHANGES), ("I0", LOST)),
    "an acknowledged request is not in the log": (drop(REQUESTS), ("I0", LOST)),
    "a state's last word is missing": (lacks_last_word(CUSTOMERS, plain), ("I1", WRONG)),
    "a RocksDB lacks a key": (store_lacks_a_key, ("I1", WRONG)),
    "nobody's RocksDB has all of a changelog": (no_store_is_up_to_date, ("I1", LOST)),
    "an identifier's customers are lost": (lacks_last_word(IDENTITIES, holders), ("I1", WRONG)),
    "a request without a decision": (drop(DECISIONS), ("I2", LOST)),
    "a request with two decisions": (repeat(DECISIONS), ("I2", REPEATED)),
    "a decision on a request that is not there": (strange(DECISIONS), ("I2", INVENTED)),
    "a misrouted record that did not come home": (
        drop(CHANGES, lambda r: r.header(FORWARDED) is not None), ("I2", LOST)),
    "a misrouted record that nobody sent": (forwarded_in_vain, ("I2", INVENTED)),
    "a yes where the model says no": (altered(DECISIONS, say_yes, says_no), ("I3", WRONG)),
    "a decision from before what was acknowledged": (decided_too_early, ("I3", STALE)),
    "a change without an audit": (drop(AUDIT, is_about("change")), ("I4", LOST)),
    "a change with two audits": (repeat(AUDIT, is_about("change")), ("I4", REPEATED)),
    "an audit of a change that is not there": (strange(AUDIT, is_about("change")), ("I4", INVENTED)),
    "a decision without an audit": (drop(AUDIT, is_about("decision")), ("I4", LOST)),
    "an audit that says something else": (
        altered(AUDIT, lambda body: body.update(outcome="erased"), is_about("change")), ("I4", WRONG)),
    "a message that was not sent": (drop(topics.NOTIFICATIONS.name), ("I4", LOST)),
    "a message that was sent twice": (repeat(topics.NOTIFICATIONS.name), ("I4", REPEATED)),
    "a bad record without a dead letter": (drop(DEADLETTER), ("I5", LOST)),
    "a bad record with two dead letters": (repeat(DEADLETTER), ("I5", REPEATED)),
    "a lag that stays": (set_to(unsettled={("consent.changes", 0): (1, 2)}), ("I6", LOST)),
    "a lag that is gone too late": (set_to(settled_s=11.0, allowed_s=10.0), ("I6", STALE)),
    "an end with an undocumented code": (ended_with(2, "Error: no"), ("I7", WRONG)),
    "an end without a last clear line": (ended_with(1, "KeyError: 7"), ("I7", WRONG)),
}  # fmt: skip


@either_way
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_violation_is_found(sound: History, name: str, check: Check) -> None:
    plant, wanted = PLANTS[name]
    assert wanted in planted(sound, plant, check)


@either_way
def test_a_request_that_was_forwarded_twice_is_counted_apart_and_answered_once(sound: History, check: Check) -> None:
    history = copy.deepcopy(sound)
    log = history.read(REQUESTS)
    copied = log[some(history, REQUESTS, lambda r: r.header(FORWARDED) is not None)]
    log.append(copied._replace(offset=10**6))
    report = check(replace(history, sent=()))
    assert report.forwarded_twice == 1
    assert not report.violations, str(report)
    place = f"/{copied.partition}/{copied.offset}"
    decision = history.read(DECISIONS)[some(history, DECISIONS, lambda r: (r.header("ce_id") or "").endswith(place))]
    headers = tuple((name, _moved(name, value)) for name, value in decision.headers)
    history.read(DECISIONS).append(decision._replace(offset=10**6, headers=headers))
    report = check(replace(history, sent=()))
    assert {(one.invariant, one.kind) for one in report.violations} == {("I2", INVENTED), ("I2", REPEATED)}


def test_the_report_names_the_invariant_the_kind_and_the_place(sound: History) -> None:
    history = copy.deepcopy(sound)
    drop(DECISIONS)(history)
    text = str(check(history))
    assert "1 violations" in text
    assert "I2 lost: decisions: request Place(" in text


def test_what_processes_read_and_check_by_themselves_comes_to_the_same(unhurt: tuple[Round, History]) -> None:
    round_, sound = unhurt
    report = conclude(sound, check_shares(round_.shares()))
    assert not report.violations, str(report)
    assert report.counts == check(sound).counts
    # Last of all tests, for the topics stay changed: one decision is there twice, another was never asked for.
    first, second, *_ = sound.read(DECISIONS)
    headers = [(name, _moved(name, value)) for name, value in second.headers]
    round_.world.send(DECISIONS, first.key, first.value, first.partition, first.headers)
    round_.world.send(DECISIONS, second.key, second.value, second.partition, headers)
    report = conclude(sound, check_shares(round_.shares()))
    assert {(one.invariant, one.kind) for one in report.violations} == {("I2", REPEATED), ("I2", INVENTED)}
