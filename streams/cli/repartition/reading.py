"""Logs of an installation, and where they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from streams.config import Config
from streams.kafka import ends
from streams.kafka.client import all_records
from streams.topics import TopicSpec


async def ends_of(config: Config, spec: TopicSpec) -> Mapping[int, int]:
    """Where each partition of a topic ends."""
    return await ends.ends_of(config, config.topic(spec.name), config.partitions)


def records_of(config: Config, spec: TopicSpec) -> AsyncIterator[tuple[int, list[Any]]]:
    """Everything that a topic holds now, by partition, the records of each in their order."""
    return all_records(config, config.topic(spec.name), range(config.partitions))
