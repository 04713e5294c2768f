"""Copying `consent.changes` into a topic with another number of partitions: each record once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from streams import topics
from streams.config import Config
from streams.kafka.client import Reader
from streams.kafka.copier import Copier, copier
from streams.kafka.records import Record

from ..root import Failure
from .making import make_topics
from .placing import Placing
from .reading import ends_of

#: So many records are copied in one transaction.
TRANSACTION_RECORDS = 5_000
#: Settings are written to all partitions in one transaction, whose end is seen in each within moments.
HELD_S = 20.0
POLL_S = 0.1


class Copying:
    """A copy under way. Records, and how far the old topic is copied, are committed in the same transactions."""

    def __init__(self, old: Config, new: Config, copier: Copier, tell: Callable[[str], None]) -> None:
        self._new = new
        self._tell = tell
        self._copier = copier
        self._topic = new.topic(topics.CHANGES.name)
        self._placing = Placing(old.partitions, new.partitions, old.max_record_bytes)
        self._committed: Mapping[int, int] = {}
        self.copied = 0

    @property
    def left_out(self) -> dict[str, int]:
        """Records that are not copied, by what they are."""
        return {name: self._placing.left_out[name] for name in ("misrouted", "unsendable")}

    @property
    def positions(self) -> dict[int, int]:
        """Up to where each old partition is copied."""
        return dict(self._committed)

    async def prepare(self) -> None:
        """Go on where the last run stopped. Raises Failure if the new topic has what is not of this copy."""
        found = await self._copier.committed()
        if found is None:
            if any((await ends_of(self._new, topics.CHANGES)).values()):
                raise Failure(f"{self._topic} has records that are not of this copy: choose another --to-prefix")
            await self._commit(await self._copier.begins())
        else:
            self._committed = found
            # Settings are in every partition.
            async with Reader(self._new, self._topic, [0]) as reader:
                async for bundle in reader.bundles(follow=False):
                    for r in bundle:
                        self._placing.know(Record(r.offset, r.timestamp, r.key, r.value, r.headers))
        self._copier.start_at(self._committed)

    async def catch_up(self) -> None:
        """Copy all that the old topic has now. Raises Failure if some of it may not be copied yet, and never may."""
        patience: float | None = None
        clock = asyncio.get_running_loop().time
        while True:
            ends = await self._copier.ends()
            async for partition, record in self._copier.until(ends):
                for number, placed in self._placing.put(partition, record):
                    await self._copier.send(number, placed)
                if self._copier.pending >= TRANSACTION_RECORDS and not self._placing.held:
                    await self._commit(self._copier.positions)
            if not self._placing.held:
                break
            patience = patience or clock() + HELD_S
            if clock() > patience:
                raise Failure(f"{self._placing.held}; customers were weighed under different ones, which is not copied")
            await asyncio.sleep(POLL_S)
        if self._copier.positions != self._committed:
            await self._commit(self._copier.positions)

    async def _commit(self, positions: Mapping[int, int]) -> None:
        self.copied += await self._copier.commit(positions)
        self._committed = dict(positions)
        self._tell(f"{self.copied} records copied")

    async def confirm(self) -> None:
        """Raises KafkaFault if another run has taken this one's place."""
        await self._commit(self._committed)


@asynccontextmanager
async def copying(old: Config, new: Config, tell: Callable[[str], None]) -> AsyncIterator[Copying]:
    """A copy of the old topic into the new one, which is made first, ready to `catch_up`.

    It takes the place of any other that is under way, which ends with its next transaction.
    """
    async with copier(old, new, topics.CHANGES) as clients:
        found = Copying(old, new, clients, tell)
        await make_topics(old, new)
        await found.prepare()
        yield found
