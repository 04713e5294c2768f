"""Fetching jars by Maven coordinates: jgo's Python resolver finds which, the download checks each against its SHA-1.

jgo's own download only warns when a checksum differs and leaves a truncated file behind when it is interrupted, so
the downloading half of its resolver is replaced here. Its environment builder is not used either: that sorts jars into
two folders with the help of a JDK which it downloads for the purpose, and a class path needs no such sorting.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from jgo.maven import MavenContext, PythonResolver

from .errors import BrokerError
from .maven import without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jgo.maven import Artifact

TIMEOUTS_S = (5, 15)  # to connect, and between two pieces of an answer
TRIES = 3
DOWNLOADS_AT_ONCE = 6
RUNTIME_SCOPES = (None, "compile", "runtime")


class _CheckedResolver:
    """jgo's PythonResolver with a download that checks, retries and writes whole files only."""

    def __init__(self) -> None:
        self._poms = PythonResolver()
        self._session = requests.Session()  # keeps connections open: 130 small files are fetched
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=DOWNLOADS_AT_ONCE))

    def resolve(self, dependencies: list[Any]) -> tuple[list[Any], list[Any]]:
        inputs, transitive = self._poms.resolve(dependencies)
        return inputs, transitive

    def download(self, artifact: Artifact) -> Path:
        where = f"{artifact.component.path_prefix.as_posix()}/{artifact.filename}"
        failures: list[str] = []
        for repository in artifact.context.remote_repos.values():
            content = self._get(f"{repository}/{where}", failures)
            if content is not None:
                file: Path = artifact.cached_path
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_name(file.name + ".part")
                part.write_bytes(content)
                part.rename(file)
                return file
        raise BrokerError(f"{artifact.filename} cannot be fetched: {failures[-1]}")

    def _get(self, url: str, failures: list[str]) -> bytes | None:
        """The file at `url` if it agrees with the `.sha1` published beside it; else None and one more failure."""
        shown = without_credentials(url)
        for attempt in range(TRIES):
            if attempt:
                time.sleep(attempt)  # a pause between tries, in seconds: repositories throttle
            try:
                answer = self._session.get(url, timeout=TIMEOUTS_S)
                if answer.status_code == requests.codes.not_found:
                    failures.append(f"{shown} does not exist")
                    return None
                published = self._session.get(f"{url}.sha1", timeout=TIMEOUTS_S)
                answer.raise_for_status()
                published.raise_for_status()
            except requests.RequestException as error:
                failures.append(_reason(error, shown))
                continue
            if hashlib.sha1(answer.content, usedforsecurity=False).hexdigest() == published.text.split()[0]:
                return answer.content
            failures.append(f"{shown} does not have its published checksum")
        return None


def _reason(error: requests.RequestException, url: str) -> str:
    status = getattr(error.response, "status_code", None)
    return f"{url} answers {status}" if status else f"no connection to {url} ({type(error).__name__})"


def fetch(
    coordinates: Iterable[str], repository: Path, repositories: dict[str, str], fetched: Callable[[int, int], None]
) -> list[Path]:
    """Download the jars of `coordinates` and of all that they need at run time into `repository`, a Maven layout.

    `repositories` maps names to URLs; empty means Maven Central. `fetched` is told after each jar, from any
    thread, how many are here and how many there will be.

    Raises BrokerError when a file is missing, cannot be reached, or is not what its repository published.
    """
    context = MavenContext(resolver=_CheckedResolver(), repo_cache=repository, remote_repos=repositories or None)
    inputs, transitive = context.resolver.resolve([context.create_dependency(text) for text in coordinates])
    artifacts = [found.artifact for found in [*inputs, *transitive] if found.scope in RUNTIME_SCOPES]

    done = itertools.count(1)
    fetched(0, len(artifacts))

    def one(artifact: Artifact) -> Path:
        jar: Path = artifact.resolve()
        fetched(next(done), len(artifacts))
        return jar

    pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="broker-jars")
    try:
        return list(pool.map(one, artifacts))
    finally:
        pool.shutdown(cancel_futures=True)
