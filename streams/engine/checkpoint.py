"""The checkpoint of a table. Its order is the guarantee."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import WritingLane
from streams.engine.outputs import Outputs, Writer
from streams.engine.partition import Partition, View
from streams.engine.records import Batch, keys_of
from streams.kafka.records import Record

#: So many changes are applied in one go, about 10 ms in which nothing else happens.
APPLY_AT_ONCE = 250
#: Checkpoints begin at least so far apart unless they are full: nobody waits for one, and each costs the broker two
#: requests and the disk a write.
LEAST_APART_S = 0.1
#: A checkpoint ends early at this size of a changelog batch, far below the limit that only one huge state may reach.
CHANGELOG_SOFT_BYTES = 4 << 20


class Applier(Protocol):
    """What is done with the changes of one partition: the agents' side of a checkpoint."""

    def apply(self, view: View, record: Record, out: Outputs) -> None:
        """Apply one record to the view, and add what it causes."""

    def checkpoint(self) -> Callable[[], None]:
        """Everything applied since the last call is being made to last; what this returns is called when it is."""


@dataclass(slots=True)
class Checkpoint:
    """What is applied and goes into the log together: at most about `most_records` changes."""

    most_records: int
    outputs: Outputs = field(default_factory=Outputs)
    partitions: set[int] = field(default_factory=set)
    batches: list[Batch] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    #: Seconds that reading states and applying changes took.
    read_s: float = 0.0
    apply_s: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def is_empty(self) -> bool:
        """Whether there is nothing to write and nothing to ack."""
        return not self.records and not self.batches

    def is_full(self) -> bool:
        """Whether it must be written before more is applied."""
        return self.records >= self.most_records or self.bytes >= CHANGELOG_SOFT_BYTES


class TableLane(WritingLane[Checkpoint]):
    """Applies the records of a table's topic, over all partitions that have some.

    It makes them last in checkpoints of five steps:

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

    least_apart_s = LEAST_APART_S

    def __init__(
        self,
        topic: str,
        partitions: Mapping[int, tuple[Partition, Applier]],
        writer: Writer,
        changelog: str,
        most_records: int,
        **lane: Any,
    ) -> None:
        super().__init__(topic, lambda: Checkpoint(most_records), **lane)
        self._partitions = partitions
        self._writer = writer
        self._changelog = changelog

    async def work(self) -> None:
        applied = 0
        while not self.closing and (batch := self.take()) is not None:
            partition, applier, todo = self._begin(batch)
            while todo:
                if not await self.has_room():
                    return
                done = self._apply_some(partition, applier, todo)
                todo = todo[done:]
                applied += done
                if applied >= APPLY_AT_ONCE:
                    # The other lane and the consumer get their turn.
                    applied = 0
                    await asyncio.sleep(0)
            self._end(partition, batch)

    def work_at_once(self) -> None:
        while not self.next.is_full() and (batch := self.take()) is not None:
            partition, applier, todo = self._begin(batch)
            if not todo or self._apply_some(partition, applier, todo) == len(todo):
                self._end(partition, batch)
            else:
                # What is applied of it is not applied again.
                self.put_back(batch)

    def _begin(self, batch: Batch) -> tuple[Partition, Applier, list[Record]]:
        """What is to do for a batch, by whom."""
        partition, applier = self._partitions[batch.partition]
        todo = batch.records
        if todo and todo[0].offset < partition.applied:
            todo = [record for record in todo if record.offset >= partition.applied]
        return partition, applier, todo

    def _end(self, partition: Partition, batch: Batch) -> None:
        # Behind the last record there may be transaction markers.
        partition.advance(batch.next_offset)
        self.next.batches.append(batch)
        self.start_writing()

    def _apply_some(self, partition: Partition, applier: Applier, records: list[Record]) -> int:
        """Apply records until the next checkpoint is full, or for long enough; returns how many."""
        began = time.monotonic()
        checkpoint = self.next
        records = records[: min(APPLY_AT_ONCE, checkpoint.most_records - checkpoint.records)]
        view = View(partition, keys_of(records))
        read = time.monotonic()
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
        checkpoint.read_s += read - began
        checkpoint.apply_s += time.monotonic() - read
        return done

    async def write(self, checkpoint: Checkpoint) -> bool:
        """Steps 3 to 5; False if the partitions are not ours any more."""
        # What is applied from here on belongs to the next checkpoint.
        places = [self._partitions[number] for number in sorted(checkpoint.partitions)]
        changed = {partition.number: partition.begin_write() for partition, _ in places}
        finished = [applier.checkpoint() for _, applier in places]
        at = time.monotonic()
        if not await self.may_write():
            return False
        await self._writer.write(checkpoint.outputs)
        at = self._observe("outputs", at)
        if not await self.may_write():
            return False
        offsets = await self._writer.write_atomically(self._changelog, changed)
        at = self._observe("changelog", at)
        for partition, _ in places:
            first = offsets[partition.number]
            partition.commit(first + len(changed[partition.number]) - 1)
        for finish in finished:
            finish()
        self._observe("store", at)
        for batch in checkpoint.batches:
            batch.done()
            partition, _ = self._partitions[batch.partition]
            partition.written = max(partition.written, batch.next_offset)
            metrics.of(metrics.CHECKPOINT_AT, batch.partition).set_to_current_time()
        metrics.of(metrics.BATCH, self.name).observe(checkpoint.records)
        metrics.of(metrics.STEP, self.name, "read").observe(checkpoint.read_s)
        metrics.of(metrics.STEP, self.name, "apply").observe(checkpoint.apply_s)
        self._observe("total", checkpoint.since)
        return True

    def _observe(self, step: str, since: float) -> float:
        now = time.monotonic()
        metrics.of(metrics.STEP, self.name, step).observe(now - since)
        return now
