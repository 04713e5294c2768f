"""Lanes that work on while they write: in order, nothing twice, nothing after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from streams.engine.lane import WritingLane
from streams.engine.records import Batch
from tests.engine.waiting import until

FULL = 3


@dataclass
class Group:
    numbers: list[int] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def is_empty(self) -> bool:
        return not self.numbers

    def is_full(self) -> bool:
        return len(self.numbers) >= FULL


class Recorder(WritingLane[Group]):
    """Writes the numbers of its batches; each write waits until it is let through."""

    def __init__(self, lease: Callable[[], bool] = lambda: True) -> None:
        self.written: list[list[int]] = []
        self.begun: list[list[int]] = []
        self.errors: list[BaseException] = []
        self.gate = asyncio.Semaphore(0)
        super().__init__(
            "lane", Group, on_error=self.errors.append, pressure=lambda _partition, _full: None, lease=lease
        )

    async def work(self) -> None:
        while not self.closing and (batch := self.take()) is not None:
            if not await self.has_room():
                return
            self.next.numbers.append(batch.next_offset)
            self.start_writing()

    async def write(self, group: Group) -> bool:
        self.begun.append(group.numbers)
        await self.gate.acquire()
        if not await self.may_write():
            return False
        if 13 in group.numbers:
            raise RuntimeError("thirteen")
        self.written.append(group.numbers)
        return True


def put(lane: Recorder, *numbers: int) -> None:
    for number in numbers:
        lane.put(Batch(0, [], number - 1, number, 0.0))


def test_what_arrives_during_a_write_is_worked_on_and_written_together_after_it() -> None:
    async def scenario() -> Any:
        lane = Recorder()
        lane.start()
        put(lane, 1)
        await until(lambda: lane.begun == [[1]])
        put(lane, 2, 3)
        await until(lambda: lane.next.numbers == [2, 3])
        lane.gate.release()
        await until(lambda: lane.written == [[1]])
        lane.gate.release()
        await until(lambda: lane.written == [[1], [2, 3]])
        await lane.close()
        return lane.errors

    assert asyncio.run(scenario()) == []


def test_a_full_group_holds_up_the_work_until_it_is_being_written() -> None:
    async def scenario() -> list[list[int]]:
        lane = Recorder()
        lane.start()
        put(lane, *range(8))
        await until(lambda: lane.begun != [] and lane.next.is_full())
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(lane.next.numbers) == FULL
        for _ in range(8):
            lane.gate.release()
        await until(lambda: sum(map(len, lane.written)) == 8)
        await lane.close()
        return lane.written

    written = asyncio.run(scenario())
    assert [number for group in written for number in group] == list(range(8))
    assert max(map(len, written)) <= FULL


def test_closing_writes_what_was_worked_on_and_takes_no_more() -> None:
    async def scenario() -> list[list[int]]:
        lane = Recorder()
        lane.start()
        put(lane, 1)
        await until(lambda: lane.begun == [[1]])
        put(lane, 2)
        await until(lambda: lane.next.numbers == [2])
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0)
        put(lane, 3)
        lane.gate.release()
        lane.gate.release()
        await asyncio.wait_for(closing, 5)
        return lane.written

    assert asyncio.run(scenario()) == [[1], [2]]


def test_closing_while_a_full_group_waits_ends_in_time() -> None:
    async def scenario() -> list[list[int]]:
        lane = Recorder()
        lane.start()
        put(lane, *range(8))
        await until(lambda: lane.begun != [] and lane.next.is_full())
        for _ in range(8):
            lane.gate.release()
        await asyncio.wait_for(lane.close(), 5)
        return lane.written

    written = asyncio.run(scenario())
    numbers = [number for group in written for number in group]
    assert numbers == list(range(len(numbers)))


def test_a_failed_write_is_told_once_and_nothing_is_written_behind_it() -> None:
    async def scenario() -> Any:
        lane = Recorder()
        lane.start()
        put(lane, 1, 13, 2, 3, 4, 5, 6)
        for _ in range(8):
            lane.gate.release()
        await until(lambda: bool(lane.errors))
        put(lane, 7)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.wait_for(lane.close(), 5)
        return lane.written, [str(error) for error in lane.errors]

    written, errors = asyncio.run(scenario())
    assert errors == ["thirteen"]
    assert all(number < 13 for group in written for number in group)
    assert [number for group in written for number in group] in ([1], [])


@pytest.mark.parametrize("comes_back", [True, False])
def test_without_a_lease_nothing_is_written_until_it_is_back_and_nothing_at_all_if_the_lane_closes(
    comes_back: bool,
) -> None:
    async def scenario() -> list[list[int]]:
        holds = False
        lane = Recorder(lease=lambda: holds)
        lane.start()
        put(lane, 1)
        lane.gate.release()
        lane.gate.release()
        await until(lambda: lane.begun == [[1]])
        await asyncio.sleep(0.03)
        assert lane.written == []
        if comes_back:
            holds = True
            await until(lambda: lane.written == [[1]])
        await asyncio.wait_for(lane.close(), 5)
        return lane.written

    assert asyncio.run(scenario()) == ([[1]] if comes_back else [])


def test_a_lane_is_busy_for_as_long_as_its_oldest_part_waits_to_be_written() -> None:
    async def scenario() -> None:
        lane = Recorder()
        lane.start()
        put(lane, 1)
        await until(lambda: lane.begun == [[1]])
        await asyncio.sleep(0.002)
        assert lane.busy_for() >= 0.002
        lane.gate.release()
        await until(lambda: lane.written == [[1]])
        await until(lambda: lane.busy_for() == 0.0)
        await lane.close()

    asyncio.run(scenario())
