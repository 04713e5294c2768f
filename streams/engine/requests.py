"""The fence: requests wait until everything acknowledged before them is in the state, and are then decided."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import WritingLane
from streams.engine.outputs import Outputs, Writer
from streams.engine.parking import Parking
from streams.engine.partition import Partition
from streams.engine.records import Batch
from streams.kafka.records import Record

#: So many requests of a partition may wait for the state before no more are taken in.
MOST_PARKED = 20_000
#: So far beyond the oldest request that still waits others are taken in: a restart has to find all their answers.
MOST_AHEAD = 100_000
#: About so many are decided before their decisions are written.
MOST_AT_ONCE = 2_000
#: So many groups of decisions are on their way to the broker at a time.
MOST_WRITTEN_AT_ONCE = 3
#: So many are read and decided in one go: their data stays in the processor's cache, and others get their turn.
CHUNK = 128


#: A request, its question, and the position that it asks for by itself. (Plain tuples: there is one for each request.)
Asked = tuple[Record, Any, int]
#: A request's offset and its decision's body, None if it went to its home partition.
Answered = tuple[int, bytes | None]


@dataclass(slots=True)
class Parked:
    """Requests that arrived together and wait for the state to reach `needs`, at the latest until `deadline`."""

    asked: list[Asked]
    needs: int
    since: float
    deadline: float
    batch: Open


@dataclass(slots=True)
class Open:
    """A batch from offset `first` on, of which `left` requests are not answered, or not all of that is written.

    Its receipt counts for one: what is put aside of it is written when that is.
    """

    batch: Batch
    first: int
    left: int = 1


@dataclass(slots=True)
class Decided:
    """Decisions that are written together, what goes aside before them, and whose they are."""

    out: Outputs = field(default_factory=Outputs)
    aside: Outputs = field(default_factory=Outputs)
    answered: dict[int, list[Answered]] = field(default_factory=dict)
    #: How much of which batches is done with them.
    parts: list[tuple[Open, int]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    records: int = 0

    def is_empty(self) -> bool:
        """Whether there is nothing to write and nothing to ack."""
        return not self.parts and not self.aside.batches

    def is_full(self) -> bool:
        """Whether they must be written before more is decided."""
        return self.records >= MOST_AT_ONCE


@dataclass(slots=True)
class Progress:
    """What is answered: everything below `floor`; nothing at or above `high` was looked at."""

    floor: int
    high: int
    answered: frozenset[int] = field(default_factory=frozenset)
    #: Bodies of decisions whose audit was written but which were not, by the request's offset.
    promised: dict[int, bytes] = field(default_factory=dict)
    #: Bodies of decisions that were written without their audit, by the request's offset.
    unexplained: dict[int, bytes] = field(default_factory=dict)
    #: What earlier owners answered, or wrote a dead letter of, is below it.
    known: int = 0

    def header(self) -> bytes:
        """For outputs: what the next owner looks for behind them. Earlier owners' answers may lie before them."""
        return b"%d/%d" % (self.floor, max(self.high, self.known))


class Clerk(Protocol):
    """What is done with the requests of one partition: the agents' side of the fence."""

    def read(self, records: list[Record], aside: Outputs) -> list[Asked]:
        """The questions to be answered here. What else comes of the records goes `aside`."""

    def patience(self, question: Any) -> float:
        """Seconds that a question may wait for the state."""

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
        """Decide at one position of the state: audit records and decisions go `out`.

        `behind`: the state is not where they need it, and their time is up.
        """


