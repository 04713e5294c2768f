"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from tests.bench.checkout import HERE

GIB = 1 << 30
PACKAGES = ("faust-streaming", "aiokafka", "rocksdict", "quixstreams", "confluent-kafka")


def describe(kafka_version: str, command: str) -> dict[str, str]:
    """Commit, command, machine and versions, as label and text, in the order to print them."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "commit": HERE.commit,
        "command": command,
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{memory / GIB:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f} (1 minute)",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kafka": kafka_version,
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
