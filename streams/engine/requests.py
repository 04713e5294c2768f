"""The fence: requests wait until everything acknowledged before them is in the state, and are then decided."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from streams import metrics
from streams.engine.lane import Lane
from streams.engine.outputs import Outputs, Writer
from streams.engine.partition import Partition
from streams.engine.records import Batch, Record

#: So many requests may wait for the state before no more are taken in.
MOST_PARKED = 20_000
#: So many are decided in one go: it takes about 10 ms in which the event loop does nothing else.
MOST_AT_ONCE = 1_000


@dataclass(slots=True)
class Parked:
    """A request that waits: for the state to reach `needs`, at the latest until `deadline` (monotonic seconds)."""

    record: Record
    question: Any
    needs: int
    deadline: float
    batch: Open
    answer: bytes | None = None


@dataclass(slots=True)
class Open:
    """A batch of which `left` requests are not answered yet."""

    batch: Batch
    left: int


@dataclass(slots=True)
class Progress:
    """What is answered: everything below `floor`; nothing at or above `high` was looked at."""

    floor: int
    high: int
    answered: frozenset[int] = field(default_factory=frozenset)
    #: Bodies of decisions whose audit was written but which were not, by the request's offset.
    promised: dict[int, Any] = field(default_factory=dict)

    def header(self) -> bytes:
        return b"%d/%d" % (self.floor, self.high)


Read = Callable[[Record, Outputs], Any]
Limits = Callable[[Any], tuple[int | None, float]]
Decide = Callable[[Partition, list[Parked], Progress], tuple[Outputs, Outputs]]
Answered = Callable[[int, int, bytes | None], None]
EndOf = Callable[[int], Awaitable[int]]


class RequestsLane(Lane):
    """Answers a partition's requests.

    Requests that arrive together share one question to the broker for the end of their `consent.changes` partition.
    Each is answered once the state is that far (and at its `min_position`), or as `state_behind` when its time is up;
    one that has to wait holds up none behind it. Audit records are acknowledged before their decisions are written: a
    decision that anyone can see can be explained, and after a crash a decision that was only audited is written as it
    was audited.
    """

    def __init__(
        self,
        partition: Partition,
        writer: Writer,
        progress: Progress,
        *,
        end_of: EndOf,
        read: Read,
        limits: Limits,
        decide: Decide,
        answered: Answered,
        **lane: Any,
    ) -> None:
        super().__init__(f"requests-{partition.number}", **lane)
        self._partition = partition
        self._writer = writer
        self._progress = progress
        self._end_of = end_of
        self._read = read
        self._limits = limits
        self._decide = decide
        self._answered = answered
        self._parked: list[Parked] = []
        self._batches: deque[Open] = deque()

    async def work(self) -> None:
        await self._take_in()
        if self._parked and not await self._wait():
            return
        now = time.monotonic()
        applied = self._partition.applied
        ready = [p for p in self._parked if p.needs <= applied or p.deadline <= now]
        for first in range(0, len(ready), MOST_AT_ONCE):
            if not self.closing:
                await self._answer(ready[first : first + MOST_AT_ONCE])
        if self._parked:
            self._wakeup.set()

    async def _take_in(self) -> None:
        """Read what has arrived; it is parked until the state is where the log was then."""
        fresh: list[Parked] = []
        unreadable = Outputs()
        while len(fresh) < MOST_AT_ONCE and len(self._parked) + len(fresh) < MOST_PARKED:
            batch = self.take()
            if batch is None:
                break
            opened = Open(batch, 0)
            self._batches.append(opened)
            for record in batch.records:
                self._progress.high = max(self._progress.high, record.offset + 1)
                if record.offset < self._progress.floor or record.offset in self._progress.answered:
                    metrics.REPEATED.labels("eligibility.decisions").inc()
                    continue
                question = self._read(record, unreadable)
                if question is not None:
                    opened.left += 1
                    fresh.append(Parked(record, question, 0, 0.0, opened))
        if unreadable.by_place:
            if not await self.may_write():
                return
            await self._writer.write(unreadable)
        if fresh:
            end = await self._end_of(self._partition.number)
            now = time.monotonic()
            for parked in fresh:
                least, wait = self._limits(parked.question)
                parked.needs = end if least is None else max(end, least)
                parked.deadline = now + wait
            self._parked += fresh
        self._finish()

    async def _wait(self) -> bool:
        """Until some request can be answered or more arrive; False if neither and the lane is closing."""
        started = time.monotonic()
        needed = min(p.needs for p in self._parked)
        deadline = min(p.deadline for p in self._parked)
        if needed > self._partition.applied and deadline > started:
            reached = self._partition.reached(needed)
            # With no room left an arrival changes nothing, and waiting for it would only spin.
            event = self._wakeup if len(self._parked) < MOST_PARKED else self._closing
            arrival: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
            both: set[asyncio.Future[Any]] = {reached, arrival}
            await asyncio.wait(both, timeout=deadline - started, return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            arrival.cancel()
        metrics.FENCE_WAIT.observe(time.monotonic() - started)
        return not self.closing

    async def _answer(self, ready: list[Parked]) -> None:
        """One checkpoint: decide at one position of the state, audit, then publish; then the batches can be acked."""
        first, second = self._decide(self._partition, ready, self._progress)
        at = time.monotonic()
        if not await self.may_write():
            return
        await self._writer.write(first)
        at = _observe("audit", at)
        if not await self.may_write():
            return
        await self._writer.write(second)
        _observe("decisions", at)
        answered = set(map(id, ready))
        self._parked = [p for p in self._parked if id(p) not in answered]
        for parked in ready:
            parked.batch.left -= 1
            self._answered(self._partition.number, parked.record.offset, parked.answer)
        self._progress.floor = min((p.record.offset for p in self._parked), default=self._progress.high)
        metrics.BATCH.labels("eligibility.requests").observe(len(ready))
        metrics.CHECKPOINT_AT.labels(self._partition.number).set_to_current_time()
        self._finish()

    def _finish(self) -> None:
        """Ack what is whole, in order: a commit must never pass a request that still waits."""
        while self._batches and not self._batches[0].left:
            self._batches.popleft().batch.done()


def _observe(step: str, since: float) -> float:
    now = time.monotonic()
    metrics.STEP.labels("eligibility.requests", step).observe(now - since)
    return now

