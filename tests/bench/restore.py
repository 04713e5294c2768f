"""Stage `restore`: a worker that comes back with an empty folder reads its whole changelog; records per second.

Every worker is watched in its own way, because none shows this on the outside alike: the product by its HTTP (from the
first sight of restore progress in `/metrics` until `/readyz` is 200), plain Faust by its log (from "Restoring state" to
"Recovery complete"). Records are what the changelog topics span.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import time
from dataclasses import dataclass

from tests.bench.plan import POLL_S, PRODUCT, START_DEADLINE_S, BenchError
from tests.bench.process import Worker
from tests.bench.systems import System

#: Restoring slower than this is taken for stuck.
SLOWEST_PER_S = 2_000
HTTP_TIMEOUT_S = 2.0
LOOPBACK = "127.0.0.1"
#: The product's restore progress, as its metrics call it.
RESTORED, LEFT = "consent_restored_records_total", "consent_restore_remaining_records"
FAUST_BEGIN, FAUST_END = "Restoring state from changelog", "Recovery complete"


@dataclass(frozen=True, slots=True)
class Restored:
    """One restore: how many changelog records in how many seconds."""

    records: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Records per second."""
        return self.records / self.seconds


def run_restore(system: System) -> Restored:
    """Empty the worker's folder, start it, time its recovery. The system's topics must hold a worked-through input."""
    records = sum(system.kafka.records(topic) for topic in system.changelogs())
    if not records:
        raise BenchError(f"{system.name}: its changelog is empty, there is nothing to restore")
    shutil.rmtree(system.state)
    deadline_s = START_DEADLINE_S + records / SLOWEST_PER_S
    if system.name == PRODUCT:
        port = _free_port()
        with system.start("restore", CONSENT_HTTP_PORT=str(port)) as worker:
            return _watch_http(worker, port, records, deadline_s)
    with system.start("restore") as worker:
        begin = worker.wait_for_log(FAUST_BEGIN, deadline_s)
        return Restored(records, worker.wait_for_log(FAUST_END, deadline_s) - begin)


def _watch_http(worker: Worker, port: int, records: int, deadline_s: float) -> Restored:
    end = time.perf_counter() + deadline_s
    begin: tuple[float, float] | None = None
    while _get(port, "/readyz")[0] != http.client.OK:
        worker.check()
        now = time.perf_counter()
        if begin is None:
            restored, left = _progress(port)
            begin = (restored, now) if restored or left else None
        if now > end:
            raise BenchError(f"{worker.name} was not ready within {deadline_s:.0f} s; its log ends:\n{worker.tail()}")
        time.sleep(POLL_S)
    done = time.perf_counter()
    if begin is None or begin[0] >= records:
        # Over before it could be seen: the whole start stands for it, which is never in the product's favour.
        return Restored(records, done - worker.started)
    return Restored(int(records - begin[0]), done - begin[1])


def _progress(port: int) -> tuple[float, float]:
    """Records restored so far and records left, over all partitions; zeros while there is nothing to see."""
    sums = {RESTORED: 0.0, LEFT: 0.0}
    for line in _get(port, "/metrics")[1].splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in sums:
            sums[name] += float(line.rpartition(" ")[2])
    return sums[RESTORED], sums[LEFT]


def _get(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody listens yet."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
