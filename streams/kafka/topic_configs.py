"""What is set for topics themselves: read, and changed. Topics are named without prefix here.

All raise KafkaFault with one line fit for a terminal, and ask again while a broker is away, see `admin.asked`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.protocol.admin import DescribeConfigsRequest

from streams import topics
from streams.config import Config
from streams.kafka.admin import asked
from streams.kafka.faults import check
from streams.kafka.reaching import CONTROLLER

#: Kafka's number of "set for this topic", among the sources of a topic's settings.
OF_THE_TOPIC = 1
POLL_S = 0.05

#: Settings by the topic's name without prefix.
Settings = Mapping[str, Mapping[str, str]]


async def own_settings(config: Config) -> dict[str, dict[str, str]]:
    """What is set for each of our topics itself, without what it has from the brokers."""
    names = [spec.name for spec in topics.ALL]
    return await asked(config, lambda client: _own(client, config, names))


async def alter(config: Config, changes: Settings) -> None:
    """Change settings of topics, and keep the others; returns once every broker of the cluster goes by them."""
    await asked(config, lambda client: _alter(client, config, changes), CONTROLLER)


async def _alter(client: AIOKafkaAdminClient, config: Config, changes: Settings) -> None:
    # Kafka replaces all that is set for a topic at once, so what stays is given again.
    own = await _own(client, config, changes.keys())
    resources = [_resource(config, name, {**own[name], **change}) for name, change in changes.items()]
    for answer in await client.alter_configs(resources):
        for code, message, _, name in answer.resources:
            check(code, f"settings of {name} cannot be changed: {message or for_code(code).__name__}")
    # One that is away is asked again, until the cluster has taken it out.
    for broker in client._client.cluster.brokers():
        while not _has(await _own(client, config, changes.keys(), broker.nodeId), changes):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


def _has(found: Settings, wanted: Settings) -> bool:
    return all(found[name].items() >= change.items() for name, change in wanted.items())


async def _own(
    client: AIOKafkaAdminClient, config: Config, names: Collection[str], broker: int | None = None
) -> dict[str, dict[str, str]]:
    resources = [_resource(config, name) for name in names]
    _, words = client._convert_config_resources(resources, "describe")
    answer: Any = await client._send_request(DescribeConfigsRequest(words, include_synonyms=False), broker)
    found = {}
    for code, message, _, name, entries in answer.resources:
        check(code, f"settings of {name} cannot be read: {message or for_code(code).__name__}")
        own = {key: value for key, value, _, source, *_ in entries if source == OF_THE_TOPIC}
        found[name.removeprefix(config.topic_prefix)] = own
    return found


def _resource(config: Config, name: str, settings: Mapping[str, str] | None = None) -> ConfigResource:
    return ConfigResource(ConfigResourceType.TOPIC, config.topic(name), configs=settings and dict(settings))
