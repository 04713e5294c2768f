"""What Kafka says of a deployment, asked without writing anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError
from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Schema, TaggedFields, UnsignedVarInt32

from streams import topics
from streams.config import Config
from streams.kafka.admin import Cluster, configs_of, connected, describe, opening, plain_faults
from streams.kafka.connection import connection, stop_consumer

#: Partitions that have work are looked at again so often, and at least so long, before they are called stuck.
LOOK_S, STUCK_S = 0.5, 5.0
#: So many of a partition's newest records are read to learn their time; transaction markers are among them.
NEWEST = 3
READ_S = 3.0
COORDINATOR_S = 5.0

#: `metadata.version` that a Kafka of each release brought; the protocol names no release.
_RELEASES = {7: "3.3", 8: "3.4", 11: "3.5", 14: "3.6", 19: "3.7", 20: "3.8", 21: "3.9", 25: "4.0", 27: "4.1", 29: "4.2",
             30: "4.3"}  # fmt: skip

Place = tuple[str, int]


class _ApiVersionsResponse(Response):  # type: ignore[misc]
    # aiokafka 0.14 stops at version 2; the features that a broker supports came with version 3.
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        ("versions", CompactArray(("key", Int16), ("least", Int16), ("most", Int16), ("tags", TaggedFields))),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ApiVersionsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ApiVersionsResponse
    SCHEMA = Schema(("software", CompactString()), ("version", CompactString()), ("tags", TaggedFields))

    def parse_response_header(self, read_buffer: BytesIO) -> ResponseHeader_v0:
        """This answer alone keeps the old header, so that every client can read it."""
        return ResponseHeader_v0.decode(read_buffer)


class _ApiVersionsRequest(Request[_ApiVersionsStruct]):  # type: ignore[misc]
    API_KEY = 18

    def build(self, request_struct_class: type[_ApiVersionsStruct]) -> _ApiVersionsStruct:
        return request_struct_class("consent-streams", "doctor", {})


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
    """All of it. `group` and `newest_ms`, the broker's time of the newest change, need the topics of the inputs."""

    release: str
    cluster: Cluster
    configs: Mapping[str, Mapping[str, str]]
    group: Group | None
    newest_ms: int | None


async def look(config: Config) -> Seen:
    """Ask Kafka everything. Raises KafkaFault."""
    cluster = await describe(config)
    configs = await configs_of(config, cluster.topics.values())
    async with connected(config) as admin:
        release = _release(await admin._client.send(admin._client.get_random_node(), _ApiVersionsRequest()))
    places = [
        TopicPartition(cluster.topics[spec.name].name, number)
        for spec in topics.SOURCES
        if spec.name in cluster.topics
        for number in range(cluster.topics[spec.name].partitions)
    ]
    if topics.CHANGES.name not in cluster.topics:
        return Seen(release, cluster, configs, None, None)
    changes = [place for place in places if place.topic == config.topic(topics.CHANGES.name)]
    consumer = AIOKafkaConsumer(**connection(config), enable_auto_commit=False, isolation_level="read_committed")
    try:
        with plain_faults(config):
            async with opening(config):
                await consumer.start()
            newest = await _newest_ms(consumer, changes)
            group = await _group(config, consumer, places)
    finally:
        await stop_consumer(consumer)
    return Seen(release, cluster, configs, group, newest)


def _release(answer: _ApiVersionsResponse) -> str:
    """The release by the newest `metadata.version` that the broker supports: tag 0, (name, least, most, tags) each."""
    features = BytesIO(answer.tags.get(0, b"\x01"))
    for _ in range(UnsignedVarInt32.decode(features) - 1):
        name, _least, most = CompactString().decode(features), Int16.decode(features), Int16.decode(features)
        TaggedFields.decode(features)
        if name == "metadata.version":
            known = [release for level, release in _RELEASES.items() if level <= most]
            return f"{known[-1]}{' or newer' if most > max(_RELEASES) else ''}" if known else "older than 3.3"
    return "older than 3.3, or with ZooKeeper"


async def _newest_ms(consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> int | None:
    ends = await consumer.end_offsets(places)
    begins = await consumer.beginning_offsets(places)
    left = {place for place in places if ends[place] > begins[place]}
    if not left:
        return None
    consumer.assign(left)
    for place in left:
        consumer.seek(place, max(begins[place], ends[place] - NEWEST))
    newest: int | None = None
    deadline = asyncio.get_running_loop().time() + READ_S
    while left and asyncio.get_running_loop().time() < deadline:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            newest = max(newest or 0, *(record.timestamp for record in records))
        left = {place for place in left if await consumer.position(place) < ends[place]}
    return newest


async def _group(config: Config, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> Group:
    async with connected(config) as admin:
        state, members = await _members(config, admin)
        first = await _committed(config, admin, places)
        lag = _behind(first, await consumer.end_offsets(places))
        stuck = set(lag)
        deadline = asyncio.get_running_loop().time() + STUCK_S
        while stuck and members and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_S)
            now = await _committed(config, admin, places)
            lag = _behind(now, await consumer.end_offsets(places))
            stuck = {place for place in stuck if place in lag and now[place] == first[place]}
    cut = len(config.topic_prefix)
    return Group(
        state, members,
        {(place.topic[cut:], place.partition): records for place, records in lag.items()},
        frozenset((place.topic[cut:], place.partition) for place in stuck if members),
    )  # fmt: skip


def _behind(committed: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    return {place: end - committed[place] for place, end in ends.items() if end > committed[place]}


async def _committed(
    config: Config, admin: AIOKafkaAdminClient, places: list[TopicPartition]
) -> dict[TopicPartition, int]:
    found = await admin.list_consumer_group_offsets(config.group, partitions=places)
    return {place: max(0, found[place].offset) for place in places}


async def _members(config: Config, admin: AIOKafkaAdminClient) -> tuple[str, tuple[Member, ...]]:
    deadline = asyncio.get_running_loop().time() + COORDINATOR_S
    while True:
        try:
            (answer,) = await admin.describe_consumer_groups([config.group])
            break
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            # The first question about any group makes the broker create the topic in which it keeps them.
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(LOOK_S)
    ((_, _, state, _, _, members, *_),) = answer.groups
    return state, tuple(_member(config, *member[2:5]) for member in members)


def _member(config: Config, host: str, metadata: bytes, assignment: bytes) -> Member:
    """A member as the group's coordinator keeps it; while it joins, without an assignment."""
    told = ConsumerProtocolMemberMetadata.decode(metadata).user_data if metadata else b""
    assigned = ConsumerProtocolMemberAssignment.decode(assignment).partitions() if assignment else []
    changes = config.topic(topics.CHANGES.name)
    url = str(json.loads(told).get("url", "")) if told else ""
    return Member(host.lstrip("/"), url, frozenset(tp.partition for tp in assigned if tp.topic == changes))
