"""A lane: the batches of one topic, those of one partition after another, those of several together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable

from streams.engine.records import Batch

#: So many records of a partition may wait in a lane before it is no longer fetched; below half of that it is again.
#: More than one fetch brings at most, so that only a lane that cannot keep up holds anything back: a partition that was
#: held back has to wait for the next fetch request.
FULL = 4_000
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

    def put(self, batch: Batch) -> None:
        """Queue a batch; never blocks."""
        self._waiting.append(batch)
        before = self._queued[batch.partition]
        self._queued[batch.partition] = before + len(batch.records)
        if before < FULL <= self._queued[batch.partition]:
            self._pressure(batch.partition, True)
        self.wake()

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
        try:
            while not self.closing:
                await self._wakeup.wait()
                self._wakeup.clear()
                if not self.closing:
                    self._busy_since = time.monotonic()
                    await self.work()
                    self._busy_since = None
        except Exception as exc:
            self._on_error(exc)

    async def work(self) -> None:
        """Do what there is to do now; called again after `wake`, which every batch that is put brings about."""
        raise NotImplementedError
