"""Requests at a rate that is kept whatever comes back (open loop), and when each was answered.

The generator is a process of its own (`load.py`). Each request carries the moment it was handed to the producer in its
`request_id`; this process consumes the outputs one by one and compares with the same clock (monotonic, which all
processes of a machine share).
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from confluent_kafka import Consumer

from tests.bench.kafka import Kafka
from tests.bench.plan import CHANGE_EVERY, CUSTOMERS, DRAIN_DEADLINE_S, LATENCY_WARMUP_S, BenchError
from tests.bench.process import ROOT, Worker

NS_PER_S, NS_PER_MS = 1e9, 1e6
_FIELD = b'"request_id":"'


@dataclass(frozen=True, slots=True)
class Route:
    """One way through: where requests go in, where answers come out, and where changes go beside them, if anywhere."""

    name: str
    requests: str
    answers: str
    changes: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a load, warm-up excluded."""

    #: Records per second as sent, and as they were worked off while more were sent; both with the changes.
    rate: float
    kept_up: float
    #: Milliseconds from produce to output, in order.
    times: list[float]

    def quantile(self, share: float) -> float:
        """So many of the answers took at most so many milliseconds."""
        return self.times[min(int(len(self.times) * share), len(self.times) - 1)]


def put_under_load(
    kafka: Kafka, worker: Worker, route: Route, answers: Consumer, rate: float, seconds: float
) -> Seen:
    """Send `rate` records per second, a tenth of them changes, for `seconds` after a warm-up; all must be answered."""
    whole = seconds + LATENCY_WARMUP_S
    command = [sys.executable, "-m", "tests.bench.load", kafka.bootstrap, route.requests, route.changes or "-"]
    command += [str(rate), str(whole), str(CUSTOMERS)]
    generator = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found, sent = _collect(generator, worker, route, answers, whole)
    finally:
        if generator.poll() is None:
            generator.kill()
        generator.wait()
    begin = found[0][0] + int(LATENCY_WARMUP_S * NS_PER_S)
    end = begin + int(seconds * NS_PER_S)
    meanwhile = sum(begin <= sent_at + took < end for sent_at, took in found)
    all_records = 1 / (1 - 1 / CHANGE_EVERY)
    times = sorted(took / NS_PER_MS for sent_at, took in found if sent_at >= begin)
    return Seen(sent * all_records / whole, meanwhile * all_records / seconds, times)


def _collect(
    generator: subprocess.Popen[str], worker: Worker, route: Route, answers: Consumer, seconds: float
) -> tuple[list[tuple[int, int]], int]:
    """When each answered request was sent and how long it took (ns), and how many were sent in all."""
    found: list[tuple[int, int]] = []
    expected: int | None = None
    end = time.monotonic() + seconds + DRAIN_DEADLINE_S
    while expected is None or len(found) < expected:
        taken = take(answers)
        if taken is None or len(found) % 1000 == 0:
            worker.check()
            if expected is None and generator.poll() is not None and generator.stdout is not None:
                if generator.returncode:
                    raise BenchError(
                        f"{route.name}: the generator of the load failed: the broker cannot take that rate"
                    )
                expected = int(generator.stdout.read())
            if time.monotonic() > end:
                raise BenchError(f"{route.name}: only {len(found)} of {expected} answers in time")
        if taken is not None:
            found.append(taken)
    return found, expected


def take(answers: Consumer) -> tuple[int, int] | None:
    """One answer: when its request was produced, and how long it took (ns)."""
    message = answers.poll(0.1)
    if message is None:
        return None
    now = time.monotonic_ns()
    if message.error():
        raise BenchError(f"answers could not be read: {message.error()}")
    sent_at = int(message.value().partition(_FIELD)[2].partition(b"-")[0])
    return sent_at, now - sent_at
