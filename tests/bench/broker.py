"""The run's brokers: the product's embedded Kafka, one or a cluster, in a folder of this run, or given ones."""

from __future__ import annotations

import unittest
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.broker import FAST_JVM, KAFKA_VERSION, BrokerError, EmbeddedBroker
from tests.bench.plan import BenchError
from tests.cluster import Cluster, Node
from tests.proxies import Way

#: Kafka's own times where those of the tests' cluster are short: a machine that is busy must not move leaders.
PATIENT = {
    "broker.session.timeout.ms": "9000",
    "broker.heartbeat.interval.ms": "2000",
    "replica.lag.time.max.ms": "30000",
    "num.io.threads": "4",
}


class _Direct(Cluster):
    """A cluster whose nodes reach each other without proxies: a hop through Python is no part of a replication."""

    def _ways(self) -> Iterable[Way]:
        return ()

    def _hosts(self, node: Node) -> str:
        return "".join(f"127.0.0.1 {name}\n" for name in ("localhost", *(one.host for one in self.nodes.values())))


def kafka_version(given: str | None) -> str:
    """Which Kafka the run is on, for the report."""
    return "given by --bootstrap" if given else f"{KAFKA_VERSION} (embedded)"


@contextmanager
def brokers(count: int, folder: Path, given: str | None) -> Iterator[str]:
    """Yield the address of so many running brokers; ours end with the block, given ones are left alone.

    Raises BenchError when ours cannot be started.
    """
    if given:
        yield given
        return
    with _embedded(folder) if count == 1 else _cluster(count, folder) as bootstrap:
        yield bootstrap


@contextmanager
def _embedded(folder: Path) -> Iterator[str]:
    # Not the product's small JVM: a bench must not measure the broker's garbage collector or a cheap compiler.
    embedded = EmbeddedBroker(folder, jvm_flags=FAST_JVM)
    try:
        embedded.start()
    except BrokerError as error:
        raise BenchError(str(error)) from error
    try:
        yield embedded.bootstrap
    finally:
        embedded.stop()


@contextmanager
def _cluster(count: int, folder: Path) -> Iterator[str]:
    cluster = _Direct(folder, count, min_insync=count - 1, jvm_flags=FAST_JVM, properties=PATIENT)
    try:
        try:
            cluster.start()
            cluster.wait_until_whole()
        except (AssertionError, OSError, RuntimeError, unittest.SkipTest) as error:
            said = str(error).partition("\n")[0]
            raise BenchError(f"{count} brokers could not be started: {said}; their logs are in {folder}") from error
        yield cluster.bootstrap
    finally:
        cluster.close()
