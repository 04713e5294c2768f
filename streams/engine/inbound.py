"""The lane of inbound records: each becomes events of customers, once everybody who may be meant is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from streams import metrics
from streams.engine.lane import Lane
from streams.engine.outputs import Outputs, Writer
from streams.engine.records import Batch
from streams.kafka.records import Record

#: So many records are handled before others get their turn, and so many batches share a look at who is known.
CHUNK = 100

#: Waits until everybody is known who was registered when it was called, as far as these partitions of the identities
#: are concerned; False once the given function says to stop.
Known = Callable[[Iterable[int], Callable[[], bool]], Awaitable[bool]]


class Handler(Protocol):
    """What is done with the records of one partition: the agents' side of the lane."""

    def handle(self, records: list[Record], events: Outputs, aside: Outputs) -> None:
        """What the records cause; `aside` is written after the events, and says that they are done."""


class InboundLane(Lane):
    """Handles inbound records of all partitions, whatever waits at a time.

    A registration that Kafka acknowledged before a record was written must be known when the record is handled, or a
    customer's word would be lost.
    """

    def __init__(self, handlers: Mapping[int, Handler], writer: Writer, *, known: Known, **lane: Any) -> None:
        super().__init__("consent.inbound", **lane)
        self._handlers = handlers
        self._writer = writer
        self._known = known

    async def work(self) -> None:
        while not self.closing and (waiting := self._waiting_now()):
            # They share one look, which takes as long as a registration's way to the table: people's words come one by
            # one, in batches of hardly a record each.
            numbers = {batch.partition for batch in waiting}
            if not await self._known(numbers, lambda: self.closing):
                return
            for batch in waiting:
                if not await self._handle(batch):
                    return

    def _waiting_now(self) -> list[Batch]:
        found: list[Batch] = []
        while len(found) < CHUNK and (batch := self.take()) is not None:
            found.append(batch)
        return found

    async def _handle(self, batch: Batch) -> bool:
        metrics.of(metrics.BATCH, self.name).observe(len(batch.records))
        for first in range(0, len(batch.records), CHUNK):
            events, aside = Outputs(), Outputs()
            self._handlers[batch.partition].handle(batch.records[first : first + CHUNK], events, aside)
            for outputs in (events, aside):
                if not await self.may_write():
                    return False
                await self._writer.write(outputs)
        batch.done()
        return True
