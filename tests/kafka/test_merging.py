"""Partitions read side by side, in the order of their records' times."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.merging import Merged
from streams.kafka.records import Record, TopicPartition

TOPIC = "t"


class Consumer:
    """Hands out a few records at a time of logs that end in a marker, as aiokafka's consumer does."""

    def __init__(self, times: list[list[int]], at_once: int) -> None:
        self._logs = {TopicPartition(TOPIC, n): [Record(o, t, None, None, ()) for o, t in enumerate(own)]
                      for n, own in enumerate(times)}  # fmt: skip
        self._at_once = at_once
        self._position: dict[TopicPartition, int] = defaultdict(int)

    @property
    def ends(self) -> dict[TopicPartition, int]:
        return {tp: len(log) + 1 for tp, log in self._logs.items()}

    async def position(self, tp: TopicPartition) -> int:
        return self._position[tp]

    async def getmany(self, *tps: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        found = {}
        for tp in tps:
            at = self._position[tp]
            if records := self._logs[tp][at : at + self._at_once]:
                found[tp] = records
                self._position[tp] = at + len(records)
            if self._position[tp] == len(self._logs[tp]):
                self._position[tp] += 1
        return found


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=4), st.integers(1, 3))
def test_every_record_once_a_partitions_in_their_order_and_always_the_oldest_head(
    times: list[list[int]], at_once: int
) -> None:
    async def read() -> list[tuple[int, int, int]]:
        consumer = Consumer(times, at_once)
        merged = Merged(consumer, dict.fromkeys(consumer.ends, 0))
        found = [(number, record.offset, record.timestamp) async for number, record in merged.until(consumer.ends)]
        assert merged.positions == consumer.ends, "markers behind the last record count"
        return found

    found = asyncio.run(read())
    left = [list(enumerate(own)) for own in times]
    for number, offset, timestamp in found:
        assert timestamp == min(own[0][1] for own in left if own)
        assert left[number].pop(0) == (offset, timestamp)
    assert not any(left)
