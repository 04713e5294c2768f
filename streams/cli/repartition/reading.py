"""Reading logs, with clients that are stopped when it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from streams.config import Config
from streams.kafka.client import all_records
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


def records_of(config: Config, spec: TopicSpec) -> AsyncIterator[tuple[int, list[Any]]]:
    """Everything that a topic holds now, by partition, the records of each in their order."""
    return all_records(config, config.topic(spec.name), range(config.partitions))
