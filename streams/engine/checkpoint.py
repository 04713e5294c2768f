"""The checkpoint of a batch of changes. Its order is the guarantee."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from streams import metrics
from streams.engine.lane import Lane
from streams.engine.outputs import Outputs, Writer
from streams.engine.partition import Partition, View
from streams.engine.records import Record

#: A checkpoint ends early at this size of its changelog batch, far below the limit that only one huge state may reach.
CHANGELOG_SOFT_BYTES = 4 << 20

Apply = Callable[[View, Record, Outputs], None]
KeysOf = Callable[[list[Record]], list[bytes]]
Checkpointed = Callable[[], None]


class ChangesLane(Lane):
    """Applies a partition's changes in checkpoints of five steps:

    1. read the states of the records' keys in one multi-get;
    2. apply each record: pure functions, no await;
    3. write outputs, then the changelog (states and position in one record batch), each acknowledged before the next;
    4. write states, position and changelog offset to the store, atomically;
    5. ack the batch; the commit follows.

    What is in the changelog has all its outputs in their topics. So after a crash the position in the state says which
    records are done, and what the one unfinished checkpoint already wrote is found at its topics' ends and is not
    repeated. Any failure ends the process before step 5.
    """

    def __init__(
        self,
        partition: Partition,
        writer: Writer,
        changelog: str,
        most_records: int,
        apply: Apply,
        keys_of: KeysOf,
        checkpointed: Checkpointed,
        **lane: Any,
    ) -> None:
        super().__init__(f"changes-{partition.number}", **lane)
        self._partition = partition
        self._writer = writer
        self._changelog = changelog
        self._most_records = most_records
        self._apply = apply
        self._keys_of = keys_of
        self._checkpointed = checkpointed

    async def work(self) -> None:
        batch = self.take()
        if batch is None:
            return
        started = time.monotonic()
        todo = batch.records
        if todo and todo[0].offset < self._partition.applied:
            todo = [record for record in todo if record.offset >= self._partition.applied]
        at = 0
        while at < len(todo):
            if self.closing:
                return
            at += await self._checkpoint(todo[at : at + self._most_records])
        self._partition.advance(batch.next_offset)
        count = len(batch.records)
        batch.done()
        _observe("total", started)
        metrics.BATCH.labels("consent.changes").observe(count)
        metrics.CHECKPOINT_AT.labels(self._partition.number).set_to_current_time()

    async def _checkpoint(self, records: list[Record]) -> int:
        """One checkpoint over as many of the records as fit; returns how many."""
        at = time.monotonic()
        view = View(self._partition, self._keys_of(records))
        at = _observe("read", at)
        outputs = Outputs()
        done = 0
        for record in records:
            self._apply(view, record, outputs)
            view.applied = record.offset + 1
            done += 1
            if view.size >= CHANGELOG_SOFT_BYTES:
                break
        at = _observe("apply", at)
        if not await self.may_write():
            return 0
        await self._writer.write(outputs)
        at = _observe("outputs", at)
        changed = view.changed()
        if not await self.may_write():
            return 0
        offset = await self._writer.write_atomically(self._changelog, self._partition.number, changed)
        self._partition.check_alone(offset - len(changed))
        at = _observe("changelog", at)
        self._partition.commit(view, offset)
        self._checkpointed()
        _observe("store", at)
        # Other lanes and the consumer get their turn even when every acknowledgement was there at once.
        await asyncio.sleep(0)
        return done


def _observe(step: str, since: float) -> float:
    now = time.monotonic()
    metrics.STEP.labels("consent.changes", step).observe(now - since)
    return now

