"""The lane of inbound records: each becomes events of customers, once everybody who may be meant is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import Lane
from streams.engine.outputs import Outputs, Writer
from streams.engine.partition import Partition
from streams.engine.records import Batch, Record

#: So many are handled before others get their turn.
CHUNK = 100
#: Pause between two looks at how far the other partitions are.
POLL_S = 0.02

Offsets = Mapping[int, int]
OffsetsOf = Callable[[Iterable[int]], Awaitable[Offsets]]


class Handler(Protocol):
    """What is done with the records of one partition: the agents' side of the lane."""

    def handle(self, records: list[Record], events: Outputs, aside: Outputs) -> None:
        """What the records cause; `aside` is written after the events, and says that they are done."""


class InboundLane(Lane):
    """Handles inbound records of all partitions, a batch at a time.

    A registration that Kafka acknowledged before a record was written must be known when the record is handled, or a
    customer's word would be lost. It takes two steps to get there: from any partition of `consent.changes` to the
    topic of identities, and from there to the table. So a batch waits until all changes that are in the log now are
    through the first step, and then for the end of its own partition of the second.
    """

    def __init__(
        self,
        handlers: Mapping[int, Handler],
        identities: Mapping[int, Partition],
        writer: Writer,
        *,
        ends_of_changes: Callable[[], Awaitable[Offsets]],
        told_of: OffsetsOf,
        ends_of_identities: OffsetsOf,
        **lane: Any,
    ) -> None:
        super().__init__("inbound", **lane)
        self._handlers = handlers
        self._identities = identities
        self._writer = writer
        self._ends_of_changes = ends_of_changes
        self._told_of = told_of
        self._ends_of_identities = ends_of_identities

    async def work(self) -> None:
        while not self.closing and (batch := self.take()) is not None:
            if not await self._everybody_is_known(batch.partition) or not await self._handle(batch):
                return

    async def _everybody_is_known(self, number: int) -> bool:
        """Wait for what was in the logs when this was called; False if the lane closes before."""
        ends = await self._ends_of_changes()
        while ends:
            told = await self._told_of(ends)
            ends = {partition: end for partition, end in ends.items() if told[partition] < end}
            if ends and not await self._pause():
                return False
        end = (await self._ends_of_identities([number]))[number]
        while self._identities[number].applied < end:
            if not await self._pause():
                return False
        return True

    async def _pause(self) -> bool:
        await asyncio.sleep(POLL_S)
        return not self.closing

    async def _handle(self, batch: Batch) -> bool:
        metrics.of(metrics.BATCH, "consent.inbound").observe(len(batch.records))
        for first in range(0, len(batch.records), CHUNK):
            events, aside = Outputs(), Outputs()
            self._handlers[batch.partition].handle(batch.records[first : first + CHUNK], events, aside)
            for outputs in (events, aside):
                if not await self.may_write():
                    return False
                await self._writer.write(outputs)
        batch.done()
        return True
