"""Inputs that take nothing as long as nobody may write to an installation, by the settings of their topics."""

from __future__ import annotations

from collections.abc import Iterable

from streams import topics
from streams.config import Config
from streams.kafka.topic_configs import alter, own_settings
from streams.topics import TopicSpec

LARGEST, CLOSED = "max.message.bytes", str(topics.CLOSED_BYTES)


async def close_inputs(config: Config, specs: Iterable[TopicSpec] = topics.INPUTS) -> None:
    """Let nothing into these topics any more: whoever writes is told, and nothing of it is acknowledged."""
    await alter(config, {spec.name: {LARGEST: CLOSED} for spec in specs})


async def open_inputs(config: Config) -> None:
    """Take records again, of the size that `streams/topics.py` has."""
    shut = await closed_inputs(config)
    if shut:
        await alter(config, {spec.name: {LARGEST: spec.config[LARGEST]} for spec in shut})


async def closed_inputs(config: Config) -> list[TopicSpec]:
    """Those of the inputs that are closed."""
    own = await own_settings(config)
    return [spec for spec in topics.INPUTS if own[spec.name].get(LARGEST) == CLOSED]
