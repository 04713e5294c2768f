"""Where records go when the number of partitions changes: nobody's records change their order, nor their settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cli.repartition.placing import FORWARDED_ONCE, MOST_BYTES, Placing
from streams.cli.root import Failure
from streams.engine.records import FORWARDED
from streams.kafka.records import Record
from tests.integration.orgs import dump
from tests.model.wire import partition_of

MAX_BYTES = 262_144


def settings_of(org: int, version: int, name: str = "") -> Record:
    document = {"org_id": org, "version": version, "name": name}
    at = "2026-11-21T10:00:00.000Z"
    event = {"event": "settings.changed", "event_id": "s", "org_id": org, "occurred_at": at, "settings": document}
    return Record(0, 0, f"{org}:".encode(), dump(event), ())


def change_of(org: int, customer: int, number: int) -> Record:
    return Record(0, 0, f"{org}:{customer}".encode(), b"%d" % number, ())


def version_of(record: Record) -> bytes | None:
    return record.value if (record.key or b"").endswith(b":") else None


def histories(log: list[Record]) -> dict[bytes, list[bytes | None]]:
    """By customer: its own values, and those of its org's settings, in the order of one partition."""
    keys = {record.key for record in log if version_of(record) is None}
    return {
        key: [r.value for r in log if key in (r.key,) or r.key == key.partition(b":")[0] + b":"]
        for key in keys
        if key is not None
    }


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[list[Record]], list[tuple[int, int]]]:
    """Partitions with settings of two orgs in all of them, each org's in one order; and a way to read them."""
    count = draw(st.integers(1, 4))
    partitions: list[list[Record]] = [[] for _ in range(count)]
    versions = {1: 0, 2: 0}
    for number in range(draw(st.integers(1, 40))):
        org = draw(st.sampled_from([1, 2]))
        if draw(st.integers(0, 4)) == 0:
            versions[org] += 1
            record = settings_of(org, versions[org])
            for partition in partitions:
                # Two orgs' settings may stand in another order elsewhere.
                last = partition[-1:]
                if last and version_of(last[0]) is not None and last[0].key != record.key and draw(st.booleans()):
                    partition.insert(-1, record)
                else:
                    partition.append(record)
        else:
            record = change_of(org, draw(st.integers(0, 6)), number)
            partitions[partition_of(record.key or b"", count)].append(record)
    places = [(p, offset) for p, log in enumerate(partitions) for offset in range(len(log))]
    turns = iter(draw(st.permutations([p for p, _ in places])))
    read = dict.fromkeys(range(count), 0)
    order = []
    for p in turns:
        order.append((p, read[p]))
        read[p] += 1
    return partitions, order


@given(logs(), st.integers(1, 6))
def test_every_customer_finds_its_records_and_its_settings_in_the_order_they_had(
    given_logs: tuple[list[list[Record]], list[tuple[int, int]]], after: int
) -> None:
    partitions, order = given_logs
    placing = Placing(len(partitions), after, MAX_BYTES)
    new: list[list[Record]] = [[] for _ in range(after)]
    for partition, offset in order:
        for number, record in placing.put(partition, partitions[partition][offset]):
            new[number].append(record)
    assert not placing.held
    before = {key: story for log in partitions for key, story in histories(log).items()}
    found: dict[bytes, list[bytes | None]] = {}
    for number, log in enumerate(new):
        for key, story in histories(log).items():
            assert partition_of(key, after) == number
            found[key] = story
    assert found == before


def test_settings_wait_for_all_partitions_and_hold_their_org_only() -> None:
    placing = Placing(2, 3, MAX_BYTES)
    one, other = (next(c for c in range(99) if partition_of(f"{org}:{c}".encode(), 2) == 0) for org in (1, 2))
    behind, free = change_of(1, one, 0), change_of(2, other, 1)
    assert list(placing.put(0, settings_of(1, 1))) == []
    assert list(placing.put(0, behind)) == []
    assert [record for _, record in placing.put(0, free)] == [free]
    assert placing.held == "org 1: new settings stand in partitions [0] only"
    written = list(placing.put(1, settings_of(1, 1)))
    assert [number for number, _ in written] == [0, 1, 2, partition_of(behind.key or b"", 3)]
    assert written[-1][1] == behind
    assert not placing.held


def test_settings_that_change_nothing_hold_nothing_and_are_kept() -> None:
    placing = Placing(3, 2, MAX_BYTES)
    for partition in range(3):
        list(placing.put(partition, settings_of(1, 2)))
    unreadable, empty = Record(0, 0, b"1:", b"{", ()), Record(0, 0, b"1:", None, ())
    for partition, odd in ((2, settings_of(1, 1)), (1, unreadable), (0, empty)):
        assert list(placing.put(partition, odd)) == [(partition % 2, odd)]
    assert not placing.held


def test_an_earlier_run_is_remembered_by_what_it_wrote() -> None:
    placing = Placing(2, 2, MAX_BYTES)
    placing.know(settings_of(1, 4))
    assert [number for number, _ in placing.put(0, settings_of(1, 4))] == [0], "it is not new any more"
    assert list(placing.put(0, settings_of(1, 5))) == []


def test_settings_that_differ_between_partitions_are_not_copied() -> None:
    placing = Placing(2, 2, MAX_BYTES)
    list(placing.put(0, settings_of(1, 1, "here")))
    with pytest.raises(Failure, match="not the same in all partitions"):
        list(placing.put(1, settings_of(1, 1, "there")))


def test_what_was_sent_home_is_found_at_home_and_its_mark_means_nothing_in_the_new_topic() -> None:
    placing = Placing(3, 5, MAX_BYTES)
    key = b"1:c"
    home = partition_of(key, 3)
    mark = (FORWARDED, b"consent.changes/1/7")
    stray, sent = Record(7, 5, key, b"v", ()), Record(9, 6, key, b"v", (("mine", b"h"), mark))
    assert list(placing.put((home + 1) % 3, stray)) == []
    assert placing.left_out == {"misrouted": 1}
    ((number, copied),) = placing.put(home, sent)
    assert number == partition_of(key, 5)
    assert copied == sent._replace(headers=(("mine", b"h"), (FORWARDED_ONCE, b"consent.changes/1/7")))
    assert len(FORWARDED_ONCE) == len(FORWARDED), "a record must stay as long as it is"


def test_what_has_no_key_goes_anywhere_and_what_nobody_accepts_stays_behind() -> None:
    placing = Placing(3, 2, MAX_BYTES)
    ((number, record),) = placing.put(2, Record(0, 0, None, b"{}", ()))
    assert (number, record.value) == (0, b"{}")
    huge = Record(0, 0, b"1:c", b"x" * MOST_BYTES, ())
    assert list(placing.put(partition_of(b"1:c", 3), huge)) == []
    assert list(placing.put(0, Record(0, 0, None, None, ()))) == []
    assert placing.left_out == {"unsendable": 2}
