"""Writing and reading topics from a command: a producer that partitions as Java does, and a reader without a group.

Topics are named in full here (`config.topic(...)`). Everything raises KafkaFault with one line fit for a terminal.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from streams.config import Config
from streams.domain.keys import partition_of
from streams.kafka.admin import CONNECT_S, KafkaFault, opening, partitions_of, plain_faults
from streams.kafka.connection import connection, stop_consumer
from streams.topics import INPUT_BYTES

ACK_S = 20.0  # an acknowledgement takes milliseconds; by then the broker has gone
STALL_S = 20.0  # the same for a reader that has not reached the end and gets nothing
STOP_S = 3.0  # closing flushes, which never ends without a broker
LINGER_MS = 5  # batches form while a file is read; a lone record hardly waits
FETCH_WAIT_MS = 200  # what one getmany waits for records
TRANSACTION_MS = 10_000  # a command killed inside one holds up readers for this long
Header = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Sent:
    """Where an acknowledged record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read; `timestamp` is Kafka's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]

    def header(self, name: str) -> str | None:
        """The last header of this name, as text."""
        found = [value for key, value in self.headers if key == name]
        return (found[-1] or b"").decode(errors="replace") if found else None


class Producer:
    """An idempotent producer (acks=all); an async context manager. Records of one key keep the order of `send`."""

    def __init__(self, config: Config, transactional_id: str | None = None) -> None:
        self._config = config
        self._transactional_id = transactional_id
        self._partitions: dict[str, int] = {}
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Producer:
        self._producer = AIOKafkaProducer(
            **connection(self._config),
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_request_size=INPUT_BYTES,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=TRANSACTION_MS,
        )
        try:
            async with opening(self._config):
                await self._producer.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._producer.stop()

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic really has. Raises TopicMissing."""
        if topic not in self._partitions:
            self._partitions[topic] = await partitions_of(self._config, topic)
        return self._partitions[topic]

    async def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        *,
        headers: Sequence[Header] = (),
        partition: int | None = None,
    ) -> asyncio.Future[Sent]:
        """Hand over one record; the future becomes its position. Waits only while the producer's buffer is full.

        :param partition: None is the key's home partition.
        """
        count = await self.partitions(topic)
        home = partition_of(key, count) if partition is None else partition
        with plain_faults(self._config):
            pending = await self._producer.send(topic, value, key, home, headers=list(headers))
        return asyncio.ensure_future(self._acknowledged(pending))

    async def _acknowledged(self, pending: asyncio.Future[object]) -> Sent:
        with plain_faults(self._config):
            async with asyncio.timeout(ACK_S):
                meta = await pending
        return Sent(meta.topic, meta.partition, meta.offset)  # type: ignore[attr-defined]

    async def send_everywhere(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[Header] = ()
    ) -> list[Sent]:
        """One record to every partition of the topic, in one transaction; needs a transactional id."""
        count = await self.partitions(topic)
        with plain_faults(self._config):
            try:
                async with asyncio.timeout(ACK_S):
                    await self._producer.begin_transaction()
                    pending = [
                        await self._producer.send(topic, value, key, partition, headers=list(headers))
                        for partition in range(count)
                    ]
                    metas = await asyncio.gather(*pending)
                    await self._producer.commit_transaction()
            except BaseException:
                await self._abort()
                raise
        return [Sent(meta.topic, meta.partition, meta.offset) for meta in metas]

    async def _abort(self) -> None:
        # Without a broker this never ends; the broker aborts by itself after TRANSACTION_MS.
        with suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(STOP_S):
                await self._producer.abort_transaction()


async def send_settings(
    config: Config, topic: str, org_id: int, key: bytes, value: bytes, headers: Sequence[Header] = ()
) -> list[Sent]:
    """Write an org's `settings.changed` to every partition in one transaction; one writer per org at a time."""
    async with Producer(config, config.settings_writer(org_id)) as producer:
        return await producer.send_everywhere(topic, key, value, headers)


