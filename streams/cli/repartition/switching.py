"""The two ends of a change of the number of partitions: new topics that take a copy, and the switch to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from streams import admin, topics
from streams.admin import KafkaFault, connected
from streams.config import Config
from streams.engine.tail import LogReader
from streams.topics import TopicSpec

from ..root import Failure
from .comparing import States, states_of
from .copying import Copying

POLL_S = 0.5
_TIMES = "message.timestamp.type"
#: What has its times from its producer, and what has them from the broker.
_COPIED, _LIVE = "CreateTime", "LogAppendTime"
#: Kafka's number of "set for this topic", among the sources of a topic's settings.
_OF_THE_TOPIC = 1


async def make_topics(old: Config, new: Config) -> None:
    """Create the new topics, so that a copied change keeps the time that it was written at. Raises Failure.

    `occurred_in_future` compares with that time, and so does the end of what a reply can verify.
    """
    problems = await admin.check_topics(old, fatal_only=True)
    if not problems:
        await admin.create_topics(new)
        problems = await admin.check_topics(new, fatal_only=True)
    if problems:
        raise Failure("; ".join(problems))
    if await _times_of(new) == _COPIED:
        return
    if any((await _ends(new, [topics.CHANGES])).values()):
        raise Failure(f"{new.topic(topics.CHANGES.name)} is in use: choose another --to-prefix, or the switch is done")
    await _set_times(new, _COPIED)


async def drain(copying: Copying, old: Config, new: Config, tell: Callable[[str], None]) -> None:
    """Copy on until all that was written to the old installation is worked off in both, and nothing came since."""
    while True:
        left = await behind(old, topics.SOURCES)
        tell(f"{left} records left to the workers of {_name(old)}")
        if not left:
            await copying.catch_up()
            left = await behind(new, (topics.CHANGES, topics.IDENTITIES))
            tell(f"{left} records left to the workers of {_name(new)}")
            if not left and await is_complete(copying, old):
                return
        await asyncio.sleep(POLL_S)


async def is_complete(copying: Copying, old: Config) -> bool:
    """Whether the old topic ends where the copy does."""
    ends = await _ends(old, [topics.CHANGES])
    return all(copying.positions[number] >= end for (_, number), end in ends.items())


async def compare(old: Config, new: Config) -> tuple[States, list[dict[str, str]]]:
    """The old installation's states, and what differs in the new one."""
    before, after = await states_of(old), await states_of(new)
    return before, before.differences(after)


async def finish(new: Config) -> None:
    """Make the copy an installation: messages that were sent before are not sent again, and the broker sets the time.

    Whoever copied without its workers having been through has nothing to finish: see `drain`.
    """
    ends = await _ends(new, [topics.NOTIFICATIONS])
    name = new.topic(topics.NOTIFICATIONS.name)
    async with connected(new) as client:
        await client.delete_records(
            {TopicPartition(name, number): RecordsToDelete(end) for (_, number), end in ends.items() if end}
        )
    await _set_times(new, _LIVE)


async def behind(config: Config, specs: Iterable[TopicSpec]) -> int:
    """Records that the group has not worked off, markers of transactions included."""
    reader = LogReader(config)
    await reader.start()
    try:
        left = 0
        for spec in specs:
            name, numbers = config.topic(spec.name), range(config.partitions)
            ends = await reader.ends(name, numbers)
            done = await reader.committed(config.group, name, numbers)
            left += sum(max(0, ends[number] - done[number]) for number in numbers)
        return left
    finally:
        await reader.stop()


async def _ends(config: Config, specs: Iterable[TopicSpec]) -> dict[tuple[str, int], int]:
    reader = LogReader(config)
    await reader.start()
    try:
        return {
            (spec.name, number): end
            for spec in specs
            for number, end in (await reader.ends(config.topic(spec.name), range(config.partitions))).items()
        }
    finally:
        await reader.stop()


async def _times_of(config: Config) -> str:
    name = topics.CHANGES.name
    state = (await admin.describe(config)).topics[name]
    return (await admin.configs_of(config, [state]))[state.name].get(_TIMES, "")


async def _set_times(config: Config, kind: str) -> None:
    """Kafka replaces all settings of the topic's own at once, so those that it has are given again."""
    name = config.topic(topics.CHANGES.name)
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    async with connected(config) as client:
        (found,) = await client.describe_configs([resource])
        own = {key: value for key, value, _, source, *_ in found.resources[0][4] if source == _OF_THE_TOPIC}
        resource.configs = own | {_TIMES: kind}
        (answer,) = await client.alter_configs([resource])
    code, message, *_ = answer.resources[0]
    if code:
        raise KafkaFault(f"{name}: {_TIMES} cannot be set to {kind}: {message or for_code(code).__name__}")


def _name(config: Config) -> str:
    return f"prefix {config.topic_prefix!r}" if config.topic_prefix else "no prefix"
