"""Writing and reading topics from a command: a producer that partitions as Java does, and a reader without a group.

Topics are named in full here (`config.topic(...)`). Everything raises KafkaFault with one line fit for a terminal, once
it has waited for brokers that are away for `patience_s`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.config import Config
from streams.domain.keys import partition_of
from streams.kafka.admin import partitions_of
from streams.kafka.connection import stop_consumer
from streams.kafka.faults import KafkaFault, plain_faults
from streams.kafka.patience import patience_s
from streams.kafka.reaching import options, persistently, steady
from streams.topics import INPUT_BYTES

STOP_S = 3.0
LINGER_MS = 5  # batches form while a file is read; a lone record hardly waits
FETCH_BYTES = 1 << 20  # one fetch brings so much: it has to be here within REQUEST_S
FETCH_WAIT_MS = 200  # what one getmany waits for records
TRANSACTION_MS = 10_000  # a command killed inside one holds up readers for this long, up to twice that
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

    def __init__(self, config: Config) -> None:
        self._config = config
        self._partitions: dict[str, int] = {}
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Producer:
        with plain_faults(self._config):
            self._producer = await persistently(lambda: started_producer(self._config))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await stopped(self._producer.stop())

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic really has. Raises TopicMissing."""
        if topic not in self._partitions:
            self._partitions[topic] = await partitions_of(self._config, topic)
            with plain_faults(self._config):
                await know(self._producer, topic)
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
            async with asyncio.timeout(patience_s()):
                meta = await pending
        return Sent(meta.topic, meta.partition, meta.offset)  # type: ignore[attr-defined]


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
        with plain_faults(self._config):
            self._consumer = await persistently(self._start)
        self._consumer.assign(self._assigned)
        return self

    async def _start(self) -> AIOKafkaConsumer:
        return await started_consumer(self._config, auto_offset_reset="earliest", isolation_level="read_committed")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await stopped(stop_consumer(self._consumer))

    async def begins(self) -> dict[int, int]:
        """The first offset that is still there, by partition."""
        with plain_faults(self._config):
            found = await persistently(lambda: self._consumer.beginning_offsets(self._assigned))
        return {tp.partition: offset for tp, offset in found.items()}

    async def ends(self) -> dict[int, int]:
        """The offset of the next record to come, by partition; records of open transactions do not count."""
        with plain_faults(self._config):
            found = await persistently(lambda: self._consumer.end_offsets(self._assigned))
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
            if not follow and loop.time() - last_progress > patience_s():
                raise KafkaFault(f"Kafka at {self._config.bootstrap_servers} stopped answering")


async def all_records(config: Config, topic: str, partitions: Iterable[int]) -> AsyncIterator[tuple[int, list[Any]]]:
    """Everything that these partitions hold at the first call, aborted transactions included; partition and records.

    Records of a partition come in their order. Waits until every end of then is reached.
    """
    loop = asyncio.get_running_loop()
    tps = [TopicPartition(topic, number) for number in partitions]
    with plain_faults(config):
        consumer = await persistently(lambda: started_consumer(config, auto_offset_reset="earliest"))
        try:
            consumer.assign(tps)
            ends = await persistently(lambda: consumer.end_offsets(tps))
            left = {tp for tp in tps if ends[tp]}
            last_progress = loop.time()
            while left:
                for tp, records in (await consumer.getmany(*left, timeout_ms=FETCH_WAIT_MS)).items():
                    last_progress = loop.time()
                    yield tp.partition, records
                left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
                if loop.time() - last_progress > patience_s():
                    raise TimeoutError
        finally:
            await stopped(stop_consumer(consumer))


async def started_producer(
    config: Config, transactional_id: str | None = None, transaction_ms: int = TRANSACTION_MS
) -> AIOKafkaProducer:
    """An idempotent producer (acks=all). What it is given is sent again until it is acknowledged, or refused.

    With a transactional id: waits until the transactions of earlier ones of that id are decided, and fences those.
    Raises KafkaFault if nobody answers, and what aiokafka raises.
    """
    producer = AIOKafkaProducer(
        **await options(config),
        acks="all",
        enable_idempotence=True,
        linger_ms=LINGER_MS,
        max_request_size=INPUT_BYTES,
        transactional_id=transactional_id,
        transaction_timeout_ms=transaction_ms,
    )
    steady(producer.client)
    # A broker that hangs is given up soon. For room in the buffer it is waited as long as for an acknowledgement.
    producer._request_timeout_ms = int(patience_s() * 1000)
    try:
        await producer.start()
    except BaseException:
        await stopped(producer.stop())
        raise
    return producer


async def know(producer: AIOKafkaProducer, topic: str) -> None:
    """Wait until a producer knows of a topic that is there, which it learns of the first broker that it asks."""
    await persistently(lambda: producer.partitions_for(topic))


async def started_consumer(config: Config, **more: Any) -> AIOKafkaConsumer:
    """A consumer that commits nothing by itself, and has no group unless `more` names one.

    Raises KafkaFault if nobody answers, and what aiokafka raises.
    """
    consumer = AIOKafkaConsumer(
        **await options(config), enable_auto_commit=False, fetch_max_bytes=FETCH_BYTES, **more
    )
    steady(consumer._client)
    try:
        await consumer.start()
    except BaseException:
        await stopped(stop_consumer(consumer))
        raise
    return consumer


async def stopped(stopping: Coroutine[Any, Any, None]) -> None:
    """Stop a client, for STOP_S at most: closing flushes, which never ends without a broker."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await stopping


def _merge(fetched: Mapping[TopicPartition, Sequence[object]], ends: Mapping[int, int] | None) -> list[Record]:
    def converted(messages: Sequence[object]) -> list[Record]:
        records = [_record(message) for message in messages]
        return [record for record in records if ends is None or record.offset < ends[record.partition]]

    return list(heapq.merge(*map(converted, fetched.values()), key=lambda record: record.timestamp))


def _record(message: object) -> Record:
    m = message
    return Record(m.topic, m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)  # type: ignore[attr-defined]
