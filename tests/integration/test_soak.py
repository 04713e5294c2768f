"""One worker under a mixed load for SOAK_MINUTES (`make soak`), else for 40 seconds: what it takes stays within bounds.

The bounds are stated in the README, under "Memory and open files".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from streams.http.users import changing, make_account
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.orgs import Org
from tests.integration.soaking import PASSWORD, SECRET, USER, Samples, Soak, settings

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory and files are read from /proc"),
]

PARTITIONS = 8
SHORT_S = 40
MINUTES = float(os.environ.get("SOAK_MINUTES") or 0)
SECONDS = int(MINUTES * 60) or SHORT_S
#: Until then, caches fill: of states, of RocksDB, of verified passwords and answers.
WARM_UP_S = min(SECONDS // 2, 180)
MIB = 1 << 20
#: A worker takes at most so much, and after the warm-up grows at most by so much; in a short run caches still fill.
MOST_BYTES = 256 * MIB
MOST_GROWTH_BYTES = 24 * MIB if SECONDS >= 240 else 48 * MIB
#: Open files: sockets and the like, and for each partition those of its two RocksDBs.
MOST_FILES = 64 + 32 * PARTITIONS


def test_memory_and_open_files_stay_within_their_bounds(
    make_world: MakeWorld, make_worker: MakeWorker, tmp_path: Path
) -> None:
    world = make_world(PARTITIONS)
    org = Org(world, **settings())
    with changing(tmp_path / "users.jsonl") as accounts:
        accounts[USER] = make_account(USER, [org.id], PASSWORD)
    env = {"CONSENT_USERS_FILE": str(tmp_path / "users.jsonl"), "CONSENT_LINK_SECRET": SECRET}
    worker = make_worker(world, **env).start().ready()
    samples = Samples(worker.pid)
    with Soak(org, worker) as soak:
        for _ in range(SECONDS):
            samples.take()
            if soak.over.wait(1.0):
                break
    world.settle()
    samples.take()
    text = (
        f"{SECONDS} s, {soak.records} records, {soak.asked} HTTP requests: {samples.memory[WARM_UP_S] // MIB} MiB "
        f"after {WARM_UP_S} s, {samples.growth(WARM_UP_S) / MIB:+.1f} MiB since, "
        f"{max(samples.memory) // MIB} MiB at most; {max(samples.files)} files at most, {samples.files[-1]} at the end"
    )
    print(f"\nsoak: {text}")
    assert worker.stop() == 0, worker.errors[-3000:]
    assert soak.asked > SECONDS, text
    assert max(samples.memory) < MOST_BYTES, text
    assert samples.growth(WARM_UP_S) < MOST_GROWTH_BYTES, text
    assert max(samples.files) < MOST_FILES, text