class Desk:
    """The requests of one partition: which wait, which are being answered, how far all are answered."""

    def __init__(self, partition: Partition, clerk: Clerk, progress: Progress) -> None:
        self.partition = partition
        self.progress = progress
        self.parked: Parking[Parked] = Parking()
        self._clerk = clerk
        #: How many requests are parked.
        self._count = 0
        self._batches: deque[Open] = deque()
        #: Below this some requests were answered by an earlier owner.
        self._new_from = max(progress.answered, default=progress.floor - 1) + 1

    def has_place(self) -> bool:
        """Whether more may be taken in: neither do too many wait, nor one for too long."""
        return self._count < MOST_PARKED and self.progress.high - self.progress.floor < MOST_AHEAD

    def accept(self, batch: Batch) -> tuple[Open, list[Record]]:
        """A batch that arrived, and its records that are not answered yet."""
        progress = self.progress
        opened = Open(batch, progress.high)
        self._batches.append(opened)
        records = batch.records
        progress.high = max(progress.high, batch.next_offset)
        if records and records[0].offset < self._new_from:
            fresh = [r for r in records if r.offset >= progress.floor and r.offset not in progress.answered]
            metrics.of(metrics.REPEATED, "eligibility.decisions").inc(len(records) - len(fresh))
            records = fresh
        return opened, records

    def receive(self, opened: Open, records: list[Record], end: int, to: Decided) -> None:
        """Read requests that arrived before the changes ended at `end`; answer those that need not wait for it."""
        applied = self.partition.applied
        asked = self._clerk.read(records, to.aside)
        ready = [one for one in asked if one[2] <= applied] if end <= applied else []
        opened.left += len(asked)
        if len(ready) < len(asked):
            self._park([one for one in asked if max(end, one[2]) > applied], end, opened)
        if ready:
            to.parts.append((opened, len(ready)))
            self._answer(ready, to)

    def _park(self, asked: list[Asked], end: int, opened: Open) -> None:
        """Let them wait, those together that wait for the same."""
        now = time.monotonic()
        alike: dict[tuple[int, float], list[Asked]] = {}
        for one in asked:
            alike.setdefault((max(end, one[2]), self._clerk.patience(one[1])), []).append(one)
        for (needs, patience), some in alike.items():
            self.parked.add(Parked(some, needs, now, now + patience, opened))
        self._count += len(asked)

    def look_again(self, to: Decided) -> bool:
        """Answer some of those whose wait is over; whether there may be more of them."""
        now, applied = time.monotonic(), self.partition.applied
        over: list[Parked] = []
        count = 0
        while count < CHUNK and (one := self.parked.pop(applied, now)) is not None:
            over.append(one)
            count += len(one.asked)
        if not over:
            return False
        self._count -= count
        metrics.FENCE_WAIT.observe(now - min(p.since for p in over))
        to.parts += ((p.batch, len(p.asked)) for p in over)
        self._answer([one for p in over if p.needs <= applied for one in p.asked], to)
        self._answer([one for p in over if p.needs > applied for one in p.asked], to, behind=True)
        return count >= CHUNK

    def _answer(self, asked: list[Asked], to: Decided, *, behind: bool = False) -> None:
        for first in range(0, len(asked), CHUNK):
            some = asked[first : first + CHUNK]
            answers = self._clerk.decide(self.partition, some, self.progress, to.out, to.aside, behind=behind)
            to.answered.setdefault(self.partition.number, []).extend(answers)
            to.records += len(some)

    def settle(self) -> None:
        """Ack what is whole, in order: a commit must never pass a request that still waits."""
        while self._batches and not self._batches[0].left:
            self._batches.popleft().batch.done()
        self.progress.floor = self._batches[0].first if self._batches else self.progress.high


EndsSince = Callable[[Mapping[int, float]], Awaitable[Mapping[int, int]]]
Tell = Callable[[int, list[Answered]], None]