class Reader:
    """Reads partitions of one topic, committed records only; an async context manager.

    :param partitions: None is all of them.
    """

    def __init__(self, config: Config, topic: str, partitions: Collection[int] | None = None) -> None:
        self._config = config
        self._topic = topic
        self._wanted = partitions
        self._assigned: list[TopicPartition] = []
        self._consumer: AIOKafkaConsumer

    async def __aenter__(self) -> Reader:
        count = await partitions_of(self._config, self._topic)
        wanted = range(count) if self._wanted is None else self._wanted
        if not set(wanted) <= set(range(count)):
            raise KafkaFault(f"topic {self._topic} has only {count} partitions: see `consent-streams topics check`")
        self._assigned = [TopicPartition(self._topic, partition) for partition in sorted(wanted)]
        self._consumer = AIOKafkaConsumer(
            **connection(self._config),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            request_timeout_ms=int(CONNECT_S * 1000),
        )
        try:
            async with opening(self._config):
                await self._consumer.start()
        except BaseException:
            await self._close()
            raise
        self._consumer.assign(self._assigned)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await stop_consumer(self._consumer)

    async def begins(self) -> dict[int, int]:
        """The first offset that is still there, by partition."""
        with plain_faults(self._config):
            found = await self._consumer.beginning_offsets(self._assigned)
        return {tp.partition: offset for tp, offset in found.items()}

    async def ends(self) -> dict[int, int]:
        """The offset of the next record to come, by partition; records of open transactions do not count."""
        with plain_faults(self._config):
            found = await self._consumer.end_offsets(self._assigned)
        return {tp.partition: offset for tp, offset in found.items()}

    async def bundles(self, start: Mapping[int, int] | None = None, *, follow: bool) -> AsyncIterator[list[Record]]:
        """Records in bundles, each ordered by time without changing the order within a partition.

        :param start: offset by partition; None is the beginning.
        :param follow: go on for ever; otherwise stop at what was the end at the first call.
        """
        first = await self.begins() if start is None else start
        ends = await self.ends()
        for tp in self._assigned:
            self._consumer.seek(tp, first[tp.partition])
        loop = asyncio.get_running_loop()
        last_progress = loop.time()
        left = {tp for tp in self._assigned if first[tp.partition] < ends[tp.partition]}
        while follow or left:
            with plain_faults(self._config):
                fetched = await self._consumer.getmany(timeout_ms=FETCH_WAIT_MS)
            if fetched:
                last_progress = loop.time()
                bundle = _merge(fetched, None if follow else ends)
                if bundle:
                    yield bundle
            for tp in list(left):
                # Not "last record + 1": a log may end in transaction markers or records that compaction removed.
                if await self._consumer.position(tp) >= ends[tp.partition]:
                    left.discard(tp)
            if not follow and loop.time() - last_progress > STALL_S:
                raise KafkaFault(f"Kafka at {self._config.bootstrap_servers} stopped answering")


async def all_records(config: Config, topic: str, partitions: Iterable[int]) -> AsyncIterator[tuple[int, list[Any]]]:
    """Everything that these partitions hold at the first call, aborted transactions included; partition and records.

    Records of a partition come in their order. Waits until every end of then is reached; raises what aiokafka raises.
    """
    consumer = AIOKafkaConsumer(**connection(config), enable_auto_commit=False, auto_offset_reset="earliest")
    tps = [TopicPartition(topic, number) for number in partitions]
    await consumer.start()
    try:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        left = {tp for tp in tps if ends[tp]}
        while left:
            for tp, records in (await consumer.getmany(*left, timeout_ms=FETCH_WAIT_MS)).items():
                yield tp.partition, records
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await stop_consumer(consumer)


def _merge(fetched: Mapping[TopicPartition, Sequence[object]], ends: Mapping[int, int] | None) -> list[Record]:
    def converted(messages: Sequence[object]) -> list[Record]:
        records = [_record(message) for message in messages]
        return [record for record in records if ends is None or record.offset < ends[record.partition]]

    return list(heapq.merge(*map(converted, fetched.values()), key=lambda record: record.timestamp))


def _record(message: object) -> Record:
    m = message
    return Record(m.topic, m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)  # type: ignore[attr-defined]
