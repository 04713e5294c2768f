"""Stage `latency`: produce to output, one at a time, at half load and at nine tenths of what is sustained.

What is sustained is searched first, see `sustained.py`. Then a bare Kafka echo and the product take turns: in each turn
a fresh process of one, then a fresh process of the other, gets lone requests, half load and nine tenths. While the
product is under load, its own metric tells how long opt-outs took to be enforced.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    LoadError,
)
from tests.bench.process import Worker
from tests.bench.results import Times
from tests.bench.sustained import Probe, scout
from tests.bench.systems import System

ENFORCEMENT = "consent_optout_enforcement_seconds"
#: Short loads that suggest a first rate.
SCOUTS = 4
#: Number of opt-outs that were enforced within so many seconds, by seconds.
Enforced = dict[float, float]


@dataclass(frozen=True, slots=True)
class Session:
    """One process of the echo or the product that answers, and the reader of its answers."""

    kafka: Kafka
    worker: Worker
    route: Route
    answers: Consumer

    def lone(self) -> Times:
        """Requests one at a time."""
        times = sorted(_lone(self, LONE_REQUESTS))
        return Times(_quantile(times, 0.5), _quantile(times, 0.99))

    def load(self, rate: float, seconds: float) -> Times:
        """An open load. The share of it that was worked off while it came is told with the times."""
        measured = self.route.changes is not None
        before = _enforced(self.worker) if measured else {}
        seen = self._put(rate, seconds)
        after = _enforced(self.worker) if measured else {}
        if seen.rate < rate * LEAST_OF_RATE:
            # What was not sent is not the load that the table would claim.
            name = self.route.name
            raise BenchError(f"{name}: the generator reached {seen.rate:.0f} of {rate:.0f} records per second")
        kept = min(seen.kept_up / seen.rate, 1.0)
        during = {bound: count - before.get(bound, 0) for bound, count in after.items()}
        bounds = [_bound(during, share) if during else None for share in (0.5, 0.99)]
        return Times(seen.quantile(0.5), seen.quantile(0.99), seen.rate, kept, *bounds)

    def probe(self, rate: float, seconds: float) -> Probe:
        """What comes of a rate; where it cannot be sent or is not answered in time, only that."""
        try:
            seen = self._put(rate, seconds)
        except LoadError as error:
            return Probe(rate, seconds, failure=str(error))
        return Probe(rate, seconds, seen.rate, seen.kept_up, seen.backlog)

    def scout(self, rate: float, seconds: float) -> float:
        """About how many records per second can be worked off; `rate` is more than that.

        Raises BenchError where no load could be sent.
        """
        found = scout(rate, lambda tried: self.probe(tried, seconds), SCOUTS)
        if found is None:
            raise BenchError(f"{self.route.name}: {rate:.0f} records per second and less cannot be sent: see --rate")
        return found

    def _put(self, rate: float, seconds: float) -> Seen:
        return put_under_load(self.kafka, self.worker, self.route, self.answers, rate, seconds)


@contextmanager
def product_session(system: System) -> Iterator[Session]:
    """A worker of the product; what it was sent is committed at the end, or the next one would see it again."""
    route = Route(system.name, system.requests, system.decisions, system.changes)
    with _answers(system.kafka, route) as answers, system.start("latency") as worker:
        session = Session(system.kafka, worker, route, answers)
        _lone(session, 0)
        yield session
        system.kafka.wait_committed(system.group, system.requests)
        system.kafka.wait_committed(system.group, system.changes)


@contextmanager
def echo_session(kafka: Kafka, folder: Path) -> Iterator[Session]:
    """The floor: a process that consumes and produces the same records and does nothing else.

    It keeps no offsets, so every folder (one per turn) has topics of its own.
    """
    topics = kafka.prefix + folder.name
    route = Route("echo", topics + "-in", topics + "-out", None)
    kafka.create(route.requests, route.answers)
    command = [sys.executable, "-m", "tests.bench.echo", kafka.bootstrap, route.requests, route.answers]
    with _answers(kafka, route) as answers, Worker("echo", command, {}, folder / "echo.log") as worker:
        session = Session(kafka, worker, route, answers)
        _lone(session, 0)
        yield session


@contextmanager
def _answers(kafka: Kafka, route: Route) -> Iterator[Consumer]:
    consumer = kafka.tail(route.answers)
    try:
        yield consumer
    finally:
        consumer.close()


def _lone(session: Session, requests: int) -> list[float]:
    """One request at a time, the next when the answer is there; the first wait includes the worker's start.

    Returns milliseconds, those of the first few left out.
    """
    worker, route = session.worker, session.route
    producer = Producer(
        {
            "bootstrap.servers": session.kafka.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "enable.idempotence": True,
            **NO_NAGLE,
        }
    )
    times: list[float] = []
    for number in range(LONE_WARMUP + requests):
        key, value = request_record(f"{time.monotonic_ns()}-{number}", number)
        producer.produce(route.requests, value, key)
        producer.poll(0)
        deadline = time.monotonic() + (START_DEADLINE_S if number == 0 else LONE_DEADLINE_S)
        while (taken := take(session.answers)) is None:
            worker.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{route.name}: no answer to a lone request; its log ends:\n{worker.tail()}")
        times.append(taken[1] / NS_PER_MS)
    if producer.flush(LONE_DEADLINE_S):
        raise BenchError(f"{route.name}: lone requests were not acknowledged")
    return times[LONE_WARMUP:]


def _quantile(times: list[float], share: float) -> float:
    """So many of some times in order are at most this."""
    return times[min(int(len(times) * share), len(times) - 1)]


def _enforced(worker: Worker) -> Enforced:
    """The worker's count of enforced opt-outs."""
    url = f"{worker.url()}/metrics"
    try:
        answer = httpx.get(url).raise_for_status()
    except httpx.HTTPError as error:
        raise BenchError(f"{worker.name}: {url} could not be read: {error or type(error).__name__}") from error
    samples = [it for family in text_string_to_metric_families(answer.text) for it in family.samples]
    return {float(it.labels["le"]): it.value for it in samples if it.name == f"{ENFORCEMENT}_bucket"}


def _bound(counts: Enforced, share: float) -> float:
    """The least bound, in milliseconds, within which so many were enforced."""
    wanted = counts[math.inf] * share
    return min(bound for bound, count in counts.items() if count >= wanted) * 1000
