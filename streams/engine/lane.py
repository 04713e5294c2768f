"""A lane: the batches of one topic's partition, one after another, beside those of other partitions."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from streams.engine.records import Batch

#: So many batches may wait in a lane before its partition is no longer fetched; fetching resumes below half.
FULL = 2
#: Pause between two looks at whether the group has heard of us again.
LEASE_POLL_S = 0.02


class Lane:
    """Runs `work()` in a task of its own. Subclasses take batches with `take` and ack each when it is done."""

    def __init__(
        self,
        name: str,
        *,
        on_error: Callable[[BaseException], None],
        pressure: Callable[[bool], None],
        lease: Callable[[], bool],
    ) -> None:
        self.name = name
        self._lease = lease
        self._on_error = on_error
        self._pressure = pressure
        self._waiting: deque[Batch] = deque()
        self._wakeup = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._busy_since: float | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    def put(self, batch: Batch) -> None:
        """Queue a batch; never blocks."""
        self._waiting.append(batch)
        self._wakeup.set()
        if len(self._waiting) >= FULL:
            self._pressure(True)

    def take(self) -> Batch | None:
        """The next batch, or None if none waits."""
        if not self._waiting:
            self._wakeup.clear()
            return None
        batch = self._waiting.popleft()
        if len(self._waiting) == FULL // 2:
            self._pressure(False)
        return batch

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
        self._wakeup.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def may_write(self) -> bool:
        """Whether the partition is surely still ours; waits for that while the group has not heard of us for too long.

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
                if not self.closing:
                    self._busy_since = time.monotonic()
                    await self.work()
                    self._busy_since = None
        except Exception as exc:
            self._on_error(exc)

    async def work(self) -> None:
        """Do what there is to do now; called again when something was put."""
        raise NotImplementedError
