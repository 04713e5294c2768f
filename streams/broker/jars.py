"""Kafka's jars: fetched once by their Maven coordinates with jgo's Python resolver, kept in the user's cache folder.
No Maven and no Java are needed for it, and no network once they are here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import BrokerError
from .maven import central_repositories, without_credentials
from .progress import Progress, Say, say_on_stderr

#: The Kafka of the product. Tests may start another one, see `EmbeddedBroker`.
KAFKA_VERSION = "4.3.1"
COORDINATES = ("org.apache.kafka:kafka_2.13:{version}", "org.slf4j:slf4j-simple:1.7.36")
MANIFEST = "manifest.json"
OTHER_WAYS = "set CONSENT_BOOTSTRAP_SERVERS to a Kafka that runs, or start a Docker engine"


def cache_folder(version: str = KAFKA_VERSION) -> Path:
    """Where the jars of a version are kept: below `XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "consent-streams" / f"kafka-{version}"


def kafka_jars(say: Say = say_on_stderr, version: str = KAFKA_VERSION) -> list[Path]:
    """The jars of Kafka's class path, downloaded first if the cache does not hold them all unharmed.

    Every jar is compared with the SHA-256 recorded when it was fetched, so a full cache needs no network. Blocks
    while another process fetches the same jars.

    Raises BrokerError with one line when jars are missing and cannot be fetched.
    """
    folder = cache_folder(version)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock"), say):
            jars = _intact(folder)
            return jars if jars else _fetch(version, folder, say)
    except OSError as error:
        raise BrokerError(f"the cache folder {folder} cannot be used: {error}") from error


@contextmanager
def _locked(file: Path, say: Say) -> Iterator[None]:
    with (
        file.open("w") as lock,
        Progress(lambda: "another process fetches Kafka's jars: waiting for it", say) as waiting,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting.over()
        yield


def _intact(folder: Path) -> list[Path]:
    """The jars of the manifest if each is there with its checksum, else nothing."""
    try:
        manifest: dict[str, str] = json.loads((folder / MANIFEST).read_text("utf-8"))["sha256"]
        jars = [folder / name for name in sorted(manifest)]
        return jars if all(_digest(jar, "sha256") == manifest[jar.name] for jar in jars) else []
    except (FileNotFoundError, ValueError, KeyError):
        return []


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, algorithm).hexdigest()


def _fetch(version: str, folder: Path, say: Say) -> list[Path]:
    """Download into a fresh folder beside `folder` and swap it in: half a download never looks like a whole one."""
    temporary = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed at it
    staged = temporary / "jars"
    staged.mkdir(parents=True)
    coordinates = [coordinate.format(version=version) for coordinate in COORDINATES]
    try:
        sums = {}
        for jar in _download(version, coordinates, temporary / "repository", say):
            moved = jar.rename(staged / jar.name)
            sums[moved.name] = _digest(moved, "sha256")
        (staged / MANIFEST).write_text(json.dumps({"coordinates": coordinates, "sha256": sums}, indent=1), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in sorted(sums)]


def _download(version: str, coordinates: Sequence[str], repository: Path, say: Say) -> list[Path]:
    """Fetch all jars into `repository`, a folder of ours alone."""
    try:
        from .fetch import fetch  # noqa: PLC0415  jgo is an extra
    except ImportError as error:
        raise BrokerError(
            f"the embedded Kafka needs jgo: pip install 'consent-streams[embedded]', {OTHER_WAYS}"
        ) from error
    repositories = central_repositories()
    source = " and ".join(map(without_credentials, repositories.values())) or "Maven Central"
    so_far = "asking what it needs"

    def fetched(done: int, total: int) -> None:
        nonlocal so_far
        so_far = f"{done} of {total} jars"

    try:
        with Progress(lambda: f"fetching Kafka {version} (45 MB, once) from {source}: {so_far}", say):
            return fetch(coordinates, repository, repositories, fetched)
    except OSError:
        raise
    except Exception as error:  # jgo raises RuntimeError, ValueError, ParseError: all mean the same here
        raise BrokerError(
            f"Kafka {version} is not in {cache_folder(version)} and cannot be fetched ({error}): "
            f"connect once to {source}, {OTHER_WAYS}"
        ) from error
