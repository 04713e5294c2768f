"""The checkpoint of changes. Its order is the guarantee."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import Lane
from streams.engine.outputs import Outputs, Writer
from streams.engine.partition import Partition, View
from streams.engine.records import Batch, Record

#: So many changes are applied in one go, about 10 ms in which nothing else happens.
APPLY_AT_ONCE = 250
#: Checkpoints begin at least so far apart unless they are full: nobody waits for one, and each costs the broker two
#: requests and the disk a write.
LEAST_APART_S = 0.02
#: A checkpoint ends early at this size of a changelog batch, far below the limit that only one huge state may reach.
CHANGELOG_SOFT_BYTES = 4 << 20


class Applier(Protocol):
    """What is done with the changes of one partition: the agents' side of a checkpoint."""

    def keys_of(self, records: list[Record]) -> list[bytes]:
        """The keys whose states these records need."""

    def apply(self, view: View, record: Record, out: Outputs) -> None:
        """Apply one record to the view, and add what it causes."""

    def checkpoint(self) -> Callable[[], None]:
        """Everything applied since the last call is being made to last; what this returns is called when it is."""


@dataclass(slots=True)
class Checkpoint:
    """What is applied and goes into the log together."""

    outputs: Outputs = field(default_factory=Outputs)
    partitions: set[int] = field(default_factory=set)
    batches: list[Batch] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    since: float = field(default_factory=time.monotonic)


class ChangesLane(Lane):
    """Applies changes, and makes them last in checkpoints of five steps, over all partitions that have some:

    1. read the states of the records' keys, in one multi-get per partition and fetch;
    2. apply each record: pure functions, no await; requests are decided on the new states from here on;
    3. write outputs, then the changelog (a partition's states and position in one record batch), each acknowledged
       before the next;
    4. write states, position and changelog offset to the store, atomically;
    5. ack the batches; the commit follows.

    While one checkpoint is in steps 3 to 5, what arrives is applied already and makes up the next.

    What is in the changelog has all its outputs in their topics. So after a crash the position in the state says which
    records are done, and what the one unfinished checkpoint already wrote is found at its topics' ends and is not
    repeated. Any failure ends the process before step 5.
    """

    def __init__(
        self,
        partitions: Mapping[int, tuple[Partition, Applier]],
        writer: Writer,
        changelog: str,
        most_records: int,
        **lane: Any,
    ) -> None:
        super().__init__("changes", **lane)
        self._partitions = partitions
        self._writer = writer
        self._changelog = changelog
        self._most_records = most_records
        self._next = Checkpoint()
        #: Set whenever a checkpoint goes into writing, and when none will any more.
        self._moved = asyncio.Event()
        #: Set when a checkpoint must not wait for more.
        self._hurry = asyncio.Event()
        self._begun = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._writing_since: float | None = None
        self._broken = False

    async def work(self) -> None:
        while (batch := self.take()) is not None:
            if not await self._apply(batch):
                return
            # The other lane and the consumer get their turn.
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop applying, and write what is applied."""
        self._closing.set()
        self._hurry.set()
        await super().close()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def busy_for(self) -> float:
        """Seconds since the oldest change that is not written yet was applied, or the work in hand began."""
        writing = 0.0 if self._writing_since is None else time.monotonic() - self._writing_since
        return max(writing, super().busy_for())

    async def _apply(self, batch: Batch) -> bool:
        """Steps 1 and 2 for a batch, in as many parts as checkpoints need; False if the lane must end."""
        metrics.of(metrics.BATCH, "consent.changes").observe(len(batch.records))
        partition, applier = self._partitions[batch.partition]
        todo = batch.records
        if todo and todo[0].offset < partition.applied:
            todo = [record for record in todo if record.offset >= partition.applied]
        while todo:
            if not await self._has_room():
                return False
            done = self._apply_some(partition, applier, todo)
            todo = todo[done:]
            await asyncio.sleep(0)
        # Behind the last record there may be transaction markers.
        partition.advance(batch.next_offset)
        self._next.batches.append(batch)
        self._start_writing()
        return True

    async def _has_room(self) -> bool:
        """Wait while the next checkpoint is full; False if the lane must end."""
        while self._is_full:
            self._moved.clear()
            self._hurry.set()
            self._start_writing()
            if self._broken or self.closing:
                return False
            await self._moved.wait()
        return True

    def _apply_some(self, partition: Partition, applier: Applier, records: list[Record]) -> int:
        """Apply records until the next checkpoint is full, or for long enough; returns how many."""
        at = time.monotonic()
        checkpoint = self._next
        records = records[: min(APPLY_AT_ONCE, self._most_records - checkpoint.records)]
        view = View(partition, applier.keys_of(records))
        at = _observe("read", at)
        done = 0
        for record in records:
            applier.apply(view, record, checkpoint.outputs)
            view.applied = record.offset + 1
            done += 1
            if checkpoint.bytes + view.size >= CHANGELOG_SOFT_BYTES:
                break
        partition.publish(view)
        checkpoint.partitions.add(partition.number)
        checkpoint.records += done
        checkpoint.bytes += view.size
        _observe("apply", at)
        return done

    def _start_writing(self) -> None:
        if self._writing is None and not self._broken:
            self._writing = asyncio.create_task(self._write_all(), name="checkpoint")

    @property
    def _is_full(self) -> bool:
        return self._next.records >= self._most_records or self._next.bytes >= CHANGELOG_SOFT_BYTES

    async def _pause(self) -> None:
        """Let changes gather for the next checkpoint, as long as there is room and nobody waits for its end."""
        left = self._begun + LEAST_APART_S - time.monotonic()
        if left > 0 and not self._is_full and not self.closing:
            self._hurry.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)
        self._begun = time.monotonic()

    async def _write_all(self) -> None:
        """Write checkpoints until nothing is left that was applied."""
        try:
            while self._next.batches or self._next.records:
                await self._pause()
                checkpoint, self._next = self._next, Checkpoint()
                self._writing_since = checkpoint.since
                self._moved.set()
                if not await self._write(checkpoint):
                    self._broken = True
                    return
        except Exception as exc:
            self._broken = True
            self._on_error(exc)
        finally:
            self._writing = self._writing_since = None
            self._moved.set()

    async def _write(self, checkpoint: Checkpoint) -> bool:
        """Steps 3 to 5; False if the partitions are not ours any more."""
        # What is applied from here on belongs to the next checkpoint.
        places = [self._partitions[number] for number in sorted(checkpoint.partitions)]
        changed = {partition.number: partition.begin_write() for partition, _ in places}
        finished = [applier.checkpoint() for _, applier in places]
        at = time.monotonic()
        if not await self.may_write():
            return False
        await self._writer.write(checkpoint.outputs)
        at = _observe("outputs", at)
        if not await self.may_write():
            return False
        offsets = await self._writer.write_atomically(self._changelog, changed)
        at = _observe("changelog", at)
        for partition, _ in places:
            first = offsets[partition.number]
            partition.check_alone(first - 1)
            partition.commit(first + len(changed[partition.number]) - 1)
        for finish in finished:
            finish()
        _observe("store", at)
        for batch in checkpoint.batches:
            batch.done()
            metrics.of(metrics.CHECKPOINT_AT, batch.partition).set_to_current_time()
        _observe("total", checkpoint.since)
        return True


def _observe(step: str, since: float) -> float:
    now = time.monotonic()
    metrics.of(metrics.STEP, "consent.changes", step).observe(now - since)
    return now
