"""The broker seen from outside the stream: which cluster, which topics, created and compared with `streams/topics.py`.

Every function opens one connection, asks, and closes it. All raise KafkaFault with one line fit for a terminal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.structs import TopicPartition

from streams import topics
from streams.config import Config
from streams.kafka import acls
from streams.kafka.faults import DENIED, KafkaFault, TopicMissing, check, denied, plain_faults
from streams.kafka.metadata import MetadataRequest
from streams.kafka.patience import patience_s
from streams.kafka.reaching import CONTROLLER, options, persistently, steady
from streams.topics import KEEP, TopicSpec

__all__ = [
    "DENIED", "Cluster", "KafkaFault", "Problem", "TopicMissing", "TopicState", "asked", "changed_topics",
    "check_rights", "check_topics", "configs_of", "create_topics", "delete_records", "deletions_kept_s", "describe",
    "identity", "partitions_of", "problems", "readable_configs_of",
]  # fmt: skip

T = TypeVar("T")

POLL_S = 0.1
OTHERS_S = 1.0  # a broker that lives answers in milliseconds
#: The answer of a broker that does not tell what a user may do, and the bits for everything.
NOT_TOLD, ALL = -(1 << 31), -1
#: Outputs must be allowed to be this many times larger than the inputs they carry, the changelog even more.
OUTPUT_FACTOR = topics.OUTPUT_BYTES // topics.INPUT_BYTES
CHANGELOG_FACTOR = topics.CHANGELOG_BYTES // topics.INPUT_BYTES


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic of the cluster: full name, id, partition count, and whether every partition has a leader.

    `allowed` has a bit for the number of each operation that this client's user may do, see `streams.kafka.acls`;
    `replicas` and `in_sync` are those of the partition that has fewest.
    """

    name: str
    id: uuid.UUID
    partitions: int
    ready: bool
    allowed: int
    replicas: int = 0
    in_sync: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster's id and those of our topics that exist, by their names without prefix."""

    cluster_id: str
    topics: Mapping[str, TopicState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference from the contract; a `fatal` one makes answers wrong or ends the worker sooner or later."""

    text: str
    fatal: bool = True


async def describe(config: Config) -> Cluster:
    """The cluster's id and our topics as they are now; a topic that was created again has another id."""
    by_name = {config.topic(spec.name): spec.name for spec in topics.ALL}
    found_id, states = await _metadata(config, by_name)
    return Cluster(found_id, {by_name[state.name]: state for state in states})


async def partitions_of(config: Config, name: str) -> int:
    """How many partitions the topic of this full name has. Raises TopicMissing."""
    _, states = await _metadata(config, [name])
    if not states:
        raise TopicMissing(name)
    return states[0].partitions


async def _metadata(config: Config, names: Collection[str]) -> tuple[str, list[TopicState]]:
    cluster_id, found = await asked(config, lambda admin: _topics(admin, names))
    states = []
    for error_code, name, topic_id, _, partitions, allowed, _ in found:
        error = for_code(error_code)
        if error is TopicAuthorizationFailedError:
            raise denied(config, f"to describe topic {name}")
        if error_code and not partitions:
            raise KafkaFault(f"topic {name} cannot be described: {error.__name__}")
        led = all(leader >= 0 for _, _, leader, *_ in partitions)
        replicas = min((len(those) for _, _, _, _, those, *_ in partitions), default=0)
        in_sync = min((len(those) for _, _, _, _, _, those, *_ in partitions), default=0)
        rights = ALL if allowed == NOT_TOLD else allowed
        states.append(TopicState(name, topic_id, len(partitions), led, rights, replicas, in_sync))
    return cluster_id, states


async def _topics(admin: AIOKafkaAdminClient, names: Collection[str]) -> tuple[str, list[Any]]:
    """The cluster's id, and what there is of these topics as one broker tells it; what it misses, as others do.

    A broker hears of a topic a moment after it was created; while the controller changes, seconds after.
    """
    request = MetadataRequest(names)
    answer = await admin._send_request(request)
    found = _known(answer)
    if len(found) < len(names):
        others = [asyncio.ensure_future(admin._client.send(broker.nodeId, request))
                  for broker in admin._client.cluster.brokers()]  # fmt: skip
        done, late = await asyncio.wait(others, timeout=OTHERS_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            if task.exception() is None:
                found = _known(task.result()) | found
    return answer.cluster_id or "", list(found.values())


def _known(answer: Any) -> dict[str, Any]:
    return {topic[1]: topic for topic in answer.topics if for_code(topic[0]) is not UnknownTopicOrPartitionError}


async def check_rights(config: Config) -> None:
    """Raises KafkaFault if Kafka denies this client's user some of what a worker does.

    Asked for at the start, since Faust waits for ever where it is not let into its group.
    """
    allowed = {state.name: state.allowed for state in (await describe(config)).topics.values()}
    group, owners = await asked(config, lambda admin: _coordinators(config, admin))
    if group:
        allowed[config.group] = 1 << acls.NUMBERS[acls.READ]
    if owners:
        allowed[config.owner_ids] = ALL
    missing = [
        f"{operation} on {acl.resource} {acl.name}"
        for acl in acls.acls(config, roles=("worker",))
        for operation in acl.operations
        if not allowed.get(acl.name, 0) >> acls.NUMBERS[operation] & 1
    ]
    if missing:
        raise denied(config, "; ".join(missing))


async def _coordinators(config: Config, admin: AIOKafkaAdminClient) -> tuple[bool, bool]:
    """Whether the group, and the owners' transactional ids, may be used."""
    # A heartbeat of nobody changes nothing; only a group that may not be used refuses it as such.
    answer = await admin._send_request(HeartbeatRequest(config.group, -1, ""))
    group = for_code(answer.error_code) is not GroupAuthorizationFailedError
    # To ask for a coordinator takes the right to describe, which that to write includes; more would use the id up.
    try:
        await admin._client.coordinator_lookup(CoordinationType.TRANSACTION, config.owner_ids)
    except TransactionalIdAuthorizationFailed:
        return group, False
    except KafkaError:
        pass  # a coordinator that is not there yet is waited for later
    return group, True


def identity(config: Config, cluster: Cluster) -> dict[str, object]:
    """What a worker's state is tied to: the cluster, the topics that it was made of, and their partition count."""
    return {
        "cluster_id": cluster.cluster_id,
        "partition_count": config.partitions,
        "topic_ids": {spec.name: str(cluster.topics[spec.name].id) for spec in topics.STATEFUL},
    }


async def create_topics(config: Config) -> list[str]:
    """Create what is missing, leave alone what is there; returns the full names of those created.

    Returns once every partition of every topic has a leader.
    """
    there = (await describe(config)).topics
    missing = [spec for spec in topics.ALL if spec.name not in there]
    if not missing:
        return []
    new = [
        NewTopic(name, config.partitions, config.replication, topic_configs=spec.config_for(config.replication))
        for name, spec in ((config.topic(spec.name), spec) for spec in missing)
    ]
    creation = _Creation(new)
    await asked(config, creation.ask, CONTROLLER)
    await _wait_until_ready(config)
    return [topic.name for topic in new if topic.name in creation.created]


class _Creation:
    """Topics that were missing; `created` are those that are there because of us."""

    def __init__(self, new: list[NewTopic]) -> None:
        self._new = new
        self._unanswered = False
        self.created: set[str] = set()

    async def ask(self, admin: AIOKafkaAdminClient) -> None:
        """Create those that are not created yet. May be called again after an error."""
        before, self._unanswered = self._unanswered, True
        answer = await admin.create_topics([topic for topic in self._new if topic.name not in self.created])
        failed = []
        for name, code, *message in answer.topic_errors:
            there = for_code(code) is TopicAlreadyExistsError
            # By an attempt that nobody answered, or by somebody else's `create`.
            if code == 0 or (there and before):
                self.created.add(name)
            elif not there:
                failed.append((name, code, (message or [None])[0] or for_code(code).__name__))
        for name, code, why in failed:
            check(code, f"topic {name} could not be created: {why}")


async def _wait_until_ready(config: Config) -> None:
    deadline = asyncio.get_running_loop().time() + patience_s()
    while True:
        states = (await describe(config)).topics
        if len(states) == len(topics.ALL) and all(state.ready for state in states.values()):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise KafkaFault(f"the new topics have no leader after {patience_s():g} s: look at the broker's log")
        await asyncio.sleep(POLL_S)


async def check_topics(config: Config, *, fatal_only: bool = False) -> list[str]:
    """Every difference from `streams/topics.py` (contract section 1), one line each; empty: all is well.

    `fatal_only` leaves out what no worker suffers from, such as a shorter retention of the decisions.
    """
    there = (await describe(config)).topics
    found = problems(config, there, await configs_of(config, there.values()))
    return [problem.text for problem in found if problem.fatal or not fatal_only]


async def changed_topics(config: Config, known: Mapping[str, uuid.UUID]) -> list[str]:
    """What became of the topics since they had these ids, one line each: gone, made anew, or given more partitions."""
    there = (await describe(config)).topics
    changed = [text for spec in topics.ALL for text in _shape_problems(config, spec, there.get(spec.name))]
    anew = [state.name for name, state in there.items() if state.id != known.get(name, state.id)]
    return changed + [f"{name}: was deleted and created again" for name in anew]


async def configs_of(config: Config, states: Iterable[TopicState]) -> dict[str, dict[str, str]]:
    """The broker's settings of topics, by full name. Raises KafkaFault if it does not tell those of one."""
    configs = await readable_configs_of(config, states)
    for name, found in configs.items():
        if found is None:
            raise denied(config, f"DescribeConfigs on topic {name}")
    return {name: found for name, found in configs.items() if found is not None}


async def readable_configs_of(config: Config, states: Iterable[TopicState]) -> dict[str, dict[str, str] | None]:
    """The broker's settings of topics, by full name; None where it denies them."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, state.name) for state in states]
    if not resources:
        return {}
    return await asked(config, lambda admin: _configs(admin, resources))


async def _configs(
    admin: AIOKafkaAdminClient, resources: list[ConfigResource]
) -> dict[str, dict[str, str] | None]:
    found: dict[str, dict[str, str] | None] = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            is_denied = for_code(code) is TopicAuthorizationFailedError
            if not is_denied:
                check(code, f"the settings of topic {name} cannot be read: {message or for_code(code).__name__}")
            found[name] = None if is_denied else {entry[0]: entry[1] for entry in entries}
    return found


async def deletions_kept_s(config: Config, cluster: Cluster) -> dict[str, float]:
    """For how many seconds each table's changelog remembers at least that a key was deleted."""
    states = {table: cluster.topics[spec.name] for table, spec in topics.CHANGELOGS.items()}
    configs = await configs_of(config, states.values())
    return {table: _number(configs[state.name], "delete.retention.ms") / 1000 for table, state in states.items()}


async def min_in_sync(config: Config) -> dict[str, int]:
    """`min.insync.replicas` of our topics that are there, by full name; nothing where it may not be read."""
    states = (await describe(config)).topics.values()
    found = await readable_configs_of(config, states)
    return {name: max(1, _number(told, "min.insync.replicas")) for name, told in found.items() if told is not None}


async def delete_records(config: Config, topic: str, ends: Mapping[int, int]) -> None:
    """Delete the records of the topic of this full name below these offsets, by partition; returns once it is done."""
    there = {TopicPartition(topic, number): RecordsToDelete(end) for number, end in ends.items() if end}
    await asked(config, lambda admin: admin.delete_records(there))


async def asked(
    config: Config, question: Callable[[AIOKafkaAdminClient], Awaitable[T]], times: float = 1.0
) -> T:
    """What `question` returns, given a client for the cluster's administration; see `persistently`.

    Every attempt has a client of its own, connected to a broker that answers. Raises KafkaFault, for all that the
    question raises of aiokafka's too.
    """

    async def once() -> T:
        admin = AIOKafkaAdminClient(**await options(config))
        steady(admin._client)
        try:
            await admin.start()
            # A broker that has only just come up names no controller for a moment.
            while admin._client.cluster.controller is None:
                await asyncio.sleep(POLL_S)
                await admin._client.force_metadata_update()
            return await question(admin)
        finally:
            await admin.close()

    with plain_faults(config):
        return await persistently(once, times)


def problems(
    config: Config, there: Mapping[str, TopicState], configs: Mapping[str, Mapping[str, str] | None]
) -> Iterator[Problem]:
    """What is not as `streams/topics.py` has it, of topics as `describe` and `readable_configs_of` found them."""
    inputs = [configs[there[spec.name].name] for spec in topics.INPUTS if spec.name in there]
    largest = max((_number(found, "max.message.bytes") for found in inputs if found), default=0)
    for spec in topics.ALL:
        state = there.get(spec.name)
        yield from map(Problem, _shape_problems(config, spec, state))
        found = configs[state.name] if state is not None else None
        if state is not None and found is None:
            yield Problem(f"{state.name}: Kafka denies DescribeConfigs, so its settings are not known", fatal=False)
        elif state is not None and found is not None:
            yield from _config_problems(spec, state.name, found, largest)


def _shape_problems(config: Config, spec: TopicSpec, state: TopicState | None) -> Iterator[str]:
    if state is None:
        yield f"{config.topic(spec.name)}: missing (`consent-streams topics create` creates it)"
    elif state.partitions != config.partitions:
        yield f"{state.name}: has {state.partitions} partitions, but CONSENT_PARTITIONS says {config.partitions}"


def _config_problems(spec: TopicSpec, name: str, actual: Mapping[str, str], largest_input: int) -> Iterator[Problem]:
    policy = actual.get("cleanup.policy", "")
    if spec.changelog and policy != "compact":
        yield Problem(f"{name}: cleanup.policy is {policy}, must be compact, or customers' state is deleted")
    if not spec.changelog and "compact" in policy:
        text = f"{name}: cleanup.policy is {policy}, must be delete, or records of the same key are removed"
        yield Problem(text, fatal=spec is topics.CHANGES)
    if not spec.changelog:
        yield from _retention_problems(spec, name, actual)
    size = _number(actual, "max.message.bytes")
    if spec in topics.INPUTS:
        if size == topics.CLOSED_BYTES:
            yield Problem(f"{name}: is closed by `topics repartition`: it takes nothing", fatal=False)
    else:
        needed = largest_input * (CHANGELOG_FACTOR if spec.changelog else OUTPUT_FACTOR)
        if size < needed:
            text = f"{name}: max.message.bytes is {size}, must be at least {needed}, or records are refused"
            yield Problem(text, fatal=False)
    wanted = spec.config.get("message.timestamp.type")
    if wanted and actual.get("message.timestamp.type") != wanted:
        text = f"{name}: message.timestamp.type is {actual.get('message.timestamp.type')}, should be {wanted}"
        yield Problem(text, fatal=False)


def _retention_problems(spec: TopicSpec, name: str, actual: Mapping[str, str]) -> Iterator[Problem]:
    # Only the log of changes is read again from its beginning; the rest is for others to read.
    fatal = spec is topics.CHANGES
    wanted, kept = int(spec.config["retention.ms"]), _number(actual, "retention.ms")
    if kept != KEEP and (wanted == KEEP or kept < wanted):
        should = "-1 (kept)" if wanted == KEEP else f"at least {wanted}"
        yield Problem(f"{name}: retention.ms is {kept}, must be {should}, or records are lost", fatal)
    if _number(actual, "retention.bytes") != KEEP:
        yield Problem(f"{name}: retention.bytes is {actual['retention.bytes']}, must be -1, or records are lost", fatal)


def _number(actual: Mapping[str, str], name: str) -> int:
    try:
        return int(actual.get(name, KEEP))
    except ValueError:
        return KEEP
