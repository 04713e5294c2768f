"""Reading logs outside of the consumer group: where they begin and end, and what is in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from math import inf
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError, OffsetOutOfRangeError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

from streams import topics
from streams.config import Config
from streams.kafka import admin
from streams.kafka.cluster import Cluster, Leader
from streams.kafka.coordinators import GROUP, Coordinators
from streams.kafka.fetcher import unpack
from streams.kafka.protocol import Fetch, Found, ListOffsets
from streams.kafka.read_barrier import ReadBarrier
from streams.kafka.records import Place, Record, TopicPartition

log = logging.getLogger(__name__)

#: First look at so many records of a partition's end, then at four times as many, up to the limit.
FIRST_LOOK = 2_000
#: One checkpoint's outputs fit into this many records, with the answers that are written beside it, and so do all
#: answers beyond a request that waits (MOST_AHEAD).
LIMIT = 256_000
#: What `message.timestamp.type` LogAppendTime makes of a record.
_BROKERS_TIME = 1
#: One fetch of a scan brings at most this much; a broker that lives answers it within ANSWER_S.
FETCH_BYTES = 4 << 20
ANSWER_S = 10.0
#: A fetch at the end of a log, for records that are being replicated, waits this long at the broker.
WAIT_MS = 50
#: Pause before a partition is asked for again.
RETRY_S = 0.1
READ_UNCOMMITTED, READ_COMMITTED = 0, 1

Enough = Callable[[list[Any]], bool]
Keep = Callable[[Any], bool]


class _Time(NamedTuple):
    """When a record was written, and by whose clock."""

    offset: int
    timestamp: int
    timestamp_type: int


class LogReader:
    """Questions about logs, answered by the leaders of their partitions; brokers that are away are waited for.

    Where a log ends is asked through the read barrier: no record that was acknowledged before lies beyond. What is read
    of a log is its own, from whichever leader: records below a high watermark never change.
    """

    def __init__(self, cluster: Cluster, barrier: ReadBarrier, groups: Coordinators) -> None:
        self._cluster = cluster
        self._barrier = barrier
        self._connections = cluster.connections("reader", ANSWER_S)
        self._groups = groups

    async def stop(self) -> None:
        """Close the connections; what is under way fails."""
        await self._connections.close()

    async def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record that a partition holds, see `ends`."""
        return (await self.ends(topic, [partition]))[partition]

    async def ends(self, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
        """The offset behind the last record of each partition, transactions that are not decided yet included.

        A commit is acknowledged before its markers are written, so the last stable offset may still be below records
        that a producer knows to be committed: a barrier there could miss them.
        """
        found = await self._barrier.every_end((topic, partition) for partition in partitions)
        return {partition: end for (_, partition), end in found.items()}

    async def committed(self, group: str, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
        """What a group has committed of each partition, or had a moment ago; 0 where there is nothing.

        A coordinator that was replaced may tell an older commit.
        """
        wanted = list(partitions)
        while True:
            try:
                answer = await self._groups.send(group, OffsetFetchRequest(group, [(topic, wanted)]))
            except KafkaError as exc:
                self._pass_on(exc)
            else:
                found = {number: (offset, code) for _, those in answer.topics for number, offset, _, code in those}
                codes = {code for _, code in found.values() if code} | {getattr(answer, "error_code", 0)} - {0}
                if not codes:
                    return {number: max(0, found[number][0]) for number in wanted}
                self._groups.forget(group)
                for code in codes:
                    self._pass_on(for_code(code)(group))
            await asyncio.sleep(RETRY_S)

    @staticmethod
    def _pass_on(error: KafkaError) -> None:
        """Raise what does not pass by itself."""
        if not error.retriable:
            raise error
        log.debug("asked again: %r", error)

    async def beginning(self, topic: str, partition: int) -> int:
        """The offset of the first record that the log still has; a leader that was replaced may tell an older one."""
        place = (topic, partition)

        def ask(leader: Leader) -> ListOffsets:
            return ListOffsets([(topic, [(partition, leader.epoch)])], ListOffsets.BEGIN)

        offset: int = (await self._asked(place, ask)).offset
        return offset

    async def _asked(self, place: Place, request: Callable[[Leader], Any], *allowed: type[KafkaError]) -> Any:
        """What the partition's leader answers, without an error that is not among those `allowed`."""
        while True:
            leader = self._cluster.leader(*place)
            if leader is None and self._cluster.is_denied(place[0]):
                raise TopicAuthorizationFailedError(place[0])
            if leader is not None:
                try:
                    answer = await self._connections.send_to_leader(leader.node, request(leader), {place: leader})
                except KafkaError as exc:
                    self._pass_on(exc)
                else:
                    told = answer.get(place)
                    error = None if told is None else for_code(told.error)
                    if told is not None and (not told.error or error in allowed):
                        return told
                    if error is TopicAuthorizationFailedError:
                        raise error(place[0])
            self._cluster.doubt()
            await asyncio.sleep(RETRY_S)

    async def written_at(self, topic: str, partition: int, offset: int) -> float | None:
        """When the broker took a partition's first record from an offset on, in milliseconds since 1970.

        0 if the topic has its producers' times; None if there is no such record.
        """
        end, start = await self.end(topic, partition), await self.beginning(topic, partition)
        async with aclosing(self._scan(topic, partition, max(offset, start), end, READ_UNCOMMITTED, _time)) as scanned:
            async for records in scanned:
                if records:
                    return float(records[0].timestamp) if records[0].timestamp_type == _BROKERS_TIME else 0.0
        return None

    async def tail(
        self,
        topic: str,
        partition: int,
        enough: Enough,
        keep: Keep = lambda _: True,
        *,
        since: float = 0.0,
        most: int = LIMIT,
    ) -> list[Any]:
        """The last records of a partition that are to be kept, oldest first: as many as `enough` of them asks for.

        No more than `most` are looked at, nor those before one that is older than `since` (milliseconds since 1970).
        """
        end, start = await self.end(topic, partition), await self.beginning(topic, partition)
        found: list[Any] = []
        count, first = min(FIRST_LOOK, most), end
        while True:
            older = max(start, end - count)
            some, oldest = await self._range(TopicPartition(topic, partition), older, first, keep)
            found = some + found
            first = older
            if first == start or count >= most or oldest < since or enough(found):
                return found
            count = min(count * 4, most)

    async def is_within_tail(self, topic: str, partition: int) -> bool:
        """Whether a tail may reach back to the partition's first record."""
        return await self.end(topic, partition) - await self.beginning(topic, partition) <= LIMIT

    async def _range(self, tp: TopicPartition, first: int, end: int, keep: Keep) -> tuple[list[Any], float]:
        """The records to be kept, and how old the oldest of all is."""
        found: list[Any] = []
        oldest = inf
        async for records in self.scan(tp.topic, tp.partition, first, end):
            found += [record for record in records if keep(record)]
            oldest = min([oldest, *(record.timestamp for record in records[:1])])
        return found, oldest

    async def scan(
        self, topic: str, partition: int, first: int, end: int, *, committed: bool = False
    ) -> AsyncGenerator[list[Record], None]:
        """A partition's records from `first` up to `end`, as they are fetched; `committed`: none that were aborted.

        What retention takes away meanwhile is left out. Raises UnreadableBatchError and KafkaError for what cannot be
        read.
        """
        level = READ_COMMITTED if committed else READ_UNCOMMITTED
        async with aclosing(self._scan(topic, partition, first, end, level)) as scanned:
            async for records in scanned:
                yield records

    async def _scan(
        self, topic: str, partition: int, first: int, end: int, level: int, make: Any = None
    ) -> AsyncGenerator[list[Any], None]:
        tp = TopicPartition(topic, partition)
        position = first

        def ask(leader: Leader) -> Fetch:
            asked = [(topic, [(partition, leader.epoch, position, FETCH_BYTES)])]
            return Fetch(asked, max_wait_ms=WAIT_MS, min_bytes=1, max_bytes=FETCH_BYTES, isolation_level=level)

        while position < end:
            found: Found = await self._asked(tp, ask, OffsetOutOfRangeError)
            if found.error:
                # Below the beginning: retention was quicker. Beyond the end: of a leader that lost what it had.
                self._cluster.doubt()
                position = max(position, await self.beginning(topic, partition))
                await asyncio.sleep(RETRY_S)
            elif found.records:
                records, position = unpack(tp, found, position, *([make] if make else []))
                yield [record for record in records if record.offset < end]
            else:
                # A leader that is cut off from the others may never have more.
                self._cluster.doubt()


@asynccontextmanager
async def log_reader(config: Config) -> AsyncIterator[LogReader]:
    """A reader of all our topics for a block, with connections of its own. Raises KafkaFault."""
    min_in_sync = await admin.min_in_sync(config)
    cluster = Cluster(config, f"{config.group}-reader", [config.topic(spec.name) for spec in topics.ALL])
    barrier = ReadBarrier(cluster, min_in_sync, quorum=config.read_barrier == "quorum")
    groups = Coordinators(cluster, "group", GROUP)
    reader = LogReader(cluster, barrier, groups)
    try:
        await cluster.start()
        yield reader
    finally:
        await reader.stop()
        await groups.stop()
        await barrier.stop()
        await cluster.stop()


def _time(_: Any, record: Any) -> _Time:
    return _Time(record.offset, record.timestamp, record.timestamp_type)
