"""The broker seen from outside the stream: which cluster, which topics, created and compared with `streams/topics.py`.

Every function opens one connection, asks, and closes it. All raise KafkaFault with one line fit for a terminal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerFenced,
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
from streams.kafka.connection import connection, refusal
from streams.kafka.metadata import MetadataRequest
from streams.topics import KEEP, TopicSpec

CONNECT_S = 7.0  # a broker that has not answered by then is called unreachable, within ten seconds of the command
CREATE_S = 15.0  # from "created" to "every partition has a leader", which a loaded broker takes a moment for
POLL_S = 0.1
#: The answer of a broker that does not tell what a user may do, and the bits for everything.
NOT_TOLD, ALL = -(1 << 31), -1
#: Outputs must be allowed to be this many times larger than the inputs they carry, the changelog even more.
OUTPUT_FACTOR = topics.OUTPUT_BYTES // topics.INPUT_BYTES
CHANGELOG_FACTOR = topics.CHANGELOG_BYTES // topics.INPUT_BYTES


#: What aiokafka raises where Kafka is not there, or does not let us in, or does not let us do something.
ABSENT = (KafkaConnectionError, KafkaTimeoutError, TimeoutError)
DENIED = (
    TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)  # fmt: skip


class KafkaFault(Exception):  # noqa: N818 - what the operator sees; not an error of ours
    """Kafka cannot be reached, or refused what was asked; the message is one line."""


class TopicMissing(KafkaFault):
    """A topic that is needed does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"topic {name} does not exist: create it with `consent-streams topics create`")


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


@contextmanager
def plain_faults(config: Config) -> Iterator[None]:
    """Turn what aiokafka raises inside the block into a KafkaFault with one clear line."""
    try:
        yield
    except ABSENT as error:
        raise KafkaFault(
            f"Kafka does not answer at {config.bootstrap_servers}: "
            "is it running, and is CONSENT_BOOTSTRAP_SERVERS (--bootstrap-servers) right?"
        ) from error
    except (IncompatibleBrokerVersion, NotImplementedError) as error:
        raise KafkaFault(f"the Kafka at {config.bootstrap_servers} is too old: 2.8 or newer is needed") from error
    except ProducerFenced as error:
        raise KafkaFault("another command of the same kind took over; try again when it is done") from error
    except MessageSizeTooLargeError as error:
        text = "Kafka takes no record of this size there; is the topic closed? `consent-streams topics check` says it"
        raise KafkaFault(text) from error
    except DENIED as error:
        raise _denied(config, " ".join(str(error).split())) from error
    except KafkaError as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise KafkaFault(f"Kafka refused it: {text}") from error


def _denied(config: Config, what: str) -> KafkaFault:
    user = config.kafka_username or "this client"
    return KafkaFault(f"Kafka denies {user}: {what} (`consent-streams topics acls` lists what each role needs)")


@asynccontextmanager
async def opening(config: Config) -> AsyncIterator[None]:
    """A block that connects, within CONNECT_S. Raises KafkaFault, which says so if it is the login that is refused."""
    try:
        with plain_faults(config):
            async with asyncio.timeout(CONNECT_S):
                yield
    except KafkaFault as fault:
        reason = await refusal(config) if isinstance(fault.__cause__, ABSENT) else None
        if reason is None:
            raise
        raise KafkaFault(reason) from fault.__cause__


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


async def _metadata(config: Config, names: Iterable[str]) -> tuple[str, list[TopicState]]:
    async with opening(config):
        client = AIOKafkaClient(**connection(config), request_timeout_ms=int(CONNECT_S * 1000))
        try:
            await client.bootstrap()
            # A broker that was away for longer than its session knows of no brokers, itself included, for a moment.
            while (node := client.get_random_node()) is None:
                await asyncio.sleep(POLL_S)
                await client.force_metadata_update()
            answer = await client.send(node, MetadataRequest(names))
        finally:
            await client.close()
    states = []
    for error_code, name, topic_id, _, partitions, allowed, _ in answer.topics:
        error = for_code(error_code)
        if error is UnknownTopicOrPartitionError:
            continue
        if error is TopicAuthorizationFailedError:
            raise _denied(config, f"to describe topic {name}")
        if error_code and not partitions:
            raise KafkaFault(f"topic {name} cannot be described: {error.__name__}")
        led = all(leader >= 0 for _, _, leader, *_ in partitions)
        replicas = min((len(those) for _, _, _, _, those, *_ in partitions), default=0)
        in_sync = min((len(those) for _, _, _, _, _, those, *_ in partitions), default=0)
        rights = ALL if allowed == NOT_TOLD else allowed
        states.append(TopicState(name, topic_id, len(partitions), led, rights, replicas, in_sync))
    return answer.cluster_id or "", states


