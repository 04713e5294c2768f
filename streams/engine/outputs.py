"""Writing: ready-made batches, each acknowledgement awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerFenced, UnknownTopicOrPartitionError
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch

from streams.config import Config
from streams.engine.fencing import FencedError, Place
from streams.engine.wire import NO_HEADERS, Owner, RecordBatch, batch_of
from streams.kafka import connection, slow_down
from streams.topics import CHANGELOG_BYTES

#: A batch of outputs is closed at this size, well below what a broker accepts by default.
OUTPUT_BATCH_BYTES = 768 << 10
#: Room for a batch's own header and the last record's lengths within max.message.bytes.
BATCH_OVERHEAD = 1_024
#: A broker that is away is waited for: a batch is given up only after this long.
BATCH_PATIENCE_S = 7 * 86_400

#: A record's lengths, times and empty headers take less than this.
RECORD_OVERHEAD = 64

#: Records are numbered with 31 bits, round and round.
_LAST_NUMBER = (1 << 31) - 1

Values = Iterable[tuple[bytes, bytes | None]]
Group = list[tuple[bytes, bytes]]


class RefusedError(Exception):
    """The broker refused a record for good; nothing after it may be acknowledged."""


class Outputs:
    """Records to be written, in batches that a topic accepts, each place's in order."""

    __slots__ = ("_open", "batches")

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, int | None], RecordBatch] = {}
        #: Topic, partition and records, in the order in which they were begun.
        self.batches: list[tuple[str, int, RecordBatch]] = []

    def add(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[bytes] = NO_HEADERS,
        by: int | None = None,
    ) -> None:
        """One more record for a topic's partition; `headers` as `RecordBatch.add` takes them.

        `by` is the partition as whose owner it is written, where it goes to one that nobody owns.
        """
        place = (topic, partition, by)
        batch = self._open.get(place)
        if batch is None or not batch.add(key, value, headers):
            batch = self._open[place] = RecordBatch(OUTPUT_BATCH_BYTES)
            batch.by = by
            # A batch takes its first record whatever its size; the broker refuses what is too large.
            batch.add(key, value, headers)
            self.batches.append((topic, partition, batch))


class Numbers:
    """Numbers the records that are written under one producer id to each partition of a topic.

    The broker takes the records of an id and epoch from 0 on, in order, without a gap. So what is written under another
    id in between must not be counted, as aiokafka would.
    """

    def __init__(self, owner: Owner | None = None) -> None:
        #: None: the producer's own, which may become another one.
        self._owner = owner
        self._next: dict[tuple[Place, Owner], int] = {}

    def at(self, place: Place) -> Callable[[Owner, int], tuple[int, int, int]]:
        """Numbers batches for this place, as `RecordBatch.number`."""
        return partial(self._number, place)

    def _number(self, place: Place, own: Owner, count: int) -> tuple[int, int, int]:
        owner = self._owner or own
        first = self._next.get((place, owner), 0)
        self._next[place, owner] = (first + count) & _LAST_NUMBER
        return *owner, first


