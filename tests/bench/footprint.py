"""Stage `footprint`: bytes on disk per customer and resident memory, at a small and a large number of customers.

Each size has topics, a folder and a worker of its own: everybody registers and opts in once, the worker works through
it, both sizes then get the same burst of requests, and memory is read from the same, still running worker when its
folder has come to rest. The folder is measured after an orderly end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.events import opt_in_records, registration_records, request_records, settings_record
from tests.bench.kafka import Kafka
from tests.bench.plan import (
    FOOTPRINT_PROBES,
    POLL_S,
    SETTLE_DEADLINE_S,
    SETTLED_S,
    SLOWEST_LOAD_PER_S,
    START_DEADLINE_S,
    BenchError,
)
from tests.bench.process import Worker
from tests.bench.systems import product


@dataclass(frozen=True, slots=True)
class Footprint:
    """One size: the worker's resident memory and its folder."""

    customers: int
    resident_bytes: int
    disk_bytes: int

    @property
    def bytes_per_customer(self) -> float:
        """Folder size over customers."""
        return self.disk_bytes / self.customers


def run_footprint(kafka: Kafka, folder: Path, customers: int) -> Footprint:
    """Load `customers` customers into a fresh worker and see what it takes."""
    system = product(kafka, folder, f"footprint-{customers}")
    count = kafka.produce(system.changes, [settings_record()], every_partition=True)
    count += kafka.produce(system.changes, registration_records(customers))
    count += kafka.produce(system.changes, opt_in_records(customers))
    with system.start("load") as worker:
        _wait(kafka, worker, system.audit, count + system.markers(system.audit))
        kafka.produce(system.requests, request_records(FOOTPRINT_PROBES, customers))
        _wait(kafka, worker, system.decisions, FOOTPRINT_PROBES + system.markers(system.decisions))
        _settle(worker, system.state)
        resident = worker.resident_bytes()
        kafka.wait_committed(system.group, system.changes)
    return Footprint(customers, resident, folder_bytes(system.state))


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below a folder; one that a compaction removes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _wait(kafka: Kafka, worker: Worker, topic: str, count: int) -> None:
    deadline = time.monotonic() + START_DEADLINE_S + count / SLOWEST_LOAD_PER_S
    while (done := sum(kafka.ends(topic))) < count:
        worker.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{worker.name}: only {done} of {count} in {topic}; its log ends:\n{worker.tail()}")
        time.sleep(POLL_S)


def _settle(worker: Worker, folder: Path) -> None:
    """Wait until the folder has kept its size for a while."""
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    size, since = folder_bytes(folder), time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        worker.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{worker.name}: its folder did not settle within {SETTLE_DEADLINE_S:.0f} s")
        if (now := folder_bytes(folder)) != size:
            size, since = now, time.monotonic()
        time.sleep(POLL_S)
