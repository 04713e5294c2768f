"""The checkpoint of changes. Its order is the guarantee."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import Lane
from streams.engine.outputs import Outputs, Writer
from streams.engine.partition import Partition, View
from streams.engine.records import Batch, Record

#: A checkpoint ends early at this size of a changelog batch, far below the limit that only one huge state may reach.
CHANGELOG_SOFT_BYTES = 4 << 20


class Applier(Protocol):
    """What is done with the changes of one partition: the agents' side of a checkpoint."""

    def keys_of(self, records: list[Record]) -> list[bytes]:
        """The keys whose states these records need."""

    def apply(self, view: View, record: Record, out: Outputs) -> None:
        """Apply one record to the view, and add what it causes."""

    def checkpointed(self) -> None:
        """Everything applied so far is in force for good."""


class ChangesLane(Lane):
    """Applies changes in checkpoints of five steps, over all partitions that have some:

    1. read the states of the records' keys, in one multi-get per partition;
    2. apply each record: pure functions, no await; requests are decided on the new states from here on;
    3. write outputs, then the changelog (a partition's states and position in one record batch), each acknowledged
       before the next;
    4. write states, position and changelog offset to the store, atomically;
    5. ack the batches; the commit follows.

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

    async def work(self) -> None:
        started = time.monotonic()
        batches, todo = self._take_in()
        while any(todo.values()):
            if self.closing or not await self._checkpoint(todo):
                return
        for batch in batches:
            partition, _ = self._partitions[batch.partition]
            # Behind the last record there may be transaction markers.
            partition.advance(batch.next_offset)
            batch.done()
            metrics.CHECKPOINT_AT.labels(batch.partition).set_to_current_time()
        if batches:
            _observe("total", started)
        if self._waiting:
            self.wake()

    def _take_in(self) -> tuple[list[Batch], dict[int, list[Record]]]:
        """Waiting batches, enough for one checkpoint, and their records that are not in the state yet."""
        batches: list[Batch] = []
        todo: dict[int, list[Record]] = {}
        count = 0
        while count < self._most_records and (batch := self.take()) is not None:
            batches.append(batch)
            records = batch.records
            metrics.BATCH.labels("consent.changes").observe(len(records))
            applied = self._partitions[batch.partition][0].applied
            if records and records[0].offset < applied:
                records = [record for record in records if record.offset >= applied]
            todo.setdefault(batch.partition, []).extend(records)
            count += len(records)
        return batches, todo

    async def _checkpoint(self, todo: dict[int, list[Record]]) -> bool:
        """One checkpoint over as many of the records as fit, which are taken out; False if the lane must close."""
        outputs = Outputs()
        views = await self._apply(todo, outputs)
        at = time.monotonic()
        if not await self.may_write():
            return False
        await self._writer.write(outputs)
        at = _observe("outputs", at)
        if not await self.may_write():
            return False
        changed = {view.partition.number: view.changed() for view in views}
        offsets = await self._writer.write_atomically(self._changelog, changed)
        at = _observe("changelog", at)
        for view in views:
            number = view.partition.number
            view.partition.check_alone(offsets[number] - 1)
            view.partition.commit(view, offsets[number] + len(changed[number]) - 1)
            self._partitions[number][1].checkpointed()
        _observe("store", at)
        return True

    async def _apply(self, todo: dict[int, list[Record]], outputs: Outputs) -> list[View]:
        """Steps 1 and 2: each partition with records gets its share of the checkpoint."""
        busy = [number for number, records in todo.items() if records]
        share = max(1, self._most_records // len(busy))
        views = []
        for number in busy:
            at = time.monotonic()
            partition, applier = self._partitions[number]
            records = todo[number][:share]
            view = View(partition, applier.keys_of(records))
            at = _observe("read", at)
            done = 0
            for record in records:
                applier.apply(view, record, outputs)
                view.applied = record.offset + 1
                done += 1
                if view.size >= CHANGELOG_SOFT_BYTES:
                    break
            del todo[number][:done]
            partition.publish(view)
            views.append(view)
            _observe("apply", at)
            # The other lane and the consumer get their turn.
            await asyncio.sleep(0)
        return views


def _observe(step: str, since: float) -> float:
    now = time.monotonic()
    metrics.STEP.labels("consent.changes", step).observe(now - since)
    return now
