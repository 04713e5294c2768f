"""Reading logs, with clients that are stopped when it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.config import Config
from streams.kafka.connection import connection, stop_consumer
from streams.kafka.log_reader import LogReader, log_reader
from streams.topics import TopicSpec


@asynccontextmanager
async def reading(config: Config) -> AsyncIterator[LogReader]:
    """A reader that is stopped at the block's end."""
    async with log_reader(config) as reader:
        yield reader


async def ends_of(config: Config, spec: TopicSpec) -> Mapping[int, int]:
    """Where each partition of a topic ends."""
    async with reading(config) as reader:
        return await reader.ends(config.topic(spec.name), range(config.partitions))


async def records_of(config: Config, spec: TopicSpec) -> AsyncIterator[tuple[int, list[Any]]]:
    """Everything that a topic holds now, by partition, the records of each in their order."""
    consumer = AIOKafkaConsumer(**connection(config), enable_auto_commit=False, auto_offset_reset="earliest")
    tps = [TopicPartition(config.topic(spec.name), number) for number in range(config.partitions)]
    await consumer.start()
    try:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        left = {tp for tp in tps if ends[tp]}
        while left:
            for tp, records in (await consumer.getmany(*left, timeout_ms=50)).items():
                yield tp.partition, records
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await stop_consumer(consumer)
