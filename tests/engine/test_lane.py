"""Lanes: one batch after another, in order, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.lane import FULL, Lane
from streams.engine.records import Batch
from streams.kafka.records import Record
from tests.engine.waiting import until


def batch(number: int, records: int = 0, partition: int = 0) -> Batch:
    return Batch(partition, [Record(0, 0, None, None, ())] * records, number - 1, number, 0.0)


class Recorder(Lane):
    """Takes what there is; `before` is awaited before each batch is done."""

    def __init__(self, before: Callable[[Batch], Awaitable[None]] | None = None, lease: Any = lambda: True) -> None:
        self.done: list[int] = []
        self.errors: list[BaseException] = []
        self.pressures: list[tuple[int, bool]] = []
        self._before = before
        super().__init__("lane", on_error=self.errors.append, pressure=self.note, lease=lease)

    def note(self, partition: int, full: bool) -> None:
        self.pressures.append((partition, full))

    async def work(self) -> None:
        while not self.closing and (found := self.take()) is not None:
            if self._before is not None:
                await self._before(found)
            self.done.append(found.next_offset)


def test_batches_are_worked_on_in_the_order_in_which_they_were_put() -> None:
    async def scenario() -> list[int]:
        lane = Recorder()
        lane.put(batch(1))  # before the start as well
        lane.start()
        for number in range(2, 40):
            lane.put(batch(number))
            if number % 7 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(lane.done) == 39)
        await lane.close()
        return lane.done

    assert asyncio.run(scenario()) == list(range(1, 40))


def test_one_batch_is_done_before_the_next_is_taken() -> None:
    async def scenario() -> tuple[int, list[int]]:
        at_once, most = 0, 0

        async def slowly(_: Batch) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

        lane = Recorder(slowly)
        lane.start()
        for number in range(5):
            lane.put(batch(number))
        await until(lambda: len(lane.done) == 5)
        await lane.close()
        return most, lane.done

    assert asyncio.run(scenario()) == (1, [0, 1, 2, 3, 4])


def test_closing_finishes_the_batch_in_hand_and_leaves_the_rest() -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        started, may_end = asyncio.Event(), asyncio.Event()

        async def wait(_: Batch) -> None:
            started.set()
            await may_end.wait()

        lane = Recorder(wait)
        lane.start()
        lane.put(batch(1))
        lane.put(batch(2))
        await started.wait()
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0)
        assert lane.closing
        assert not closing.done()
        before = list(lane.done)
        may_end.set()
        await closing
        lane.put(batch(3))
        await asyncio.sleep(0)
        return before, lane.done

    assert asyncio.run(scenario()) == ([], [1])


def test_an_idle_lane_closes_at_once_and_one_that_never_started_too() -> None:
    async def scenario() -> list[int]:
        lane = Recorder()
        await asyncio.wait_for(lane.close(), 1)
        other = Recorder()
        other.start()
        await asyncio.sleep(0)
        await asyncio.wait_for(other.close(), 1)
        return lane.done + other.done

    assert asyncio.run(scenario()) == []


def test_a_partition_with_too_much_waiting_is_held_back_until_half_of_it_is_taken() -> None:
    lane = Recorder()
    for number in range(4):
        lane.put(batch(number, FULL // 4))
        lane.put(batch(number, 1, partition=1))
        assert lane.pressures == ([(0, True)] if number == 3 else [])
    for _ in range(4):
        lane.take()
    assert lane.pressures == [(0, True)]
    lane.take()
    assert lane.pressures == [(0, True), (0, False)]


@given(st.lists(st.integers(0, FULL), max_size=12))
def test_whatever_was_put_no_partition_is_held_back_by_an_empty_lane(sizes: list[int]) -> None:
    lane = Recorder()
    for number, size in enumerate(sizes):
        lane.put(batch(number, size))
    assert ((0, True) in lane.pressures) == (sum(sizes) >= FULL)
    while lane.take() is not None:
        pass
    assert (0, True) not in lane.pressures or lane.pressures[-1] == (0, False)


def test_an_error_ends_the_lane_and_is_told_with_nothing_done_behind_it() -> None:
    async def scenario() -> tuple[list[int], list[str]]:
        async def fail(found: Batch) -> None:
            if found.next_offset == 2:
                raise RuntimeError("the second")

        lane = Recorder(fail)
        lane.start()
        for number in (1, 2, 3):
            lane.put(batch(number))
        await until(lambda: bool(lane.errors))
        await asyncio.wait_for(lane.close(), 1)
        return lane.done, [str(error) for error in lane.errors]

    assert asyncio.run(scenario()) == ([1], ["the second"])


def test_a_lane_is_busy_only_while_it_works() -> None:
    async def scenario() -> None:
        started, may_end = asyncio.Event(), asyncio.Event()

        async def wait(_: Batch) -> None:
            started.set()
            await may_end.wait()

        lane = Recorder(wait)
        lane.start()
        assert lane.busy_for() == 0.0
        lane.put(batch(1))
        await started.wait()
        await asyncio.sleep(0.002)
        assert lane.busy_for() > 0.0
        may_end.set()
        await until(lambda: lane.done == [1])
        await until(lambda: lane.busy_for() == 0.0)
        await lane.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("comes_back", [True, False])
def test_nothing_is_written_while_the_group_may_have_given_the_partition_away(comes_back: bool) -> None:
    async def scenario() -> bool:
        holds = False
        lane = Recorder(lease=lambda: holds)
        asking = asyncio.create_task(lane.may_write())
        await asyncio.sleep(0.03)
        assert not asking.done()
        if comes_back:
            holds = True
        else:
            await lane.close()
        return await asyncio.wait_for(asking, 1)

    assert asyncio.run(scenario()) is comes_back