async def check_rights(config: Config) -> None:
    """Raises KafkaFault if Kafka denies this client's user some of what a worker does.

    Asked for at the start, since Faust waits for ever where it is not let into its group.
    """
    allowed = {state.name: state.allowed for state in (await describe(config)).topics.values()}
    async with connected(config) as admin:
        # A heartbeat of nobody changes nothing; only a group that may not be used refuses it as such.
        answer = await admin._send_request(HeartbeatRequest(config.group, -1, ""))
        # To ask for a coordinator takes the right to describe, which that to write includes; more would use the id up.
        allowed[config.owner_ids] = ALL
        try:
            await admin._client.coordinator_lookup(CoordinationType.TRANSACTION, config.owner_ids)
        except TransactionalIdAuthorizationFailed:
            allowed[config.owner_ids] = 0
        except KafkaError:
            pass  # a coordinator that is not there yet is waited for later
    if for_code(answer.error_code) is not GroupAuthorizationFailedError:
        allowed[config.group] = 1 << acls.NUMBERS[acls.READ]
    denied = [
        f"{operation} on {acl.resource} {acl.name}"
        for acl in acls.acls(config, roles=("worker",))
        for operation in acl.operations
        if not allowed.get(acl.name, 0) >> acls.NUMBERS[operation] & 1
    ]
    if denied:
        raise _denied(config, "; ".join(denied))


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
        NewTopic(config.topic(spec.name), config.partitions, config.replication, topic_configs=dict(spec.config))
        for spec in missing
    ]
    async with connected(config) as admin:
        answer = await admin.create_topics(new)
    created = []
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if code == 0:
            created.append(name)
        elif error is not TopicAlreadyExistsError:  # somebody else's `create` ran at the same time
            raise KafkaFault(f"topic {name} could not be created: {(message or [None])[0] or error.__name__}")
    await _wait_until_ready(config)
    return created


async def _wait_until_ready(config: Config) -> None:
    deadline = asyncio.get_running_loop().time() + CREATE_S
    while True:
        states = (await describe(config)).topics
        if len(states) == len(topics.ALL) and all(state.ready for state in states.values()):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise KafkaFault(f"the new topics have no leader after {CREATE_S:.0f} s: look at the broker's log")
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
    """The broker's settings of topics, by full name."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, state.name) for state in states]
    if not resources:
        return {}
    async with connected(config) as admin:
        answers = await admin.describe_configs(resources)
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            if code:
                raise KafkaFault(f"the settings of topic {name} cannot be read: {message or for_code(code).__name__}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def deletions_kept_s(config: Config, cluster: Cluster) -> dict[str, float]:
    """For how many seconds each table's changelog remembers at least that a key was deleted."""
    states = {table: cluster.topics[spec.name] for table, spec in topics.CHANGELOGS.items()}
    configs = await configs_of(config, states.values())
    return {table: _number(configs[state.name], "delete.retention.ms") / 1000 for table, state in states.items()}


async def min_in_sync(config: Config) -> dict[str, int]:
    """`min.insync.replicas` of our topics that are there, by full name; nothing where it may not be read."""
    states = (await describe(config)).topics.values()
    try:
        found = await configs_of(config, states)
    except KafkaFault as fault:
        if isinstance(fault.__cause__, ABSENT):
            raise
        return {}
    return {name: max(1, _number(settings, "min.insync.replicas")) for name, settings in found.items()}


async def delete_records(config: Config, topic: str, ends: Mapping[int, int]) -> None:
    """Delete the records of the topic of this full name below these offsets, by partition; returns once it is done."""
    there = {TopicPartition(topic, number): RecordsToDelete(end) for number, end in ends.items() if end}
    async with connected(config) as admin:
        await admin.delete_records(there)


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for the cluster's administration, for one block of at most CREATE_S."""
    with plain_faults(config):
        admin = AIOKafkaAdminClient(**connection(config))
        try:
            async with opening(config):
                await admin.start()
                # A broker that has only just come up names no controller for a moment.
                while admin._client.cluster.controller is None:
                    await asyncio.sleep(POLL_S)
                    await admin._client.force_metadata_update()
            async with asyncio.timeout(CREATE_S):
                yield admin
        finally:
            await admin.close()


def problems(
    config: Config, there: Mapping[str, TopicState], configs: Mapping[str, Mapping[str, str]]
) -> Iterator[Problem]:
    """What is not as `streams/topics.py` has it, of topics as `describe` and `configs_of` found them."""
    inputs = [spec for spec in topics.INPUTS if spec.name in there]
    largest = max((_number(configs[there[spec.name].name], "max.message.bytes") for spec in inputs), default=0)
    for spec in topics.ALL:
        state = there.get(spec.name)
        yield from map(Problem, _shape_problems(config, spec, state))
        if state is not None:
            yield from _config_problems(spec, state.name, configs[state.name], largest)


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
