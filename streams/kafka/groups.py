"""A consumer group seen from outside: who is in it, what each member has, and how far the group came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from streams.config import Config
from streams.kafka.admin import connected, opening, plain_faults
from streams.kafka.connection import connection, stop_consumer
from streams.kafka.records import Place, TopicPartition

COORDINATOR_S = 5.0
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member: the address that it connects from, what it tells the others, and the partitions that it has."""

    host: str
    told: bytes
    assigned: frozenset[Place]


class ConsumerGroup:
    """Questions about a group and the partitions that it reads; see `consumer_group`. Topics have their full names.

    Joins nothing and writes nothing. Its methods raise what aiokafka raises.
    """

    def __init__(self, name: str, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self._name = name
        self._admin = admin
        self._consumer = consumer

    async def describe(self) -> tuple[str, tuple[GroupMember, ...]]:
        """The group's state in Kafka's word, and its members. Waits for its coordinator, COORDINATOR_S at most."""
        deadline = asyncio.get_running_loop().time() + COORDINATOR_S
        while True:
            try:
                (answer,) = await self._admin.describe_consumer_groups([self._name])
                break
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
                # The first question about any group makes the broker create the topic in which it keeps them.
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(POLL_S)
        ((_, _, state, _, _, members, *_),) = answer.groups
        return state, tuple(member(*one[2:5]) for one in members)

    async def committed(self, places: Collection[Place]) -> dict[Place, int]:
        """What the group has committed of each partition; 0 where there is nothing."""
        wanted = [TopicPartition(*place) for place in places]
        found = await self._admin.list_consumer_group_offsets(self._name, partitions=wanted)
        return {place: max(0, found[place].offset) for place in wanted}

    async def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offset of the next record to come in each partition; those of open transactions do not count."""
        found: Mapping[Place, int] = await self._consumer.end_offsets([TopicPartition(*place) for place in places])
        return found


def member(host: str, metadata: bytes, assignment: bytes) -> GroupMember:
    """A member as the group's coordinator keeps it; while it joins, without an assignment."""
    told = ConsumerProtocolMemberMetadata.decode(metadata).user_data if metadata else b""
    assigned = ConsumerProtocolMemberAssignment.decode(assignment).partitions() if assignment else []
    return GroupMember(host.lstrip("/"), told or b"", frozenset((tp.topic, tp.partition) for tp in assigned))


@asynccontextmanager
async def consumer_group(config: Config) -> AsyncIterator[ConsumerGroup]:
    """The workers' group, for one block. Raises KafkaFault, for what the block raises of aiokafka's too."""
    consumer = AIOKafkaConsumer(**connection(config), enable_auto_commit=False, isolation_level="read_committed")
    try:
        with plain_faults(config):
            async with opening(config):
                await consumer.start()
            async with connected(config) as admin:
                yield ConsumerGroup(config.group, admin, consumer)
    finally:
        await stop_consumer(consumer)