class RequestsLane(WritingLane[Decided]):
    """Answers the requests of all partitions.

    Requests that arrive together share one look at the ends of their `consent.changes` partitions, as they are after
    the requests have arrived. Each is answered once the state is that far (and at its `min_position`), or as
    `state_behind` when its time is up; one that has to wait holds up none behind it. Decisions and their audit travel
    together; what a crash tears apart is put together when the partition is opened again (see `resume`).
    """

    most_at_once = MOST_WRITTEN_AT_ONCE

    def __init__(
        self, desks: Mapping[int, Desk], writer: Writer, *, ends_since: EndsSince, tell: Tell, **lane: Any
    ) -> None:
        super().__init__("requests", Decided, **lane)
        self.desks = desks
        self._writer = writer
        self._ends_since = ends_since
        self._tell = tell
        #: Whose turn it is when not all can be looked at.
        self._in_turn = deque(desks.values())
        self._alarm: asyncio.Handle | None = None
        #: When it rings, in monotonic seconds.
        self._alarm_at = math.inf
        self._looking: asyncio.Handle | None = None
        self._turn = asyncio.Lock()
        for desk in desks.values():
            desk.partition.on_advance = self._look_soon

    def work_at_once(self) -> None:
        if self.next.is_full() or any(batch.end is None for batch in self._waiting):
            return
        taken = self._take_in()
        if not taken:
            return
        metrics.FENCE_WAIT.observe(0)
        for desk, opened, records in taken:
            desk.receive(opened, records, opened.batch.end or 0, self.next)
            self._received(opened)
        self._set_alarm()
        self.start_writing()

    async def work(self) -> None:
        while not self.closing and (taken := self._take_in()):
            # The newest of a partition's batches is its last.
            untold = {desk.partition.number: opened.batch.at for desk, opened, _ in taken if opened.batch.end is None}
            asked_at = time.monotonic()
            ends = await self._ends_since(untold) if untold else {}
            metrics.FENCE_WAIT.observe(time.monotonic() - asked_at)
            for desk, opened, records in taken:
                end = ends[desk.partition.number] if opened.batch.end is None else opened.batch.end
                for first in range(0, len(records), CHUNK):
                    if not await self.has_room():
                        return
                    desk.receive(opened, records[first : first + CHUNK], end, self.next)
                    # The other lane and the consumer get their turn.
                    await asyncio.sleep(0)
                self._received(opened)
            self._set_alarm()
            self.start_writing()

    def _received(self, opened: Open) -> None:
        self.next.parts.append((opened, 1))
        if opened.batch.end is not None:
            metrics.count(metrics.of(metrics.FENCES, "same fetch"))

    def _take_in(self) -> list[tuple[Desk, Open, list[Record]]]:
        """Waiting batches, enough to be decided in one go, unless too many wait for the state already."""
        taken = []
        count = 0
        has_place = all(desk.has_place() for desk in self.desks.values())
        while has_place and count < MOST_AT_ONCE and (batch := self.take()) is not None:
            desk = self.desks[batch.partition]
            opened, records = desk.accept(batch)
            taken.append((desk, opened, records))
            count += len(records)
            has_place = desk.has_place()
        return taken

    def _look_soon(self) -> None:
        """The state has moved on: look at those who wait, once for all partitions that it moved in this turn."""
        if self._looking is None and not self.closing and any(desk.parked for desk in self.desks.values()):
            self._looking = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = None
        if self.closing:
            return
        more = False
        try:
            for desk in list(self._in_turn):
                if self.next.is_full():
                    # When that is written, there is room again: for this one first.
                    break
                more |= desk.look_again(self.next)
                self._in_turn.rotate(-1)
        except Exception as exc:
            self._on_error(exc)
            return
        self.start_writing()
        if more:
            self._look_soon()
        else:
            self._set_alarm()
        if self._waiting:
            self.wake()

    def _set_alarm(self) -> None:
        """Look again when the first of those who wait has waited for long enough, or sooner."""
        deadlines = [at for desk in self.desks.values() if (at := desk.parked.first_deadline()) is not None]
        if not deadlines or self.closing or self.next.is_full():
            return
        first = min(deadlines)
        if self._alarm_at <= first:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(first, self._ring)
        self._alarm_at = first

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._look()

    async def close(self) -> None:
        """Answer no more, and write what is decided."""
        if self._alarm is not None:
            self._alarm.cancel()
        await super().close()

    async def write(self, group: Decided) -> bool:
        """Dead letters and records that go home, then audit and decisions; then the requests are done."""
        # The next group has room.
        self._look_soon()
        at = time.monotonic()
        # Groups stand in the log in the order in which they were decided.
        async with self._turn:
            if group.aside.batches:
                if not await self.may_write():
                    return False
                await self._writer.write(group.aside)
                at = self._observe("aside", at)
            if not await self.may_write():
                return False
            written = self._writer.begin(group.out) if group.out.batches else None
        if written is not None:
            await written
            self._observe("decisions", at)
        for opened, count in group.parts:
            opened.left -= count
        if self._waiting:
            # There may be place again.
            self.wake()
        for desk in self.desks.values():
            desk.settle()
        for number, answered in group.answered.items():
            self._tell(number, answered)
            metrics.of(metrics.CHECKPOINT_AT, number).set_to_current_time()
        if group.records:
            metrics.of(metrics.BATCH, "eligibility.requests").observe(group.records)
        return True

    @staticmethod
    def _observe(step: str, since: float) -> float:
        now = time.monotonic()
        metrics.of(metrics.STEP, "eligibility.requests", step).observe(now - since)
        return now
