"""Reading a topic's partitions side by side: none runs far ahead of another."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer

from streams.kafka.patience import patience_s
from streams.kafka.records import Record, TopicPartition

FETCH_WAIT_MS = 200


class Merged:
    """A topic's committed records in the order of their times, those of a partition always in its own.

    :param consumer: started, with the partitions assigned and a position in each.
    :param start: those positions.
    """

    def __init__(self, consumer: AIOKafkaConsumer, start: Mapping[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._fetched: dict[TopicPartition, deque[Any]] = {tp: deque() for tp in start}
        #: Every record below it was given out, or is none: a marker of a transaction.
        self.positions = dict(start)

    async def until(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[tuple[int, Record]]:
        """Partition and record, of all below these ends; a few beyond may come too.

        Waits for records as long as an end is not reached. Raises TimeoutError if none has come for `patience_s`, and
        what aiokafka raises.
        """
        heads: list[tuple[int, TopicPartition]] = []
        idle = set(ends)
        while True:
            for tp in await self._fill(idle, ends):
                heapq.heappush(heads, (self._fetched[tp][0].timestamp, tp))
            idle.clear()
            if not heads:
                return
            _, tp = heapq.heappop(heads)
            found = self._fetched[tp].popleft()
            self.positions[tp] = found.offset + 1
            idle.add(tp)
            yield tp.partition, Record(found.offset, found.timestamp, found.key, found.value, found.headers)

    async def _fill(self, idle: set[TopicPartition], ends: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """Those of the partitions that have a record; waits for one as long as an end is not reached."""
        ready = set()
        clock = asyncio.get_running_loop().time
        last_progress = clock()
        while idle:
            for tp in list(idle):
                if not self._fetched[tp]:
                    # The consumer knows of markers behind the last record.
                    self.positions[tp] = max(self.positions[tp], await self._consumer.position(tp))
                if self.positions[tp] >= ends[tp] or self._fetched[tp]:
                    idle.discard(tp)
                    if self.positions[tp] < ends[tp]:
                        ready.add(tp)
            if idle:
                for tp, records in (await self._consumer.getmany(*idle, timeout_ms=FETCH_WAIT_MS)).items():
                    self._fetched[tp].extend(records)
                    last_progress = clock()
                if clock() - last_progress > patience_s():
                    raise TimeoutError
        return ready
