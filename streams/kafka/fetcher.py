"""Fetches of the worker's consumer, sent when what the last one brought has been taken.

aiokafka fetches ahead, by tasks that one more task waits for. To what is handed out as soon as it is there that adds
but the turns that each of them has to wait for, and what lies ready is older than what could be asked for. Of aiokafka
there remain the partitions' positions, and its task that finds out where to begin where there is none.

Every fetch names the leader's epoch: a replica that knows a newer one refuses it, a follower that knows an older one,
too. Leaders come from `Cluster`, which never goes back to an older epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
    for_code,
)
from aiokafka.record.memory_records import MemoryRecords

from streams.kafka.cluster import Cluster, Connections, Leader
from streams.kafka.protocol import Fetch, Found
from streams.kafka.read_barrier import Confirmation, ReadBarrier
from streams.kafka.records import Place, Record
from streams.logs import OngoingBy

log = logging.getLogger(__name__)

#: FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH: the broker knows another epoch, or not yet this one.
MOVED = frozenset({74, 75})
#: A broker that lives answers a fetch sooner, however much it brings; a connection on which nothing comes is closed.
ANSWER_S = 10.0
#: Pause between two looks at whether there is something to fetch again.
LOOK_S = 0.02

#: Partitions by topic, with who leads each, and what aiokafka keeps of it.
Topics = list[tuple[str, list[tuple[TopicPartition, Leader, Any]]]]


class Asked(NamedTuple):
    """What is asked of a partition: whom, and the position to read from."""

    leader: Leader
    state: Any
    offset: int


class UnreadableBatchError(Exception):
    """A batch that this version cannot decode; the message names its topic, partition and offset."""


class Brought(NamedTuple):
    """Records of a partition, and the consumer's positions before and behind them.

    Transaction markers and compacted records move the position alone. `end` is where the partition's changes ended when
    the broker had read these, or later; None if it is not known. It counts once `confirmation` says so of `confirmed`;
    where that is None, it counts.
    """

    records: list[Record]
    before: int
    after: int
    end: int | None = None
    confirmation: Confirmation | None = None


class _Arrived(NamedTuple):
    """What nobody has taken yet of a partition, and the position that it was asked for from."""

    assignment: Any
    state: Any
    offset: int
    found: Found
    end: int | None
    confirmation: Confirmation | None


class Fetches:
    """What a consumer has under way, and what has come of it.

    `changes` and `requests` are the topics of the changes and of the requests for a decision, with their prefix.
    `in_order`: whether brokers read a fetch's partitions in the order of the request, as Kafka does. Else no fetch
    tells the ends of the changes for the requests that it brings.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        cluster: Cluster,
        barrier: ReadBarrier,
        changes: str,
        requests: str,
        *,
        in_order: bool = True,
    ) -> None:
        self._fetcher = consumer._fetcher
        self._cluster = cluster
        self._barrier = barrier
        self._connections: Connections = cluster.connections("fetch", ANSWER_S)
        self._changes = changes
        self._requests = requests
        self._in_order = in_order
        self._not_read = OngoingBy(log, "%s-%d is not read yet")
        #: By the broker that they are sent to.
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._arrived: dict[TopicPartition, _Arrived] = {}
        #: By leader, and what they were made from: assignment, version of the cluster, wanted partitions.
        self._plan: dict[int, Topics] = {}
        self._planned: tuple[Any, int, Set[TopicPartition]] = (None, -1, frozenset())
        self._actions = self._fetcher._get_actions_per_node
        self._fetcher._get_actions_per_node = self._resets

    async def close(self) -> None:
        """Wait for no more answers, and close the connections."""
        for fetch in self._under_way.values():
            fetch.cancel()
        await self._connections.close()

    def _resets(self, assignment: Any) -> tuple[Any, ...]:
        """What is left to aiokafka's own task: to find out where to begin, for partitions without a position."""
        if all(assignment.state_value(tp).has_valid_position for tp in assignment.tps):
            return [], {}, self._fetcher._fetcher_timeout, False, []
        return [], *self._actions(assignment)[1:]

    def take(self, wanted: Set[TopicPartition]) -> dict[TopicPartition, Brought]:
        """What has come of the wanted partitions; their positions move behind it. What is not taken is asked for again.

        Raises KafkaError or UnreadableBatchError for records that cannot be read.
        """
        taken = {}
        for tp, (assignment, state, offset, found, end, confirmation) in self._arrived.items():
            # Another assignment, a seek: then it is not what comes next.
            if assignment.active and tp in wanted and not state._paused and state._position == offset:
                records, after = unpack(tp, found, offset)
                state.consumed_to(after)
                taken[tp] = Brought(records, offset, after, end, confirmation)
        self._arrived.clear()
        return taken

    async def wait(self, assignment: Any, wanted: Set[TopicPartition], timeout_s: float) -> None:
        """Fetch the wanted partitions of an assignment (None: nothing), until something comes or the time is up.

        Raises KafkaError for what is not to be read.
        """
        requests = [] if assignment is None else self._to_send(assignment, wanted)
        if len(requests) == 1 and not self._under_way:
            await self._fetch(assignment, *requests[0])
            return
        for leader, request, asked in requests:
            fetch = self._fetch(assignment, leader, request, asked)
            self._under_way[leader] = asyncio.create_task(fetch, name="fetch")
        if self._under_way:
            tasks = self._under_way.values()
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        else:
            # Whoever holds a partition back no more says so; of what else may have changed nobody does.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._fetcher._create_fetch_waiter(), min(timeout_s, LOOK_S))
        for leader in [leader for leader, fetch in self._under_way.items() if fetch.done()]:
            self._under_way.pop(leader).result()

    def _to_send(
        self, assignment: Any, wanted: Set[TopicPartition]
    ) -> list[tuple[int, Fetch, dict[TopicPartition, Asked]]]:
        """Leaders that nothing is under way to, and what to ask of each."""
        fetcher = self._fetcher
        most = fetcher._max_partition_fetch_bytes
        requests = []
        for leader, planned in self._by_leader(assignment, wanted).items():
            if leader in self._under_way:
                continue
            asked: dict[TopicPartition, Asked] = {}
            topics = []
            for topic, places in planned:
                # Each is the first in its turn: of what comes first there is always something in the answer.
                places.append(places.pop(0))
                partitions = []
                for tp, held_by, state in places:
                    offset = state._position
                    if offset is not None and not state._paused:
                        asked[tp] = Asked(held_by, state, offset)
                        partitions.append((tp.partition, held_by.epoch, offset, most))
                if partitions:
                    topics.append((topic, partitions))
            if asked:
                request = Fetch(
                    topics,
                    max_wait_ms=fetcher._fetch_max_wait_ms,
                    min_bytes=fetcher._fetch_min_bytes,
                    max_bytes=fetcher._fetch_max_bytes,
                    isolation_level=fetcher._isolation_level,
                )
                requests.append((leader, request, asked))
        return requests

    def _by_leader(self, assignment: Any, wanted: Set[TopicPartition]) -> dict[int, Topics]:
        """The wanted partitions of an assignment by leader and topic, those of the changes last.

        Kafka reads partitions in the order of a request (it says so of version 3 and all later ones): what it says of
        the changes is no older than the requests for a decision that it read before.
        """
        version = self._cluster.version
        if self._planned[0] is assignment and self._planned[1] == version and self._planned[2] == wanted:
            return self._plan
        plan: dict[int, dict[str, list[tuple[TopicPartition, Leader, Any]]]] = {}
        is_complete = True
        order = {self._requests: 1, self._changes: 2}
        for tp in sorted(wanted & assignment.tps, key=lambda tp: (order.get(tp.topic, 0), tp)):
            leader = self._cluster.leader(*tp)
            if leader is None:
                is_complete = False
            else:
                plan.setdefault(leader.node, {}).setdefault(tp.topic, []).append(
                    (tp, leader, assignment.state_value(tp))
                )
        self._plan = {node: list(topics.items()) for node, topics in plan.items()}
        self._planned = assignment, version, frozenset(wanted)
        if not is_complete:
            # What has no leader now is asked for when the cluster knows of one.
            self._cluster.doubt()
        return self._plan

    async def _fetch(
        self, assignment: Any, node: int, request: Fetch, asked: Mapping[TopicPartition, Asked]
    ) -> None:
        """One fetch: what came of it can be taken then."""
        sent = monotonic()
        answer: dict[Place, Found] = {}
        try:
            leaders = {tp: one.leader for tp, one in asked.items()}
            answer = await self._connections.send_to_leader(node, request, leaders)
        except KafkaError as exc:
            log.debug("nothing fetched from broker %s: %r", node, exc)
            self._cluster.doubt()
        ends = self._ends_of_changes(sent, asked, answer)
        confirmation = self._confirm(ends, asked, answer) if ends else None
        is_refused = not answer
        for tp, (_, state, offset) in asked.items():
            found = answer.get(tp)
            if found is None or not assignment.active or state._position != offset:
                continue
            if found.error:
                self._refuse(tp, state, found.error)
                is_refused = True
                continue
            if self._not_read:
                self._not_read.over(tp)
            state.highwater, state.lso = found.end, found.stable
            if found.records:
                end = ends.get(tp.partition) if tp.topic == self._requests else None
                self._arrived[tp] = _Arrived(assignment, state, offset, found, end, confirmation)
        if is_refused and not self._arrived:
            await asyncio.sleep(self._fetcher._retry_backoff)

    def _confirm(
        self, ends: Iterable[int], asked: Mapping[TopicPartition, Asked], answer: Mapping[Place, Found]
    ) -> Confirmation | None:
        """Ask whether those were the newest leaders that told the ends for the requests of this answer."""
        leaders: dict[Place, Leader] = {}
        for number in ends:
            requests = answer.get((self._requests, number))
            if requests is not None and requests.records:
                changes = TopicPartition(self._changes, number)
                leaders[changes] = asked[changes].leader
        return self._barrier.confirm(leaders) if leaders else None

    def _ends_of_changes(
        self, sent: float, asked: Mapping[TopicPartition, Asked], answer: Mapping[Place, Found]
    ) -> Mapping[int, int]:
        """Where the changes end, by partition, for the requests that came with the same answer.

        Requests that another leader brought meanwhile may be younger than what this one says.
        """
        ends: dict[int, int] = {}
        for tp, one in asked.items():
            if tp.topic == self._changes and (found := answer.get(tp)) is not None and not found.error:
                self._barrier.heard(tp, found.end)
                if self._in_order and self._barrier.counts(tp, one.leader, sent):
                    ends[tp.partition] = found.end
        return ends

    def _refuse(self, tp: TopicPartition, state: Any, code: int) -> None:
        """A partition that the broker did not read: raises its error if it is for good."""
        error = for_code(code)
        if error is OffsetOutOfRangeError:
            log.warning("%s-%d has nothing at %d: reading on from where it begins", *tp, state._position)
            state.await_reset(self._fetcher._default_reset_strategy)
            self._fetcher._notify(self._fetcher._wait_consume_future)
        elif error is TopicAuthorizationFailedError:
            raise error(tp.topic)
        else:
            # That a partition has moved is no news but to who looks for it.
            if not error.invalid_metadata and code not in MOVED:
                self._not_read.happens(tp, error.__name__)
            self._cluster.doubt()


