"""Copying `consent.changes` into a topic with another number of partitions: each record once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from streams import topics
from streams.config import Config
from streams.kafka.admin import opening, plain_faults
from streams.kafka.client import LINGER_MS, STOP_S
from streams.kafka.connection import connection, stop_consumer
from streams.kafka.records import Record
from streams.topics import INPUT_BYTES

from ..root import Failure
from .making import make_topics
from .merging import Merged
from .placing import Placing
from .reading import reading

#: So many records are copied in one transaction.
TRANSACTION_RECORDS = 5_000
#: A copy that is killed inside of a transaction holds up the new topic's readers for this long, or until its next run.
TRANSACTION_MS = 60_000
#: Settings are written to all partitions in one transaction, whose end is seen in each within moments.
HELD_S = 20.0
POLL_S = 0.1


class Copying:
    """A copy under way. Records, and how far the old topic is copied, are committed in the same transactions."""

    def __init__(
        self,
        old: Config,
        new: Config,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        tell: Callable[[str], None],
    ) -> None:
        self._new = new
        self._tell = tell
        self._producer, self._consumer = producer, consumer
        self._tps = [TopicPartition(old.topic(topics.CHANGES.name), number) for number in range(old.partitions)]
        self._topic = new.topic(topics.CHANGES.name)
        self._placing = Placing(old.partitions, new.partitions, old.max_record_bytes)
        self._merged: Merged
        self._committed: Mapping[TopicPartition, int] = {}
        self._sent: list[asyncio.Future[Any]] = []
        self._open = False
        self.copied = 0

    @property
    def left_out(self) -> dict[str, int]:
        """Records that are not copied, by what they are."""
        return {name: self._placing.left_out[name] for name in ("misrouted", "unsendable")}

    @property
    def positions(self) -> dict[int, int]:
        """Up to where each old partition is copied."""
        return {tp.partition: offset for tp, offset in self._committed.items()}

    async def prepare(self) -> None:
        """Go on where the last run stopped. Raises Failure if the new topic has what is not of this copy."""
        found = {tp: await self._consumer.committed(tp) for tp in self._tps}
        async with reading(self._new) as reader:
            ends = await reader.ends(self._topic, range(self._new.partitions))
            if None in found.values():
                if any(ends.values()):
                    raise Failure(f"{self._topic} has records that are not of this copy: choose another --to-prefix")
                await self._begin_anew()
            else:
                self._committed = found
                async for records in reader.scan(self._topic, 0, 0, ends[0], committed=True):
                    for r in records:
                        self._placing.know(Record(r.offset, r.timestamp, r.key, r.value, r.headers))
        self._consumer.assign(self._tps)
        for tp, offset in self._committed.items():
            self._consumer.seek(tp, offset)
        self._merged = Merged(self._consumer, self._committed)

    async def _begin_anew(self) -> None:
        begins = await self._consumer.beginning_offsets(self._tps)
        await self._begin()
        await self._commit(begins)

    async def catch_up(self) -> None:
        """Copy all that the old topic has now. Raises Failure if some of it may not be copied yet, and never may."""
        patience: float | None = None
        clock = asyncio.get_running_loop().time
        while True:
            ends = await self._consumer.end_offsets(self._tps)
            async for partition, record in self._merged.until(ends):
                for number, placed in self._placing.put(partition, record):
                    await self._send(number, placed)
                if len(self._sent) >= TRANSACTION_RECORDS and not self._placing.held:
                    await self._commit(self._merged.positions)
            if not self._placing.held:
                break
            patience = patience or clock() + HELD_S
            if clock() > patience:
                raise Failure(f"{self._placing.held}; customers were weighed under different ones, which is not copied")
            await asyncio.sleep(POLL_S)
        if self._merged.positions != self._committed:
            await self._commit(self._merged.positions)

    async def _begin(self) -> None:
        if not self._open:
            await self._producer.begin_transaction()
            self._open = True

    async def _send(self, partition: int, record: Record) -> None:
        await self._begin()
        sent = await self._producer.send(
            self._topic, record.value, record.key, partition, max(0, record.timestamp), list(record.headers)
        )
        self._sent.append(sent)

    async def _commit(self, positions: Mapping[TopicPartition, int]) -> None:
        await self._begin()
        await asyncio.gather(*self._sent)
        await self._producer.send_offsets_to_transaction(dict(positions), self._new.copier)
        await self._producer.commit_transaction()
        self._open = False
        self.copied += len(self._sent)
        self._sent.clear()
        self._committed = dict(positions)
        self._tell(f"{self.copied} records copied")

    async def confirm(self) -> None:
        """Raises KafkaFault if another run has taken this one's place."""
        await self._commit(self._committed)

    async def close(self) -> None:
        """Give up what is not committed."""
        if self._open:
            # A producer that was fenced may not even abort, which aiokafka asserts.
            with suppress(TimeoutError, KafkaError, AssertionError):
                async with asyncio.timeout(STOP_S):
                    await self._producer.abort_transaction()


@asynccontextmanager
async def copying(old: Config, new: Config, tell: Callable[[str], None]) -> AsyncIterator[Copying]:
    """A copy of the old topic into the new one, which is made first, ready to `catch_up`.

    It takes the place of any other that is under way, which ends with its next transaction.
    """
    producer = AIOKafkaProducer(
        **connection(new),
        acks="all",
        enable_idempotence=True,
        linger_ms=LINGER_MS,
        max_request_size=INPUT_BYTES,
        transactional_id=new.copier,
        transaction_timeout_ms=TRANSACTION_MS,
    )
    consumer = AIOKafkaConsumer(
        **connection(old),
        group_id=new.copier,
        enable_auto_commit=False,
        # A record that is gone must not be skipped in silence.
        auto_offset_reset="none",
        isolation_level="read_committed",
    )
    try:
        async with opening(new):
            await producer.start()
            await consumer.start()
        found = Copying(old, new, producer, consumer, tell)
        try:
            with plain_faults(new):
                await make_topics(old, new)
                await found.prepare()
                yield found
        finally:
            await found.close()
    finally:
        for stop in (producer.stop, partial(stop_consumer, consumer)):
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await stop()
