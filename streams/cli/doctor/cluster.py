"""What Kafka says of a deployment, asked without writing anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from streams import topics
from streams.config import Config
from streams.kafka.admin import Cluster, describe, readable_configs_of
from streams.kafka.client import Reader
from streams.kafka.groups import GroupMember, consumer_group
from streams.kafka.records import Place
from streams.kafka.release import release_of

#: Partitions that have work are looked at again so often, and at least so long, before they are called stuck.
LOOK_S, STUCK_S = 0.5, 5.0
#: So many of a partition's newest records are read to learn their time; transaction markers are among them.
NEWEST = 3
READ_S = 3.0


@dataclass(frozen=True, slots=True)
class Member:
    """One worker of the group: where it connects from, its URL for other workers, its partitions."""

    host: str
    url: str
    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group: `lag` of each partition that a worker reads, `stuck` where nothing moved meanwhile."""

    state: str
    members: tuple[Member, ...]
    lag: Mapping[Place, int]
    stuck: frozenset[Place]


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it; `configs` of a topic are None where Kafka denies them.

    `group` and `newest_ms`, the broker's time of the newest change, need the topics of the inputs.
    """

    release: str
    cluster: Cluster
    configs: Mapping[str, Mapping[str, str] | None]
    group: Group | None
    newest_ms: int | None


async def look(config: Config) -> Seen:
    """Ask Kafka everything. Raises KafkaFault."""
    cluster = await describe(config)
    configs = await readable_configs_of(config, cluster.topics.values())
    release = await release_of(config)
    if topics.CHANGES.name not in cluster.topics:
        return Seen(release, cluster, configs, None, None)
    newest = await _newest_ms(config)
    group = await _group(config, [
        (cluster.topics[spec.name].name, number)
        for spec in topics.SOURCES
        if spec.name in cluster.topics
        for number in range(cluster.topics[spec.name].partitions)
    ])  # fmt: skip
    return Seen(release, cluster, configs, group, newest)


async def _newest_ms(config: Config) -> int | None:
    newest: int | None = None
    async with Reader(config, config.topic(topics.CHANGES.name)) as reader:
        begins, ends = await reader.begins(), await reader.ends()
        start = {number: max(begins[number], ends[number] - NEWEST) for number in ends}
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                async for records in reader.bundles(start, follow=False):
                    newest = max(newest or 0, *(record.timestamp for record in records))
    return newest


async def _group(config: Config, places: list[Place]) -> Group:
    async with consumer_group(config) as group:
        state, members = await group.describe()
        first = await group.committed(places)
        lag = _behind(first, await group.ends(places))
        stuck = set(lag)
        deadline = asyncio.get_running_loop().time() + STUCK_S
        while stuck and members and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_S)
            now = await group.committed(places)
            lag = _behind(now, await group.ends(places))
            stuck = {place for place in stuck if place in lag and now[place] == first[place]}
    cut = len(config.topic_prefix)
    return Group(
        state, tuple(_member(config, one) for one in members),
        {(topic[cut:], number): records for (topic, number), records in lag.items()},
        frozenset((topic[cut:], number) for topic, number in stuck if members),
    )  # fmt: skip


def _behind(committed: Mapping[Place, int], ends: Mapping[Place, int]) -> dict[Place, int]:
    return {place: end - committed[place] for place, end in ends.items() if end > committed[place]}


def _member(config: Config, member: GroupMember) -> Member:
    changes = config.topic(topics.CHANGES.name)
    url = str(json.loads(member.told).get("url", "")) if member.told else ""
    return Member(member.host, url, frozenset(number for topic, number in member.assigned if topic == changes))