Make = Callable[[Any, Any], Any]


def _lean(_: Any, record: Any) -> Record:
    """Instead of aiokafka's object of eleven fields for each record: the five that are used cost half of that."""
    return _new(Record, (record.offset, record.timestamp, record.key, record.value, record.headers))


_new = tuple.__new__


def unpack(tp: TopicPartition, found: Found, offset: int, make: Make = _lean) -> tuple[list[Any], int]:
    """The records from an offset on, without what was aborted, and the position behind them.

    `make` makes a record of its topic's partition and aiokafka's own. Raises CorruptRecordException,
    RecordTooLargeError, and UnreadableBatchError for an unknown codec.
    """
    try:
        return _decode(tp, found, offset, make)
    except UnsupportedCodecError as error:
        raise UnreadableBatchError(
            f"{tp.topic}-{tp.partition}: the batch at or behind offset {offset} cannot be decompressed: {error}"
        ) from None


def _decode(tp: TopicPartition, found: Found, offset: int, make: Make) -> tuple[list[Any], int]:
    batches = MemoryRecords(found.records)
    if not batches.has_next():
        raise RecordTooLargeError(f"{tp.topic}-{tp.partition}: the record at {offset} is larger than a fetch")
    if found.aborted:
        left = PartitionRecords(tp, batches, found.aborted, offset, None, None, True, READ_COMMITTED)
        left._consumer_record = make
        return list(left), left.next_fetch_offset
    records: list[Any] = []
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"{tp.topic}-{tp.partition}: a batch behind {offset} has a wrong checksum")
        if not batch.is_control_batch:
            records += [make(tp, record) for record in batch if record.offset >= offset]
        offset = batch.next_offset
    return records, offset
