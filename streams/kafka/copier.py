"""From one topic into another: what is written, and how far the first is read, are committed in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.config import Config
from streams.kafka.client import STOP_S, know, started_consumer, started_producer, stopped
from streams.kafka.connection import stop_consumer
from streams.kafka.errors import KafkaError
from streams.kafka.faults import plain_faults
from streams.kafka.merging import Merged
from streams.kafka.patience import patience_s
from streams.kafka.reaching import persistently
from streams.kafka.records import Record, TopicPartition
from streams.topics import TopicSpec

Clients = tuple[AIOKafkaProducer, AIOKafkaConsumer]

#: A copy that is killed inside of a transaction holds up the new topic's readers for this long, or until its next run.
TRANSACTION_MS = 60_000


class Copier:
    """Reads the committed records of one topic, and writes to another, exactly once; see `copier`.

    Positions are by partition of the topic that is read. Its methods raise what aiokafka raises.
    """

    def __init__(self, source: str, partitions: int, target: str, name: str, clients: Clients) -> None:
        self._producer, self._consumer = clients
        self._tps = [TopicPartition(source, number) for number in range(partitions)]
        self._target = target
        self._name = name
        self._merged: Merged
        self._sent: list[asyncio.Future[Any]] = []
        self._open = False

    async def committed(self) -> dict[int, int] | None:
        """Up to where earlier copies came; None if there was none, or if Kafka has forgotten it."""
        found = {tp.partition: await persistently(partial(self._consumer.committed, tp)) for tp in self._tps}
        return None if None in found.values() else found

    async def begins(self) -> dict[int, int]:
        """The first offsets that are still there."""
        return await self._offsets(self._consumer.beginning_offsets)

    async def ends(self) -> dict[int, int]:
        """The offsets of the next records to come; those of open transactions do not count."""
        return await self._offsets(self._consumer.end_offsets)

    async def _offsets(self, ask: Callable[[list[TopicPartition]], Awaitable[Any]]) -> dict[int, int]:
        return {tp.partition: offset for tp, offset in (await persistently(lambda: ask(self._tps))).items()}

    def start_at(self, positions: Mapping[int, int]) -> None:
        """From where to read. To be called once, before `until`."""
        self._consumer.assign(self._tps)
        for tp in self._tps:
            self._consumer.seek(tp, positions[tp.partition])
        self._merged = Merged(self._consumer, {tp: positions[tp.partition] for tp in self._tps})

    def until(self, ends: Mapping[int, int]) -> AsyncIterator[tuple[int, Record]]:
        """Partition and record, of all below these ends, in the order of `Merged`; a few beyond may come too."""
        return self._merged.until({tp: ends[tp.partition] for tp in self._tps})

    @property
    def positions(self) -> dict[int, int]:
        """Every record below was given out by `until`."""
        return {tp.partition: offset for tp, offset in self._merged.positions.items()}

    @property
    def pending(self) -> int:
        """How many records were sent in the transaction that is open."""
        return len(self._sent)

    async def send(self, partition: int, record: Record) -> None:
        """Write a record, with its time, in the transaction that is open, which begins with its first record.

        Records of a partition keep the order of `send`. Waits while the producer's buffer is full.
        """
        await self._begin()
        sent = await self._producer.send(
            self._target, record.value, record.key, partition, max(0, record.timestamp), list(record.headers)
        )
        self._sent.append(sent)

    async def commit(self, positions: Mapping[int, int]) -> int:
        """Commit what was sent, and that all below these positions is copied; how many records those are.

        Raises ProducerFenced if another copier of the same name took this one's place, TimeoutError if Kafka does not
        answer for `patience_s`: then the next copier finds out whether it is committed.
        """
        async with asyncio.timeout(patience_s()):
            await self._begin()
            await asyncio.gather(*self._sent)
            offsets = {tp: positions[tp.partition] for tp in self._tps}
            await self._producer.send_offsets_to_transaction(offsets, self._name)
            await self._producer.commit_transaction()
        self._open = False
        count = len(self._sent)
        self._sent.clear()
        return count

    async def give_up(self) -> None:
        """Abort the transaction that is open, for STOP_S at most: a broker that is away aborts it later by itself."""
        if self._open:
            # A producer that was fenced may not even abort, which aiokafka asserts.
            with suppress(TimeoutError, KafkaError, AssertionError):
                async with asyncio.timeout(STOP_S):
                    await self._producer.abort_transaction()

    async def _begin(self) -> None:
        if not self._open:
            await know(self._producer, self._target)
            await self._producer.begin_transaction()
            self._open = True


@asynccontextmanager
async def copier(old: Config, new: Config, spec: TopicSpec) -> AsyncIterator[Copier]:
    """A copier of the old installation's topic into the new one's, for one block. It needs them only when it is used.

    It takes the place of any other of the same `new`, which is refused with its next transaction. What is not
    committed at the block's end is given up. Raises KafkaFault, for what the block raises of aiokafka's too.
    """
    async with AsyncExitStack() as stack:
        with plain_faults(new):
            producer = await persistently(partial(started_producer, new, new.copier, TRANSACTION_MS))
            stack.push_async_callback(lambda: stopped(producer.stop()))
            # A record that is gone must not be skipped in silence.
            reading = {"group_id": new.copier, "auto_offset_reset": "none", "isolation_level": "read_committed"}
            consumer = await persistently(partial(started_consumer, old, **reading))
            stack.push_async_callback(lambda: stopped(stop_consumer(consumer)))
            found = Copier(old.topic(spec.name), old.partitions, new.topic(spec.name), new.copier, (producer, consumer))
            stack.push_async_callback(found.give_up)
            yield found
