"""The fence: who waits for what, what is acked when, and how far everything is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine.outputs import Outputs
from streams.engine.partition import Partition
from streams.engine.records import Batch
from streams.engine.requests import (
    CHUNK,
    MOST_AT_ONCE,
    MOST_WRITTEN_AT_ONCE,
    Answered,
    Asked,
    Desk,
    Progress,
    RequestsLane,
)
from streams.kafka.records import Record
from streams.loop import run
from tests.engine.waiting import until
from tests.memory import Memory
from tests.written import by_place


class Clerk:
    """A question is its record's key: `needs/patience`; `-` is a dead letter."""

    def read(self, records: list[Record], aside: Outputs) -> list[Asked]:
        asked = []
        for record in records:
            if record.key == b"-":
                aside.add("dead", 0, record.key, b"%d" % record.offset)
            else:
                asked.append((record, record.key, int((record.key or b"").split(b"/")[0])))
        return asked

    def patience(self, question: Any) -> float:
        return float(question.split(b"/")[1])

    def decide(
        self,
        partition: Partition,
        asked: list[Asked],
        progress: Progress,
        out: Outputs,
        aside: Outputs,
        *,
        behind: bool,
    ) -> list[Answered]:
        for record, _, needs in asked:
            assert behind or needs <= partition.applied
            out.add("decisions", partition.number, progress.header(), b"%d %d" % (record.offset, behind))
        return [(record.offset, b"behind" if behind else b"decided") for record, _, _ in asked]


class Writer:
    """Writes when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.written: list[tuple[str, bytes]] = []

    def begin(self, outputs: Outputs) -> Awaitable[None]:
        return self.write(outputs)

    async def write(self, outputs: Outputs) -> None:
        await self.gate.wait()
        for (topic, _), messages in by_place(outputs).items():
            self.written += [(topic, value or b"") for _, value, _ in messages]


class World:
    """One partition's lane, on the running loop; its changes end at `end`."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.end = 0
        self.asked = 0
        self.acked: list[int] = []
        self.told: list[Answered] = []
        self.errors: list[BaseException] = []
        self.writer = Writer()
        self.state = Partition(0, Memory())  # type: ignore[arg-type]
        self.desk = Desk(self.state, Clerk(), progress or Progress(0, 0))
        self.lane = RequestsLane(
            {0: self.desk},
            self.writer,  # type: ignore[arg-type]
            find_ends=self.find_ends,
            changes="changes",
            tell=lambda _, answers: self.told.extend(answers),
            on_error=self.errors.append,
            pressure=lambda _partition, _full: None,
            lease=lambda: True,
        )
        self.lane.start()

    async def find_ends(self, partitions: Iterable[int], on_end: Callable[[int, int], None]) -> None:
        self.asked += 1
        for number in partitions:
            on_end(number, self.end)

    def put(self, first: int, *keys: bytes, end: int | None = None) -> None:
        self.lane.put(self.batch(first, *keys, end=end))

    def batch(self, first: int, *keys: bytes, end: int | None = None) -> Batch:
        records = [Record(first + at, 0, key, b"", ()) for at, key in enumerate(keys)]
        after = first + len(keys)
        return Batch(0, records, first, after, 0.0, lambda: self.acked.append(after), end)

    @property
    def answered(self) -> list[int]:
        return [offset for offset, _ in self.told]


async def a_while() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_requests_wait_until_the_changes_are_applied_that_were_there_when_they_came() -> None:
    async def scenario() -> None:
        world = World()
        world.end = 3
        world.put(0, b"0/9", b"5/9")
        await until(lambda: len(world.desk.parked) == 2)
        world.state.advance(2)
        await a_while()
        assert world.told == []
        world.state.advance(3)
        await until(lambda: world.answered == [0])
        assert (world.acked, world.desk.progress.floor) == ([], 0), "the second still waits for what it asked for"
        world.state.advance(5)
        await until(lambda: world.answered == [0, 1])
        assert (world.acked, world.desk.progress.floor) == ([2], 2)
        assert world.told == [(0, b"decided"), (1, b"decided")]
        await world.lane.close()
        assert world.errors == []

    asyncio.run(scenario())


def test_one_whose_time_is_up_is_answered_as_behind_and_holds_up_nobody() -> None:
    async def scenario() -> None:
        world = World()
        world.put(0, b"7/0.02", b"0/9", b"7/9")
        await until(lambda: world.answered == [1, 0])
        assert dict(world.told)[0] == b"behind"
        assert world.acked == []
        world.put(3, b"0/9")
        await until(lambda: world.answered == [1, 0, 3])
        assert world.acked == [], "a commit never passes a request that waits"
        world.state.advance(7)
        await until(lambda: world.acked == [3, 4])
        await world.lane.close()

    asyncio.run(scenario())


