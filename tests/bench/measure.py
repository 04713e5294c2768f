"""The clock of a throughput phase, the same for every system and outside all of them.

The input is in its topic before the worker starts. Wall time and the process's CPU are read when the first output is
visible and when the last one is; outputs that were there at the first sight do not count. So start-up, group join and
recovery are outside, and every output counted was acknowledged by the broker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.bench.kafka import Kafka
from tests.bench.plan import MOST_AT_FIRST_SIGHT, POLL_S, SLOWEST_EVENTS_PER_S, START_DEADLINE_S, BenchError
from tests.bench.process import Worker


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase of one system: outputs, and seconds of wall and CPU between first and last of them."""

    events: int
    counted: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Events per second of wall time."""
        return self.counted / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Events per second of the worker's CPU time."""
        return self.counted / self.cpu_seconds


def watch(kafka: Kafka, worker: Worker, topic: str, base: int, events: int) -> Measured:
    """Follow the end offsets of an output topic from `base` until `events` more are there."""
    deadline = time.perf_counter() + START_DEADLINE_S + events / SLOWEST_EVENTS_PER_S
    first: tuple[int, float, float] | None = None
    while True:
        done = sum(kafka.ends(topic)) - base
        now, cpu = time.perf_counter(), worker.cpu_seconds()
        if done > 0 and first is None:
            first = done, now, cpu
        if first is not None and done >= events:
            break
        if now > deadline:
            raise BenchError(f"{worker.name}: {done} of {events} outputs in {topic}; its log ends:\n{worker.tail()}")
        time.sleep(POLL_S)
    if first[0] > events * MOST_AT_FIRST_SIGHT:
        raise BenchError(f"{worker.name}: {first[0]} of {events} outputs at the first sight: give it more --events")
    return Measured(events, events - first[0], now - first[1], max(cpu - first[2], 0.01))
