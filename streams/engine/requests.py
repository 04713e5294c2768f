"""The read barrier: requests wait until everything acknowledged before them is in the state, and are then decided.

Where the changes end comes with the fetch of the requests, or is asked for when they have arrived. The one counts once
enough replicas have confirmed its leader: meanwhile the requests are decided already, and their decisions are written
after that. What turns out to be told by a leader that was replaced is decided again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import WritingLane
from streams.engine.outputs import Outputs, Writer
from streams.engine.parking import Parking
from streams.engine.partition import Partition
from streams.engine.records import Batch
from streams.kafka.read_barrier import Confirmation
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
#: The position that requests wait for while it is not known where the changes end.
UNKNOWN = 2**63 - 2
#: It may take this long to learn that, whatever a request says of its patience: it is not the state that is late.
LEAST_PATIENCE_S = 0.25
#: Pause before it is asked again.
ASK_AGAIN_S = 0.05


#: A request, its question, and the position that it asks for by itself. (Plain tuples: there is one for each request.)
Asked = tuple[Record, Any, int]
#: A request's offset and its decision's body, None if it went to its home partition.
Answered = tuple[int, bytes | None]


@dataclass(slots=True)
class Parked:
    """Requests that arrived together and wait for the state to reach `needs`, at the latest until `deadline`.

    `least` is the position that they ask for themselves; `parts` is how much of which batches is done with them. Their
    decisions count once `confirmation`, if there is one, says that it was the newest leader that told `needs`.
    """

    asked: list[Asked]
    least: int
    needs: int
    since: float
    deadline: float
    parts: list[tuple[Open, int]]
    confirmation: Confirmation | None = None


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
    #: By partition, what was decided, should it have to be decided again; and what that depends on.
    pieces: dict[int, list[Parked]] = field(default_factory=dict)
    confirmations: dict[int, list[Confirmation]] = field(default_factory=dict)
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

    def take_out(self, number: int) -> list[Parked]:
        """Take out what is decided of a partition, to be decided again; what went home is not among it."""
        self.out.batches = [batch for batch in self.out.batches if batch[1] != number]
        gone = {offset for offset, body in self.answered.pop(number, []) if body is None}
        self.confirmations.pop(number, None)
        again = []
        for piece in self.pieces.pop(number, []):
            piece.asked = [one for one in piece.asked if one[0].offset not in gone]
            if piece.asked:
                again.append(piece)
        parts = {id(part) for piece in again for part in piece.parts}
        self.parts = [part for part in self.parts if id(part) not in parts]
        return again


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


@dataclass(slots=True)
class Question:
    """Where the changes of some partitions end, for requests that wait under these numbers; and what was found.

    All of them had arrived before it was asked first; more numbers may be added while it is asked.
    """

    waiting: dict[int, list[int]]
    ends: dict[int, int] = field(default_factory=dict)


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

    def receive(
        self,
        opened: Open,
        records: list[Record],
        end: int | None,
        to: Decided,
        confirmation: Confirmation | None = None,
    ) -> list[int]:
        """Read requests that arrived before the changes ended at `end`; answer those that need not wait for it.

        Returns the numbers of those that wait while it is not known where the changes end (None).
        """
        applied = self.partition.applied
        asked = self._clerk.read(records, to.aside)
        ready = [one for one in asked if one[2] <= applied] if end is not None and end <= applied else []
        opened.left += len(asked)
        unknown: list[int] = []
        if len(ready) < len(asked):
            waiting = asked if not ready else [one for one in asked if one[2] > applied]
            unknown = self._park(waiting, end, opened, confirmation)
        if ready:
            parts = [(opened, len(ready))]
            self._answer(Parked(ready, 0, end or 0, 0.0, 0.0, parts, confirmation), to)
        return unknown

    def _park(
        self, asked: list[Asked], end: int | None, opened: Open, confirmation: Confirmation | None
    ) -> list[int]:
        """Let them wait, those together that wait for the same; the numbers of those that wait for an unknown end."""
        now = time.monotonic()
        alike: dict[tuple[int, float], list[Asked]] = {}
        for one in asked:
            alike.setdefault((max(end or 0, one[2]), self._clerk.patience(one[1])), []).append(one)
        unknown = []
        for (least, patience), some in alike.items():
            parked = Parked(some, least, least, now, now + patience, [(opened, len(some))], confirmation)
            if end is None and least < UNKNOWN:
                parked.needs = UNKNOWN
                parked.deadline = now + max(patience, LEAST_PATIENCE_S)
                unknown.append(self.parked.add(parked))
            else:
                self.parked.add(parked)
        self._count += len(asked)
        return unknown

    def park_again(self, pieces: list[Parked]) -> list[int]:
        """Let what was decided wait once more, for an end that is not known; their numbers."""
        now = time.monotonic()
        numbers = []
        for piece in pieces:
            patience = self._clerk.patience(piece.asked[0][1])
            piece.since, piece.deadline, piece.confirmation = now, now + max(patience, LEAST_PATIENCE_S), None
            piece.needs = max(UNKNOWN, piece.least)
            self._count += len(piece.asked)
            numbers.append(self.parked.add(piece))
        return numbers

    def ends_at(self, numbers: Iterable[int], end: int) -> None:
        """It is known now where the changes end for those that wait under these numbers."""
        for number in numbers:
            parked = self.parked.get(number)
            if parked is not None:
                patience = self._clerk.patience(parked.asked[0][1])
                self.parked.move(number, max(end, parked.least), parked.since + patience)

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
        for parked in over:
            self._answer(parked, to, behind=parked.needs > applied)
        return count >= CHUNK

    def _answer(self, parked: Parked, to: Decided, *, behind: bool = False) -> None:
        number = self.partition.number
        to.parts += parked.parts
        to.pieces.setdefault(number, []).append(parked)
        if parked.confirmation is not None and not behind:
            to.confirmations.setdefault(number, []).append(parked.confirmation)
        for first in range(0, len(parked.asked), CHUNK):
            some = parked.asked[first : first + CHUNK]
            answers = self._clerk.decide(self.partition, some, self.progress, to.out, to.aside, behind=behind)
            to.answered.setdefault(number, []).extend(answers)
            to.records += len(some)

    def settle(self) -> None:
        """Ack what is whole, in order: a commit must never pass a request that still waits."""
        while self._batches and not self._batches[0].left:
            self._batches.popleft().batch.done()
        self.progress.floor = self._batches[0].first if self._batches else self.progress.high


#: Asks once where the changes of some partitions end; what it is given is told of each that is found.
FindEnds = Callable[[Iterable[int], Callable[[int, int], None]], Awaitable[None]]
Tell = Callable[[int, list[Answered]], None]


class RequestsLane(WritingLane[Decided]):
    """Answers the requests of all partitions.

    Requests that arrive together share one question for the ends of their `consent.changes` partitions, as they are
    after the requests have arrived. Each is answered once the state is that far (and at its `min_position`), or as
    `state_behind` when its time is up; one that has to wait holds up none behind it. Decisions and their audit travel
    together; what a crash tears apart is put together when the partition is opened again (see `resume`).
    """

    most_at_once = MOST_WRITTEN_AT_ONCE

    def __init__(
        self,
        desks: Mapping[int, Desk],
        writer: Writer,
        *,
        find_ends: FindEnds,
        changes: str,
        tell: Tell,
        **lane: Any,
    ) -> None:
        super().__init__("requests", Decided, **lane)
        self.desks = desks
        self._writer = writer
        self._find_ends = find_ends
        #: The full name of `consent.changes`.
        self._changes = changes
        self._tell = tell
        #: Whose turn it is when not all can be looked at.
        self._in_turn = deque(desks.values())
        self._alarm: asyncio.Handle | None = None
        #: When it rings, in monotonic seconds.
        self._alarm_at = math.inf
        self._looking: asyncio.Handle | None = None
        self._turn = asyncio.Lock()
        self._asking: set[asyncio.Task[None]] = set()
        #: By partition, questions that have not found its end at once.
        self._unsettled: dict[int, list[Question]] = {}
        self._asking_again: asyncio.Task[None] | None = None
        for desk in desks.values():
            desk.partition.on_advance = self._look_soon

    def work_at_once(self) -> None:
        if self.next.is_full():
            return
        taken = self._take_in()
        if not taken:
            return
        unknown: dict[int, list[int]] = {}
        for desk, opened, records in taken:
            numbers = desk.receive(opened, records, opened.batch.end, self.next, opened.batch.confirmation)
            if numbers:
                unknown.setdefault(desk.partition.number, []).extend(numbers)
            self._received(opened)
        if unknown:
            self._ask(Question(unknown))
        else:
            metrics.FENCE_WAIT.observe(0)
        self._set_alarm()
        self.start_writing()

    async def work(self) -> None:
        while not self.closing and (taken := self._take_in()):
            question = Question({d.partition.number: [] for d, opened, _ in taken if opened.batch.end is None})
            if question.waiting:
                self._ask(question)
            for desk, opened, records in taken:
                number = desk.partition.number
                for first in range(0, len(records), CHUNK):
                    if not await self.has_room():
                        return
                    end = question.ends.get(number) if opened.batch.end is None else opened.batch.end
                    some = records[first : first + CHUNK]
                    waiting = desk.receive(opened, some, end, self.next, opened.batch.confirmation)
                    if waiting:
                        question.waiting[number] += waiting
                    # The other lane and the consumer get their turn.
                    await asyncio.sleep(0)
                self._received(opened)
            self._set_alarm()
            self.start_writing()

    def _ask(self, question: Question) -> None:
        """Ask where changes end, without waiting for the answer."""
        task = asyncio.create_task(self._ask_once(question), name="ends of changes")
        self._asking.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _found(self, question: Question, number: int, end: int) -> None:
        question.ends[number] = end
        self.desks[number].ends_at(question.waiting[number], end)

    async def _ask_once(self, question: Question) -> None:
        def found(number: int, end: int) -> None:
            self._found(question, number, end)
            metrics.count(metrics.of(metrics.FENCES, "asked"))
            self._look_soon()

        await self._find_ends(list(question.waiting), found)
        for number in question.waiting.keys() - question.ends.keys():
            self._unsettled.setdefault(number, []).append(question)
        if self._unsettled and self._asking_again is None:
            self._asking_again = asyncio.create_task(self._ask_again(), name="ends of changes, again")
            self._asking_again.add_done_callback(self._asked)
        self._set_alarm()

    async def _ask_again(self) -> None:
        """Ask for those whose end is not known yet, as long as any of them waits."""
        while self._unsettled and not self.closing:
            await asyncio.sleep(ASK_AGAIN_S)
            asked, self._unsettled = self._unsettled, {}
            ends: dict[int, int] = {}
            await self._find_ends(list(asked), ends.__setitem__)
            for number, questions in asked.items():
                if number in ends:
                    metrics.count(metrics.of(metrics.FENCES, "asked"))
                    for question in questions:
                        self._found(question, number, ends[number])
                else:
                    parked = self.desks[number].parked
                    left = [one for one in questions if any(map(parked.get, one.waiting[number]))]
                    if left:
                        self._unsettled.setdefault(number, []).extend(left)
            self._look_soon()
        self._asking_again = None

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
        for task in (*self._asking, *([self._asking_again] if self._asking_again else [])):
            task.cancel()
        await super().close()

    async def _unconfirmed(self, group: Decided) -> list[int]:
        """Partitions of a group that were decided by what a leader told which may have been replaced by then."""
        found = []
        for number, confirmations in group.confirmations.items():
            place = (self._changes, number)
            if not all([await one.confirmed(place) for one in confirmations]):
                found.append(number)
        return found

    def _decide_again(self, group: Decided, number: int) -> None:
        """Take a partition's decisions out of a group; its requests wait for the end that the newest leader tells."""
        pieces = group.take_out(number)
        if pieces and not self.closing:
            metrics.count(metrics.of(metrics.FENCES, "not confirmed"))
            self._ask(Question({number: self.desks[number].park_again(pieces)}))

    async def write(self, group: Decided) -> bool:
        """Dead letters and records that go home, then audit and decisions; then the requests are done."""
        # The next group has room.
        self._look_soon()
        at = time.monotonic()
        # Groups stand in the log in the order in which they were decided.
        async with self._turn:
            if group.confirmations:
                for number in await self._unconfirmed(group):
                    self._decide_again(group, number)
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