class Writer:
    """An idempotent producer (acks=all) that writes whole batches and returns when all of them are acknowledged.

    What it writes to partitions that it owns is refused once another owner has taken them: FencedError. What it writes
    elsewhere as their owner is refused there once the other owner has written there too.
    """

    def __init__(self, config: Config) -> None:
        self._producer = AIOKafkaProducer(
            **connection(config),
            client_id=f"{config.group}-writer",
            acks="all",
            enable_idempotence=True,
            max_request_size=2 * CHANGELOG_BYTES,
            linger_ms=0,
        )
        self._own = Numbers()
        self._owners: dict[int, Numbers] = {}
        self._owned: dict[Place, Numbers] = {}

    def own(self, number: int, places: Iterable[Place], owner: Owner) -> None:
        """Write to these places, and for this partition elsewhere, as the owner; nothing may be under way there."""
        self._owners[number] = Numbers(owner)
        self._owned.update(dict.fromkeys(places, self._owners[number]))

    async def start(self) -> None:
        slow_down(self._producer.client)
        await self._producer.start()
        # aiokafka has one option for the patience with a request and with a batch; we want them apart.
        self._producer._message_accumulator._batch_ttl = BATCH_PATIENCE_S

    async def stop(self) -> None:
        await self._producer.stop()

    async def write(self, outputs: Outputs) -> None:
        """Write everything. Raises RefusedError if the broker refuses any of it.

        What goes to partitions that nobody owns goes last, and not at all if another worker has taken ours.
        """
        for owned in (True, False):
            batches = [one for one in outputs.batches if (one[2].by is None) is owned]
            if batches:
                await self._write(batches)

    async def append(self, topic: str, partition: int, key: bytes, value: bytes) -> int:
        """Write one record; returns its offset. Raises RefusedError."""
        (offset,) = await self.append_each(topic, [(partition, [(key, value)])])
        return offset

    async def append_each(self, topic: str, groups: Iterable[tuple[int, Group]]) -> list[int]:
        """Write groups of records to partitions, each group in the log whole or not at all.

        Returns the offset of each group's first record. Raises RefusedError.
        """
        batches: dict[int, list[RecordBatch]] = {}
        places: list[tuple[int, int, int]] = []
        for partition, records in groups:
            own = batches.setdefault(partition, [])
            size = sum(len(key) + len(value) + RECORD_OVERHEAD for key, value in records)
            if not own or own[-1].size() + size > OUTPUT_BATCH_BYTES:
                own.append(RecordBatch(CHANGELOG_BYTES))
            places.append((partition, len(own) - 1, own[-1].record_count()))
            if not all(own[-1].add(key, value) for key, value in records):
                raise RefusedError(f"{topic}-{partition}: records of {size} bytes exceed one batch")
        handed = [(partition, at) for partition, own in batches.items() for at in range(len(own))]
        written = await self._write((topic, partition, batches[partition][at]) for partition, at in handed)
        first = {place: int(one.offset) for place, one in zip(handed, written, strict=True)}
        return [first[partition, batch] + within for partition, batch, within in places]

    async def write_atomically(self, topic: str, values: Mapping[int, Values]) -> dict[int, int]:
        """Write each partition's values in one record batch, in the log whole or not at all.

        Returns the offset of each partition's first value. Raises RefusedError.
        """
        batches = []
        for partition, pairs in values.items():
            batch = batch_of(pairs, CHANGELOG_BYTES - BATCH_OVERHEAD)
            if batch is None:
                raise RefusedError(f"{topic}-{partition}: one checkpoint's changes exceed {CHANGELOG_BYTES} bytes")
            batches.append((topic, partition, batch))
        written = await self._write(batches)
        return {partition: int(one.offset) for partition, one in zip(values, written, strict=True)}

    async def _write(self, batches: Iterable[tuple[str, int, RecordBatch]]) -> list[Any]:
        """Hand over all batches, so that they travel together, then wait for every acknowledgement."""
        pending = []
        for topic, partition, batch in batches:
            place = (topic, partition)
            numbers = self._owned.get(place, self._own) if batch.by is None else self._owners[batch.by]
            batch.number = numbers.at(place)
            pending.append((topic, await self._handed_over(topic, partition, batch)))
        return [await self._acknowledged(topic, future) for topic, future in pending]

    async def _handed_over(self, topic: str, partition: int, batch: RecordBatch) -> asyncio.Future[Any]:
        """aiokafka has less patience here than with a batch that it holds. A topic that is gone, others will notice."""
        while True:
            with suppress(KafkaTimeoutError, UnknownTopicOrPartitionError):
                future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
                return future

    async def _acknowledged(self, topic: str, future: asyncio.Future[Any]) -> Any:
        try:
            return await future
        except ProducerFenced as exc:
            raise FencedError(f"{topic}: another worker owns this partition now") from exc
        except KafkaError as exc:
            self._renew()
            raise RefusedError(f"{topic}: the broker refused a record: {exc!r}") from exc

    def _renew(self) -> None:
        """Write on under another producer id: the broker takes nothing behind a number that it did not take.

        The number cannot be given again: if the refused records are in the log all the same, others with their number
        would be taken for them.
        """
        manager = self._producer._txn_manager
        if manager.has_pid():
            manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
            manager._pid_waiter = asyncio.get_running_loop().create_future()
