"""Reading back: what an output partition's last records say of how far its writer came."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from math import inf
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import KafkaError

from streams.config import Config
from streams.kafka.connection import connection, stop_consumer

#: First look at so many records of a partition's end, then at four times as many, up to the limit.
FIRST_LOOK = 2_000
#: One checkpoint's outputs fit into this many records, with the answers that are written beside it, and so do all
#: answers beyond a request that waits (MOST_AHEAD).
LIMIT = 256_000
#: What `message.timestamp.type` LogAppendTime makes of a record.
_BROKERS_TIME = 1

#: Markers move the position without a record, of which the consumer does not tell: a look at it ends after so long.
LOOK_MS = 50

#: What stands for the leader of a partition that is not known, and of one that has none.
_NO_LEADER = {None, -1}

Enough = Callable[[list[Any]], bool]
Keep = Callable[[Any], bool]


class LogReader:
    """Questions to the broker outside of the consumer group: ends of logs, and records near them."""

    def __init__(self, config: Config) -> None:
        self._connection = {**connection(config), "client_id": f"{config.group}-reader"}
        # What retention takes away while we look is not looked at; what is left is.
        self._options = {
            **self._connection, "enable_auto_commit": False, "group_id": None, "auto_offset_reset": "earliest"
        }  # fmt: skip
        self._ends: Any = None
        self._admin: Any = None

    async def start(self) -> None:
        self._ends = AIOKafkaConsumer(**self._options)
        await self._ends.start()

    async def stop(self) -> None:
        if self._ends is not None:
            await stop_consumer(self._ends)
        if self._admin is not None:
            await self._admin.close()

    async def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record that a partition holds, see `ends`."""
        return (await self.ends(topic, [partition]))[partition]

    async def ends(self, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
        """The offset behind the last record of each partition, transactions that are not decided yet included.

        A commit is acknowledged before its markers are written, so the last stable offset may still be below records
        that a producer knows to be committed: a fence there could miss them.
        """
        places = [TopicPartition(topic, partition) for partition in partitions]
        leaders = {self._ends._client.cluster.leader_for_partition(tp) for tp in places}
        if len(leaders) == 1 and not leaders & _NO_LEADER:
            # Most often one request does it, without the tasks and timers of one that may be many and is tried again.
            with suppress(KafkaError):
                asked = {topic: [(tp.partition, OffsetResetStrategy.LATEST) for tp in places]}
                found = await self._ends._fetcher._proc_offset_request(*leaders, asked)
                return {tp.partition: int(end) for tp, (end, _) in found.items()}
        ends = await self._ends.end_offsets(places)
        return {tp.partition: int(end) for tp, end in ends.items()}

    async def committed(self, group: str, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
        """What a group has committed of each partition; 0 where there is nothing."""
        if self._admin is None:
            admin = AIOKafkaAdminClient(**self._connection)
            await admin.start()
            self._admin = admin
        wanted = [TopicPartition(topic, partition) for partition in partitions]
        found = await self._admin.list_consumer_group_offsets(group, partitions=wanted)
        return {tp.partition: max(0, int(found[tp].offset)) for tp in wanted}

    async def beginning(self, topic: str, partition: int) -> int:
        """The offset of the first record that the log still has."""
        tp = TopicPartition(topic, partition)
        starts = await self._ends.beginning_offsets([tp])
        return int(starts[tp])

    async def written_at(self, topic: str, partition: int, offset: int) -> float | None:
        """When the broker took a partition's first record from an offset on, in milliseconds since 1970.

        0 if the topic has its producers' times; None if there is no such record.
        """
        end, start = await self.end(topic, partition), await self.beginning(topic, partition)
        async with aclosing(self.scan(topic, partition, max(offset, start), end)) as scanned:
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
    ) -> AsyncGenerator[list[Any], None]:
        """A partition's records from `first` up to `end`, as they are fetched; `committed`: none that were aborted."""
        if first >= end:
            return
        tp = TopicPartition(topic, partition)
        level = "read_committed" if committed else "read_uncommitted"
        consumer = AIOKafkaConsumer(**self._options, isolation_level=level)
        await consumer.start()
        try:
            consumer.assign([tp])
            consumer.seek(tp, first)
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(tp, timeout_ms=LOOK_MS)).values():
                    yield [record for record in records if record.offset < end]
        finally:
            await stop_consumer(consumer)
