"""Kafka Streams as a peer: built by Maven from `kstreams/`, once, into the user's cache; left out where Java is not."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.bench.plan import BenchError

PROJECT = Path(__file__).parent / "kstreams"
BUILD_DEADLINE_S = 600.0
LEAST_JAVA = 17
MAIN = "bench.Job"


def missing() -> str | None:
    """Why Kafka Streams cannot take part, or None."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if absent:
        return f"there is no {' and no '.join(absent)} here"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < LEAST_JAVA:
        return f"Java {LEAST_JAVA} or newer is needed"
    return None


def command() -> tuple[str, ...]:
    """How its worker is started; builds it if that was not done yet. Raises BenchError."""
    classes = _built()
    path = os.pathsep.join([str(classes / "classes"), str(classes / "jars" / "*")])
    return ("java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", path, MAIN)


def _built() -> Path:
    sources = sorted([PROJECT / "pom.xml", *PROJECT.rglob("*.java")])
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consent-streams"
    folder = base / f"bench-kstreams-{digest}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT, folder / "project")
    build = ["mvn", "-q", "-B", "compile", "dependency:copy-dependencies", "-DincludeScope=runtime"]
    build.append(f"-DoutputDirectory={folder / 'jars'}")
    try:
        done = subprocess.run(
            build, cwd=folder / "project", capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"Maven took more than {BUILD_DEADLINE_S:.0f} s") from error
    if done.returncode:
        raise BenchError(f"Maven could not build the Kafka Streams peer: {done.stdout.strip()[-500:]}")
    shutil.move(folder / "project" / "target" / "classes", folder / "classes")
    (folder / "done").touch()
    return folder
