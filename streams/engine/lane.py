"""A lane: the batches of one topic, those of one partition after another, those of several together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from streams.engine.records import Batch

#: So many records of a partition may wait in a lane before it is no longer fetched; below half of that it is again.
#: More than one fetch brings at most, so that only a lane that cannot keep up holds anything back: a partition that was
#: held back has to wait for the next fetch request.
FULL = 4_000
#: So many records are dealt with in one go, about 5 ms in which nothing else happens.
AT_ONCE = 256
#: Pause between two looks at whether the group has heard of us again.
LEASE_POLL_S = 0.02


class Lane:
    """Runs `work()` in a task of its own. Subclasses take batches with `take` and ack each when it is done.

    All partitions of a topic share a lane, so that they share its round trips to the broker too.
    """

    def __init__(
        self,
        name: str,
        *,
        on_error: Callable[[BaseException], None],
        pressure: Callable[[int, bool], None],
        lease: Callable[[], bool],
    ) -> None:
        self.name = name
        self._lease = lease
        self._on_error = on_error
        self._pressure = pressure
        self._waiting: deque[Batch] = deque()
        self._queued: Counter[int] = Counter()
        self._wakeup = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._busy_since: float | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    def put(self, *batches: Batch) -> None:
        """Queue batches that arrived together; never waits. What is little is dealt with at once."""
        for batch in batches:
            self._waiting.append(batch)
            before = self._queued[batch.partition]
            self._queued[batch.partition] = before + len(batch.records)
            if before < FULL <= self._queued[batch.partition]:
                self._pressure(batch.partition, True)
        if self._is_idle() and self._queued.total() <= AT_ONCE:
            try:
                self.work_at_once()
            except Exception as exc:
                self._fail(exc)
        if self._waiting:
            self.wake()

    def _is_idle(self) -> bool:
        """Whether `work` waits to be called, so that nothing is dealt with before what was put before it."""
        return self._task is not None and self._busy_since is None and not self.closing

    def _fail(self, error: BaseException) -> None:
        """Work no more: the worker ends."""
        self._closing.set()
        self._on_error(error)

    def take(self) -> Batch | None:
        """The next batch, or None if none waits."""
        if not self._waiting:
            return None
        batch = self._waiting.popleft()
        before = self._queued[batch.partition]
        self._queued[batch.partition] = before - len(batch.records)
        # Pressure that was put on is let off; where none was, that does no harm.
        if before >= FULL // 2 > self._queued[batch.partition]:
            self._pressure(batch.partition, False)
        return batch

    def put_back(self, batch: Batch) -> None:
        """This batch, which was taken last, is the next again."""
        self._waiting.appendleft(batch)
        self._queued[batch.partition] += len(batch.records)

    def wake(self) -> None:
        """There is something to do: `work` is called again."""
        self._wakeup.set()

    def busy_for(self) -> float:
        """Seconds since the step of work in hand began; 0 if there is none."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    @property
    def closing(self) -> bool:
        """Whether the lane must stop at the next safe point: between two checkpoints."""
        return self._closing.is_set()

    async def close(self) -> None:
        """Stop after the checkpoint in hand; what only waits is left to the partition's next owner."""
        self._closing.set()
        self.wake()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def may_write(self) -> bool:
        """Whether the partitions are surely still ours; waits while the group has not heard of us for too long.

        A worker that was suspended past its session wakes up to find its partitions gone: it must not write before it
        knows. False once the lane is closing.
        """
        while not self._lease():
            if self.closing:
                return False
            await asyncio.sleep(LEASE_POLL_S)
        return True

    async def _run(self) -> None:
        """Work until the lane closes or fails."""
        try:
            while not self.closing:
                await self._wakeup.wait()
                self._wakeup.clear()
                if not self.closing:
                    self._busy_since = time.monotonic()
                    await self.work()
                    self._busy_since = None
        except Exception as exc:
            self._fail(exc)

    async def work(self) -> None:
        """Do what there is to do now; called again after `wake`, which every batch that is put brings about."""
        raise NotImplementedError

    def work_at_once(self) -> None:
        """Do of it what can be done without waiting for anything, from the first batch on.

        Every turn that a record waits for on a busy loop is a few milliseconds: with few records there is none.
        """


class Group(Protocol):
    """What is written together."""

    #: When its first part was added, in monotonic seconds.
    since: float

    def is_empty(self) -> bool:
        """Whether there is nothing to write and nothing to ack."""

    def is_full(self) -> bool:
        """Whether it must be written before more is added."""


G = TypeVar("G", bound=Group)


class WritingLane(Lane, Generic[G]):
    """A lane whose `work` adds to a group, `self.next`, while the group before it is being written."""

    #: Groups begin to be written at least so far apart unless they are full.
    least_apart_s = 0.0
    #: So many groups are written at a time; `write` sees to it that they stay in order.
    most_at_once = 1

    def __init__(self, name: str, new_group: Callable[[], G], **lane: Any) -> None:
        super().__init__(name, **lane)
        self._new_group = new_group
        self.next = new_group()
        #: Set whenever a group goes into writing, and when none will any more.
        self._moved = asyncio.Event()
        #: Set when a group must not wait for more.
        self._hurry = asyncio.Event()
        self._begun = 0.0
        self._writing: set[asyncio.Task[None]] = set()
        self._groups: list[G] = []
        self._broken = False

    async def write(self, group: G) -> bool:
        """Write a group, and ack what is whole with it; False if the partitions are not ours any more."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop working, and write what is worked on."""
        self._hurry.set()
        await super().close()
        while self._writing:
            await asyncio.wait(self._writing)

    def busy_for(self) -> float:
        """Seconds since the oldest part of what is being written was added, or the work in hand began."""
        now = time.monotonic()
        return max(super().busy_for(), *(now - group.since for group in self._groups), 0.0)

    async def has_room(self) -> bool:
        """Wait while the next group is full; False if the lane must end."""
        while self.next.is_full():
            self._moved.clear()
            self._hurry.set()
            self.start_writing()
            if self._broken or self.closing:
                return False
            await self._moved.wait()
        return True

    def start_writing(self) -> None:
        """See that the next group is written, after those that may be in hand."""
        if len(self._writing) < self.most_at_once and not self._broken and not self.next.is_empty():
            self._writing.add(asyncio.create_task(self._write_all(), name=f"{self.name}: write"))

    async def _write_all(self) -> None:
        task = asyncio.current_task()
        try:
            while not self._broken and not self.next.is_empty():
                await self._pause()
                group, self.next = self.next, self._new_group()
                self._groups.append(group)
                self._moved.set()
                written = await self.write(group)
                self._groups.remove(group)
                if not written:
                    self._broken = True
        except Exception as exc:
            self._broken = True
            self._fail(exc)
        finally:
            # At once, and not when the task is seen to be done: what is added now must be written by another.
            self._writing.discard(task)
            self._moved.set()

    async def _pause(self) -> None:
        """Let more gather for the next group, as long as there is room and nobody waits for its end."""
        left = self._begun + self.least_apart_s - time.monotonic()
        if left > 0 and not self.next.is_full() and not self.closing:
            self._hurry.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)
        self._begun = time.monotonic()