def test_many_who_wait_for_the_same_are_answered_a_few_at_a_time_and_written_in_groups() -> None:
    async def scenario() -> None:
        world = World()
        world.end, count = 1, 4 * MOST_AT_ONCE
        for first in range(0, count, 500):
            world.put(first, *[b"0/9"] * 500)
        await until(lambda: world.desk._count == count)
        world.writer.gate.clear()
        world.state.advance(1)
        await asyncio.sleep(0)
        assert 0 < world.lane.next.records <= CHUNK, "others get their turn"
        await until(lambda: world.lane.next.is_full() and len(world.lane._groups) == MOST_WRITTEN_AT_ONCE)
        await a_while()
        most = [group.records for group in (*world.lane._groups, world.lane.next)]
        assert max(most) < MOST_AT_ONCE + CHUNK, "what is decided waits to be written before more is"
        world.writer.gate.set()
        await until(lambda: len(world.told) == count)
        assert sorted(world.answered) == list(range(count))
        assert (len(world.desk.parked), world.desk._count) == (0, 0)
        await world.lane.close()
        assert world.errors == []

    asyncio.run(scenario())


def test_those_whose_time_is_up_at_once_are_answered_on_the_workers_own_loop() -> None:
    async def scenario() -> None:
        world = World()
        await a_while()
        for first in range(3):
            world.put(first, b"7/%d" % (9 * first - 1), end=0)
        await until(lambda: world.answered == [0])
        world.put(3, b"7/-1", end=0)
        await until(lambda: world.answered == [0, 3])
        world.state.advance(7)
        await until(lambda: world.answered == [0, 3, 1, 2])
        await world.lane.close()
        assert world.errors == []

    run(scenario())


@pytest.mark.parametrize("end", [0, None], ids=["told by the fetch", "asked for"])
def test_a_batch_is_acked_only_after_its_dead_letters_are_written_and_they_come_first(end: int | None) -> None:
    async def scenario() -> None:
        world = World()
        world.writer.gate.clear()
        world.put(0, b"0/9", end=end)
        await until(lambda: [group.records for group in world.lane._groups] == [1])
        world.put(1, b"-", end=end)
        world.put(2, b"-", b"0/9", end=end)
        await until(lambda: sum(group.records for group in [*world.lane._groups, world.lane.next]) == 2)
        await a_while()
        assert any(group.aside.batches for group in [*world.lane._groups, world.lane.next])
        assert (world.acked, world.writer.written) == ([], [])
        world.writer.gate.set()
        await until(lambda: world.acked == [1, 2, 4])
        assert world.writer.written == [
            ("decisions", b"0 0"), ("dead", b"1"), ("dead", b"2"), ("decisions", b"3 0")
        ]  # fmt: skip
        await world.lane.close()

    asyncio.run(scenario())


def test_what_came_together_shares_one_question_to_the_broker() -> None:
    async def scenario() -> None:
        world = World()
        world.lane.put(*[world.batch(first, *[b"0/9"] * 4) for first in range(0, 40, 4)])
        await until(lambda: len(world.told) == 40)
        assert world.asked == 1
        await world.lane.close()

    asyncio.run(scenario())


def test_what_an_earlier_owner_answered_is_acked_and_not_answered_again() -> None:
    async def scenario() -> None:
        world = World(Progress(2, 2, frozenset({3, 5})))
        world.put(0, *[b"0/9"] * 8)
        await until(lambda: world.acked == [8])
        assert world.answered == [2, 4, 6, 7]
        await world.lane.close()

    asyncio.run(scenario())


def test_closing_leaves_what_waits_unanswered_and_unacked() -> None:
    async def scenario() -> None:
        world = World()
        world.put(0, b"9/0.01", b"0/9")
        await until(lambda: world.answered == [1])
        await asyncio.wait_for(world.lane.close(), 5)
        await asyncio.sleep(0.02)
        world.state.advance(9)
        await a_while()
        assert (world.answered, world.acked) == ([1], [])

    asyncio.run(scenario())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from((b"0/9", b"4/9", b"8/9", b"-")), max_size=4), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    )
)
def test_in_the_end_everything_is_answered_once_and_acked_in_order(steps: list[tuple[list[bytes], int]]) -> None:
    async def scenario() -> None:
        world = World()
        at, ends = 0, []
        for keys, grown in steps:
            world.end += grown
            world.put(at, *keys)
            at += len(keys)
            ends.append(at)
            await a_while()
            world.state.advance(world.end)
        world.state.advance(100)
        await until(lambda: world.acked == ends)
        wanted = [offset for offset, key in enumerate(key for keys, _ in steps for key in keys) if key != b"-"]
        assert sorted(world.answered) == wanted
        assert sorted(world.writer.written) == sorted(
            [("decisions", b"%d 0" % offset) for offset in wanted]
            + [("dead", b"%d" % offset) for offset in set(range(at)) - set(wanted)]
        )
        assert world.desk.progress.floor == at
        await world.lane.close()
        assert world.errors == []

    asyncio.run(scenario())
