"""Stage `latency`: produce to output at half load, and one at a time; the product beside a bare Kafka echo.

Half of what the worker sustains: first it is asked more than it can answer, by the same generator and with the same
reader as afterwards, all on the machine's few cores. Then the product alone at nine tenths of that; and at both loads
how long an opt-out takes to be enforced, by the worker's own metric.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

import httpx
from confluent_kafka import Consumer, Producer
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.events import request_record
from tests.bench.kafka import Kafka
from tests.bench.openloop import NS_PER_MS, Route, Seen, put_under_load, take
from tests.bench.plan import (
    LEAST_OF_RATE,
    LONE_DEADLINE_S,
    LONE_REQUESTS,
    LONE_WARMUP,
    NO_NAGLE,
    START_DEADLINE_S,
    BenchError,
)
from tests.bench.process import Worker
from tests.bench.systems import System

ENFORCEMENT = "consent_optout_enforcement_seconds"
#: Number of opt-outs that were enforced within so many seconds, by seconds.
Enforced = dict[float, float]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from produce to output, under a load and (lone) without; and until opt-outs were enforced."""

    rate: float
    #: So much of it was worked off while it came; 1 is all.
    kept: float
    p50: float
    p99: float
    lone_p50: float
    #: The least bound of the metric's buckets that half, and 99 of 100, did not exceed.
    enforced_p50: float | None = None
    enforced_p99: float | None = None


def middle(rounds: list[Latency]) -> Latency:
    """The median of each number over several rounds."""
    columns = zip(*(astuple(it) for it in rounds), strict=True)
    return Latency(*(None if None in numbers else median(numbers) for numbers in columns))


def sustained(system: System, rate: float, seconds: float) -> float:
    """Records per second that the product works off while more than it can, `rate`, are sent."""
    with _product(system) as (worker, route, answers):
        _lone(system.kafka, worker, route, answers, 0)
        return put_under_load(system.kafka, worker, route, answers, rate, seconds).kept_up


def product_latency(system: System, rate: float, seconds: float, *, must_keep: bool = True) -> Latency:
    """The product, with changes among the requests. Raises BenchError for a load that it must keep and does not."""
    with _product(system) as (worker, route, answers):
        lone = _lone(system.kafka, worker, route, answers, LONE_REQUESTS)
        url = worker.url()
        before = _enforced(url)
        seen = put_under_load(system.kafka, worker, route, answers, rate, seconds)
        after = _enforced(url)
    kept = _kept(route, rate, seen, must_keep=must_keep)
    during = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    bounds = [_bound(during, 0.5), _bound(during, 0.99)]
    return Latency(seen.rate, kept, seen.quantile(0.5), seen.quantile(0.99), median(lone), *bounds)


def echo_latency(kafka: Kafka, folder: Path, rate: float, seconds: float) -> Latency:
    """The floor: a process that consumes and produces the same records and does nothing else.

    It keeps no offsets, so every folder (one per round) has topics of its own.
    """
    topics = kafka.prefix + folder.name
    route = Route("echo", topics + "-in", topics + "-out", None)
    kafka.create(route.requests, route.answers)
    command = [sys.executable, "-m", "tests.bench.echo", kafka.bootstrap, route.requests, route.answers]
    with _answers(kafka, route) as answers, Worker("echo", command, {}, folder / "echo.log") as worker:
        lone = _lone(kafka, worker, route, answers, LONE_REQUESTS)
        seen = put_under_load(kafka, worker, route, answers, rate, seconds)
    kept = _kept(route, rate, seen)
    return Latency(seen.rate, kept, seen.quantile(0.5), seen.quantile(0.99), median(lone))


@contextmanager
def _product(system: System) -> Iterator[tuple[Worker, Route, Consumer]]:
    """A worker of the product; what it was sent is committed at the end, or the next one would see it again."""
    route = Route(system.name, system.requests, system.decisions, system.changes)
    with _answers(system.kafka, route) as answers, system.start("latency") as worker:
        yield worker, route, answers
        system.kafka.wait_committed(system.group, system.requests)
        system.kafka.wait_committed(system.group, system.changes)


@contextmanager
def _answers(kafka: Kafka, route: Route) -> Iterator[Consumer]:
    consumer = kafka.tail(route.answers)
    try:
        yield consumer
    finally:
        consumer.close()


def _lone(kafka: Kafka, worker: Worker, route: Route, answers: Consumer, requests: int) -> list[float]:
    """One request at a time, the next when the answer is there; the first wait includes the worker's start.

    Returns milliseconds, those of the first few left out.
    """
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "linger.ms": 0, **NO_NAGLE}
    )
    times: list[float] = []
    for number in range(LONE_WARMUP + requests):
        key, value = request_record(f"{time.monotonic_ns()}-{number}", number)
        producer.produce(route.requests, value, key)
        producer.poll(0)
        deadline = time.monotonic() + (START_DEADLINE_S if number == 0 else LONE_DEADLINE_S)
        while (taken := take(answers)) is None:
            worker.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{route.name}: no answer to a lone request; its log ends:\n{worker.tail()}")
        times.append(taken[1] / NS_PER_MS)
    if producer.flush(LONE_DEADLINE_S):
        raise BenchError(f"{route.name}: lone requests were not acknowledged")
    return times[LONE_WARMUP:]


def _kept(route: Route, rate: float, seen: Seen, *, must_keep: bool = True) -> float:
    """The share of a load that was worked off while it came.

    A load that was not sent, or must be worked off and was not, is not the one that the table would claim.
    """
    if seen.rate < rate * LEAST_OF_RATE:
        raise BenchError(f"{route.name}: the generator reached {seen.rate:.0f} of {rate:.0f} records per second")
    if must_keep and seen.kept_up < rate * LEAST_OF_RATE:
        raise BenchError(f"{route.name}: {rate:.0f} records per second are more than it can do: {seen.kept_up:.0f}")
    return min(seen.kept_up / seen.rate, 1.0)


def _enforced(url: str) -> Enforced:
    """The worker's count of enforced opt-outs."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [sample for family in families if family.name == ENFORCEMENT for sample in family.samples]
    return {float(it.labels["le"]): it.value for it in samples if it.name.endswith("_bucket")}


def _bound(counts: Enforced, share: float) -> float:
    """The least bound, in milliseconds, within which so many were enforced."""
    wanted = counts[math.inf] * share
    return min(bound for bound, count in counts.items() if count >= wanted) * 1000
