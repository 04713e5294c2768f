"""The reduced job's place in one run, shared by its two implementations: names and settings from the environment.

The job: keep the latest entry of every cell in one durable table with a changelog and write an audit record per
change; answer a request from the table, the most recent entry over all sources deciding. No registration, settings,
validation, org units, dead letters or fence.
"""

from __future__ import annotations

import os
from pathlib import Path

BOOTSTRAP = os.environ.get("BENCH_BOOTSTRAP", "127.0.0.1:9092")
PREFIX = os.environ.get("BENCH_PREFIX", "bench-")
PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "4"))
STATE = Path(os.environ.get("BENCH_STATE", "bench-state"))

#: Consumer group and application id in one, as both frameworks have it.
GROUP = PREFIX + "job"
CHANGES, AUDIT = PREFIX + "changes", PREFIX + "audit"
REQUESTS, DECISIONS = PREFIX + "requests", PREFIX + "decisions"
