"""Stage `intake`: writes of the v2 subscription API over HTTP, at a fixed rate whatever comes back (open loop).

Each request is one customer's batch of three entries, with credentials, written by the worker into the log; its time
runs from the moment at which it was due to the answer.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import httpx

from tests.bench.checkout import ROOT
from tests.bench.events import ORG, ORG_UNITS, SOURCES, TYPES
from tests.bench.kafka import Kafka
from tests.bench.plan import (
    INTAKE_CONNECTIONS,
    INTAKE_CUSTOMERS,
    INTAKE_RATE,
    INTAKE_WARMUP_S,
    LONE_DEADLINE_S,
    START_DEADLINE_S,
    BenchError,
)
from tests.bench.systems import introduce, product

USER, PASSWORD = "bench", "only for this bench"


@dataclass(frozen=True, slots=True)
class Intake:
    """Requests per second as reached, and milliseconds from due to answered."""

    rate: float
    p50: float
    p99: float


def run_intake(kafka: Kafka, folder: Path, seconds: float) -> Intake:
    """Measure a fresh worker whose customers are registered."""
    system = product(kafka, folder, "intake")
    introduce(system, INTAKE_CUSTOMERS)
    users = folder / "users.yaml"
    command = [sys.executable, "-m", "streams", "users", "add", USER, "--org", str(ORG), "--users-file", str(users)]
    added = subprocess.run(command, cwd=ROOT, input=f"{PASSWORD}\n", text=True, capture_output=True, check=False)
    if added.returncode:
        raise BenchError(f"no user could be added: {added.stderr.strip()}")
    with system.start("intake", CONSENT_USERS_FILE=str(users)) as worker:
        worker.wait_for_log("worker ready at", START_DEADLINE_S)
        return asyncio.run(_measure(worker.url(), seconds))


async def _measure(url: str, seconds: float) -> Intake:
    limits = httpx.Limits(max_connections=INTAKE_CONNECTIONS, max_keepalive_connections=INTAKE_CONNECTIONS)
    # Clients that are set up one by one cost more than what is measured: a few are shared, as a platform's would be.
    clients = [
        httpx.AsyncClient(base_url=url, auth=(USER, PASSWORD), timeout=LONE_DEADLINE_S, limits=limits) for _ in range(4)
    ]
    pick, turns = random.Random(0), cycle(clients)
    begin = time.monotonic()
    sending: list[asyncio.Task[float]] = []
    for number in range(int((seconds + INTAKE_WARMUP_S) * INTAKE_RATE)):
        due = begin + number / INTAKE_RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        sending.append(asyncio.create_task(_request(next(turns), pick, due)))
    times = await asyncio.gather(*sending)
    took = time.monotonic() - begin
    await asyncio.gather(*(client.aclose() for client in clients))
    measured = sorted(times[int(INTAKE_WARMUP_S * INTAKE_RATE) :])
    return Intake(len(times) / took, measured[len(measured) // 2], measured[len(measured) * 99 // 100])


async def _request(client: httpx.AsyncClient, pick: random.Random, due: float) -> float:
    """One request; milliseconds since it was due."""
    entries = [
        {
            "channel": channel,
            "accountId": "01",
            "priority": priority,
            "type": pick.choice(TYPES),
            "orgUnitId": pick.choice(ORG_UNITS),
            "sourceName": pick.choice(SOURCES),
        }
        for channel, priority in (("EMAIL", "BULK"), ("MOBILE", "BULK"), ("EMAIL", "TRANS"))
    ]
    path = f"/v2/customers/{pick.randrange(INTAKE_CUSTOMERS)}/subscriptions"
    answer = await client.post(path, json={"reason": "bench", "campaignId": -1, "subscriptions": entries})
    if answer.status_code != httpx.codes.OK or len(answer.json()["subscriptions"]) != len(entries):
        raise BenchError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
    return (time.monotonic() - due) * 1000
