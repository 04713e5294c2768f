"""A consumer group seen from outside: who is in it, what each member has, and how far the group came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import for_code

from streams.config import Config
from streams.kafka.admin import asked
from streams.kafka.client import started_consumer, stopped
from streams.kafka.connection import stop_consumer
from streams.kafka.faults import check, plain_faults
from streams.kafka.reaching import CONTROLLER, persistently
from streams.kafka.records import Place, TopicPartition


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member: the address that it connects from, what it tells the others, and the partitions that it has."""

    host: str
    told: bytes
    assigned: frozenset[Place]


class ConsumerGroup:
    """Questions about a group and the partitions that it reads; see `consumer_group`. Topics have their full names.

    Joins nothing and writes nothing. Its methods raise KafkaFault.
    """

    def __init__(self, config: Config, consumer: AIOKafkaConsumer) -> None:
        self._config = config
        self._name = config.group
        self._consumer = consumer

    async def describe(self) -> tuple[str, tuple[GroupMember, ...]]:
        """The group's state in Kafka's word, and its members. Waits for the group's coordinator."""
        answer = await asked(self._config, self._describe, CONTROLLER)
        ((_, _, state, _, _, members, *_),) = answer.groups
        return state, tuple(member(*one[2:5]) for one in members)

    async def _describe(self, admin: AIOKafkaAdminClient) -> Any:
        # The first question about any group makes the broker create the topic in which it keeps them.
        (answer,) = await admin.describe_consumer_groups([self._name])
        ((code, *_),) = answer.groups
        check(code, f"the group {self._name} cannot be described: {for_code(code).__name__}")
        return answer

    async def committed(self, places: Collection[Place]) -> dict[Place, int]:
        """What the group has committed of each partition; 0 where there is nothing."""
        return await committed(self._config, places)

    async def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offset of the next record to come in each partition; those of open transactions do not count."""
        wanted = [TopicPartition(*place) for place in places]
        with plain_faults(self._config):
            found: Mapping[Place, int] = await persistently(lambda: self._consumer.end_offsets(wanted))
        return found


async def committed(config: Config, places: Collection[Place]) -> dict[Place, int]:
    """What the workers' group has committed of each partition; 0 where there is nothing. Raises KafkaFault."""
    wanted = [TopicPartition(*place) for place in places]
    found = await asked(config, lambda admin: admin.list_consumer_group_offsets(config.group, partitions=wanted))
    return {place: max(0, found[place].offset) for place in wanted}


def member(host: str, metadata: bytes, assignment: bytes) -> GroupMember:
    """A member as the group's coordinator keeps it; while it joins, without an assignment."""
    told = ConsumerProtocolMemberMetadata.decode(metadata).user_data if metadata else b""
    assigned = ConsumerProtocolMemberAssignment.decode(assignment).partitions() if assignment else []
    return GroupMember(host.lstrip("/"), told or b"", frozenset((tp.topic, tp.partition) for tp in assigned))


@asynccontextmanager
async def consumer_group(config: Config) -> AsyncIterator[ConsumerGroup]:
    """The workers' group, for one block. Raises KafkaFault."""
    with plain_faults(config):
        consumer = await persistently(lambda: started_consumer(config, isolation_level="read_committed"))
    try:
        yield ConsumerGroup(config, consumer)
    finally:
        await stopped(stop_consumer(consumer))
