"""Requests at a rate that is kept whatever comes back (open loop), and when each was answered.

The generator is a process of its own (`load.py`). Each request carries the moment it was handed to the producer in its
`request_id`; this process consumes the outputs one by one and compares with the same clock (monotonic, which all
processes of a machine share).
"""

from __future__ import annotations

import subprocess
import sys
import time
from array import array
from dataclasses import dataclass, field

from confluent_kafka import Consumer

from tests.bench.checkout import ROOT
from tests.bench.kafka import Kafka
from tests.bench.plan import (
    BACKLOG_STEP_S,
    CHANGE_EVERY,
    CUSTOMERS,
    DRAIN_DEADLINE_S,
    LATENCY_WARMUP_S,
    BenchError,
    LoadError,
)
from tests.bench.process import Worker
from tests.bench.sustained import backlog

NS_PER_S, NS_PER_MS = 1e9, 1e6
_FIELD = b'"request_id":"'
#: Records for each request: a tenth of the records are changes.
RECORDS = 1 / (1 - 1 / CHANGE_EVERY)


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
    #: Records sent and not answered, at equal distances of time.
    backlog: list[float] = field(repr=False)

    def quantile(self, share: float) -> float:
        """So many of the answers took at most so many milliseconds."""
        return self.times[min(int(len(self.times) * share), len(self.times) - 1)]


class _Answered:
    """The answered requests of one load. Arrays of numbers: a list of a million pairs would make this process's garbage
    collector stop it while it reads the answers."""

    def __init__(self) -> None:
        self.sent_at = array("q")
        self.took = array("q")

    def __len__(self) -> int:
        return len(self.took)

    def add(self, sent_at: int, took: int) -> None:
        self.sent_at.append(sent_at)
        self.took.append(took)


def put_under_load(kafka: Kafka, worker: Worker, route: Route, answers: Consumer, rate: float, seconds: float) -> Seen:
    """Send `rate` records per second, a tenth of them changes, for `seconds` after a warm-up; all must be answered.

    Raises LoadError where the load cannot be sent or is not answered in time.
    """
    whole = seconds + LATENCY_WARMUP_S
    command = [sys.executable, "-m", "tests.bench.load", kafka.bootstrap, route.requests, route.changes or "-"]
    command += [str(rate), str(whole), str(CUSTOMERS)]
    generator = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found, sent = _collect(generator, worker, route, answers, rate, whole)
    finally:
        if generator.poll() is None:
            generator.kill()
        generator.wait()
    if not found:
        raise LoadError(f"{route.name}: {rate:.0f} records per second for {whole:.0f} s are not a single request")
    begin = min(found.sent_at) + int(LATENCY_WARMUP_S * NS_PER_S)
    end = begin + int(seconds * NS_PER_S)
    answered_at = array("q", map(sum, zip(found.sent_at, found.took, strict=True)))
    # Whatever was answered in this time: under an overload that is what was sent during the warm-up.
    meanwhile = sum(begin <= answered < end for answered in answered_at)
    times = sorted(
        took / NS_PER_MS for sent_at, took in zip(found.sent_at, found.took, strict=True) if sent_at >= begin
    )
    # The generator ends a little before or after its time: the last sample is the last one at which it still sent.
    last = min(end, max(found.sent_at))
    samples = backlog(found.sent_at, answered_at, range(begin, last + 1, int(BACKLOG_STEP_S * NS_PER_S)))
    waiting = [many * RECORDS for many in samples]
    return Seen(sent * RECORDS / whole, meanwhile * RECORDS / seconds, times, waiting)


def _collect(
    generator: subprocess.Popen[str], worker: Worker, route: Route, answers: Consumer, rate: float, seconds: float
) -> tuple[_Answered, int]:
    """The answered requests of this load, and how many were sent."""
    found = _Answered()
    expected: int | None = None
    begin = time.monotonic_ns()
    # A rate that is not sustained leaves a backlog as long as the load: it must be gone before the next one.
    end = time.monotonic() + 2 * seconds + DRAIN_DEADLINE_S
    while expected is None or len(found) < expected:
        taken = take(answers)
        if taken is None or len(found) % 1000 == 0:
            worker.check()
            if expected is None and generator.poll() is not None and generator.stdout is not None:
                if generator.returncode:
                    raise LoadError(f"{route.name}: the broker cannot take {rate:.0f} records per second")
                expected = int(generator.stdout.read())
            if time.monotonic() > end:
                raise LoadError(f"{route.name}: only {len(found)} of {expected} answers in time")
        # What was sent before is the rest of a load that was given up.
        if taken is not None and taken[0] >= begin:
            found.add(*taken)
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
