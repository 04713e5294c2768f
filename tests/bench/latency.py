"""Stage `latency`: produce to output at half load, and one at a time; the product beside a bare Kafka echo.

The generator is a process of its own and keeps its rate whatever comes back (open loop). Each request carries the
moment it was handed to the producer in its `request_id`; this process consumes the outputs one by one and compares
with the same clock (monotonic, which all processes of a machine share).
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from confluent_kafka import Consumer, Producer

from tests.bench.events import request_record
from tests.bench.kafka import Kafka
from tests.bench.plan import (
    CHANGE_EVERY,
    CUSTOMERS,
    DRAIN_DEADLINE_S,
    LATENCY_WARMUP_S,
    LEAST_OF_RATE,
    LONE_DEADLINE_S,
    LONE_REQUESTS,
    LONE_WARMUP,
    NO_NAGLE,
    START_DEADLINE_S,
    BenchError,
)
from tests.bench.process import ROOT, Worker
from tests.bench.systems import System

NS_PER_MS = 1e6
_FIELD = b'"request_id":"'


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from produce to output."""

    rate: float
    p50: float
    p99: float
    lone_p50: float


@dataclass(frozen=True, slots=True)
class Route:
    """One way through: where requests go in, where answers come out, and where changes go beside them, if anywhere."""

    name: str
    requests: str
    answers: str
    changes: str | None


def middle(rounds: list[Latency]) -> Latency:
    """The median of each number over several rounds."""
    return Latency(*(median(numbers) for numbers in zip(*(astuple(it) for it in rounds), strict=True)))


def product_latency(system: System, rate: float, seconds: float) -> Latency:
    """The product, with changes among the requests; the next round must not see these again, so commits are awaited."""
    route = Route(system.name, system.requests, system.decisions, system.changes)
    with system.start("latency") as worker:
        measured = _measure(system.kafka, worker, route, rate, seconds)
        system.kafka.wait_committed(system.group, system.requests)
        system.kafka.wait_committed(system.group, system.changes)
    return measured


def echo_latency(kafka: Kafka, folder: Path, rate: float, seconds: float) -> Latency:
    """The floor: a process that consumes and produces the same records and does nothing else.

    It keeps no offsets, so every folder (one per round) has topics of its own.
    """
    topics = kafka.prefix + folder.name
    route = Route("echo", topics + "-in", topics + "-out", None)
    kafka.create(route.requests, route.answers)
    command = [sys.executable, "-m", "tests.bench.echo", kafka.bootstrap, route.requests, route.answers]
    with Worker("echo", command, {}, folder / "echo.log") as worker:
        return _measure(kafka, worker, route, rate, seconds)


def _measure(kafka: Kafka, worker: Worker, route: Route, rate: float, seconds: float) -> Latency:
    answers = kafka.tail(route.answers)
    try:
        lone = _lone(kafka, worker, route, answers)
        return _half_load(kafka, worker, route, answers, (rate, seconds), median(lone))
    finally:
        answers.close()


def _lone(kafka: Kafka, worker: Worker, route: Route, answers: Consumer) -> list[float]:
    """One request at a time, the next when the answer is there; the first wait includes the worker's start."""
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "linger.ms": 0, **NO_NAGLE}
    )
    times: list[float] = []
    for number in range(LONE_WARMUP + LONE_REQUESTS):
        key, value = request_record(f"{time.monotonic_ns()}-{number}", number)
        producer.produce(route.requests, value, key)
        producer.poll(0)
        deadline = time.monotonic() + (START_DEADLINE_S if number == 0 else LONE_DEADLINE_S)
        while (taken := _take(answers)) is None:
            worker.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{route.name}: no answer to a lone request; its log ends:\n{worker.tail()}")
        times.append(taken[1])
    if producer.flush(LONE_DEADLINE_S):
        raise BenchError(f"{route.name}: lone requests were not acknowledged")
    return times[LONE_WARMUP:]


def _half_load(
    kafka: Kafka, worker: Worker, route: Route, answers: Consumer, load: tuple[float, float], lone_p50: float
) -> Latency:
    rate, seconds = load
    command = [sys.executable, "-m", "tests.bench.load", kafka.bootstrap, route.requests, route.changes or "-"]
    command += [str(rate), str(seconds + LATENCY_WARMUP_S), str(CUSTOMERS)]
    generator = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        times, sent = _collect(generator, worker, route, answers, seconds)
    finally:
        if generator.poll() is None:
            generator.kill()
        generator.wait()
    reached = sent / (1 - 1 / CHANGE_EVERY) / (seconds + LATENCY_WARMUP_S)
    if reached < rate * LEAST_OF_RATE:
        raise BenchError(f"{route.name}: the generator reached {reached:.0f} of {rate:.0f} records per second")
    times.sort()
    return Latency(reached, times[len(times) // 2], times[len(times) * 99 // 100], lone_p50)


def _collect(
    generator: subprocess.Popen[str], worker: Worker, route: Route, answers: Consumer, seconds: float
) -> tuple[list[float], int]:
    """All answers but those to the warm-up's requests, and how many requests were sent in all."""
    times: list[float] = []
    got, warm_until = 0, 0
    expected: int | None = None
    end = time.monotonic() + seconds + LATENCY_WARMUP_S + DRAIN_DEADLINE_S
    while expected is None or got < expected:
        taken = _take(answers)
        if taken is None or got % 1000 == 0:
            worker.check()
            if expected is None and generator.poll() is not None and generator.stdout is not None:
                if generator.returncode:
                    raise BenchError(
                        f"{route.name}: the generator of the load failed: the broker cannot take that rate"
                    )
                expected = int(generator.stdout.read())
            if time.monotonic() > end:
                raise BenchError(f"{route.name}: {got} of {expected} answers in time: half load is more than it can do")
        if taken is None:
            continue
        got += 1
        sent_at, took = taken
        warm_until = warm_until or sent_at + int(LATENCY_WARMUP_S * 1e9)
        if sent_at >= warm_until:
            times.append(took)
    return times, expected


def _take(answers: Consumer) -> tuple[int, float] | None:
    """One answer: when its request was produced (ns), and how long it took (ms)."""
    message = answers.poll(0.1)
    if message is None:
        return None
    now = time.monotonic_ns()
    if message.error():
        raise BenchError(f"answers could not be read: {message.error()}")
    sent_at = int(message.value().partition(_FIELD)[2].partition(b"-")[0])
    return sent_at, (now - sent_at) / NS_PER_MS
