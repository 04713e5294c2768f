"""What the consumer hands to Faust of a changelog: recovery ends only when it was told of the log's end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP

from streams.engine import transport

CHANGELOG = TP("changelog", 0)


class Handing(transport.Consumer):
    """A consumer that fetches what it is given."""

    flow_active = True
    should_stop = False

    def __init__(self, store: int, before: dict[TP, int], after: dict[TP, int]) -> None:
        self._fetched = transport.Fetched()
        self._fetched.before, self._fetched.after = before, after
        self._cursor: dict[TP, int] = {}
        self.store = store
        self.restored: list[tuple[TP, list[Any], int]] = []
        self.sought: dict[TP, int] = {}
        self.checked: list[TP] = []
        self.revoked = False
        self.engine = SimpleNamespace(
            restore=self._restore, restored=lambda _tp: self.store, check_beginning=self._checked
        )
        #: What Faust knows of the changelog is what was in the store when its recovery began.
        recovery = SimpleNamespace(active_tps={CHANGELOG}, active_offsets={CHANGELOG: store - 1}, standby_offsets={})
        self.app = SimpleNamespace(
            consumer_generation_id=1,
            tables=SimpleNamespace(recovery=recovery),
            flow_control=SimpleNamespace(is_active=lambda: True),
        )
        self._thread = SimpleNamespace(changes="changes")
        self.log = SimpleNamespace(warning=lambda *_: None)

    def _restore(self, tp: TP, records: list[Any], after: int) -> None:
        self.restored.append((tp, records, after))
        self.store = after

    async def _checked(self, tp: TP) -> None:
        self.checked.append(tp)

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        if self.revoked:
            raise IllegalStateError("No current assignment for partition")
        self.sought |= partitions

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        return self._fetched, set(self._fetched.after)

    def _is_changelog_tp(self, tp: TP) -> bool:
        return tp == CHANGELOG

    def handed_out(self) -> list[tuple[TP, int]]:
        async def collect() -> list[tuple[TP, int]]:
            return [(tp, message.offset) async for tp, message in self.getmany(timeout=0)]

        return asyncio.run(collect())


def test_markers_alone_are_told() -> None:
    consumer = Handing(2, {CHANGELOG: 2}, {CHANGELOG: 4})
    assert consumer.handed_out() == [(CHANGELOG, 3)]
    assert consumer.restored == [(CHANGELOG, [], 4)]


def test_a_position_that_has_not_moved_is_not_told() -> None:
    assert Handing(4, {CHANGELOG: 4}, {CHANGELOG: 4}).handed_out() == []


@pytest.mark.parametrize("known", [None, -1, 2])
def test_what_was_restored_after_the_recovery_began_is_told_though_no_position_moves(known: int | None) -> None:
    """An opening of partitions that a rebalance overtook wrote it to the store."""
    consumer = Handing(4, {CHANGELOG: 4}, {CHANGELOG: 4})
    consumer.app.tables.recovery.active_offsets[CHANGELOG] = known
    assert consumer.handed_out() == [(CHANGELOG, 3)]
    assert consumer.restored == []


@pytest.mark.parametrize("before", [{CHANGELOG: 6}, {}])
def test_what_does_not_join_the_store_is_dropped_and_read_again_from_where_the_store_is(before: dict[TP, int]) -> None:
    """Something was dropped on the way, or the position was sought in the midst of the fetch."""
    consumer = Handing(2, before, {CHANGELOG: 8})
    assert consumer.handed_out() == []
    assert (consumer.restored, consumer.sought, consumer.checked) == ([], {CHANGELOG: 2}, [CHANGELOG])


def test_what_a_dropped_fetch_took_of_others_is_read_again_too() -> None:
    """Else these would be astray at the next fetch, which is dropped, and the first ones again after that."""
    good, astray, still = TP("source", 0), TP("source", 1), TP("source", 2)
    consumer = Handing(2, {CHANGELOG: 2, good: 5, astray: 9, still: 7}, {CHANGELOG: 4, good: 6, astray: 9, still: 7})
    consumer._cursor = {good: 5, astray: 8, still: 7}
    assert consumer.handed_out() == []
    assert consumer.sought == {CHANGELOG: 2, good: 5, astray: 8}


def test_a_partition_that_is_revoked_while_the_consumer_is_set_right_is_left_to_its_next_owner() -> None:
    consumer = Handing(2, {CHANGELOG: 6}, {CHANGELOG: 8})
    consumer.revoked = True
    assert consumer.handed_out() == []
    assert (consumer.restored, consumer.sought) == ([], {})
