"""What can be seen on this machine alone: the data folder and the users file."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from streams.config import Config
from streams.engine.guard import GuardError, identify
from streams.http.users import UsersError, read_users
from streams.kafka.admin import Cluster, identity
from streams.topics import STATEFUL

from .findings import Finding, ok, problem, skipped, warning

#: RocksDB needs room to rewrite what it holds, and stops when there is none.
LEAST_FREE_BYTES, LITTLE_FREE_BYTES = 256 << 20, 2 << 30


def look_here(config: Config, cluster: Cluster | None) -> Iterator[Finding]:
    """The checks of this machine; whether the state belongs to `cluster`, if that could be asked."""
    yield from _folder(config.datadir)
    yield from _state(config, cluster)
    yield from _users(config)


def _folder(folder: Path) -> Iterator[Finding]:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} cannot be written by this user"
        yield problem("data folder", text, "give it to the worker's user, or set CONSENT_DATADIR")
        return
    free = shutil.disk_usage(there).free
    text = f"{folder}, {free / (1 << 30):.1f} GiB free"
    if free < LITTLE_FREE_BYTES:
        finding = problem if free < LEAST_FREE_BYTES else warning
        yield finding("data folder", text, "make room: a worker whose disk is full ends")
    else:
        yield ok("data folder", text)


def _state(config: Config, cluster: Cluster | None) -> Iterator[Finding]:
    folder = config.datadir / "state"
    if not (folder / "identity.json").exists():
        yield ok("state", f"none yet in {folder}")
        return
    if cluster is None or any(spec.name not in cluster.topics for spec in STATEFUL):
        yield skipped("state", "what it belongs to cannot be compared without Kafka and its topics")
        return
    try:
        identify(folder, identity(config, cluster))
    except (GuardError, OSError) as error:
        yield problem("state", str(error), "")
        return
    holder = _holder(folder / "worker.lock")
    yield ok("state", f"of this cluster and these topics, {f'held by worker {holder}' if holder else 'not in use'}")


def _holder(lock: Path) -> str | None:
    """The process that holds the folder, None if nobody does. Shared, so that two who look do not see each other."""
    try:
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "unknown"
    except OSError:
        pass
    return None


def _users(config: Config) -> Iterator[Finding]:
    if not config.users_file:
        if config.listens_on_loopback:
            yield ok("users", "no users file: HTTP is for this machine only")
        elif config.http_token:
            yield warning("users", "no users file: only the token is let in", "`consent-streams users add` makes users")
        else:
            text = f"HTTP listens on {config.http_host}, but there are neither users nor a token: nobody is let in"
            yield problem("users", text, "set CONSENT_USERS_FILE or CONSENT_HTTP_TOKEN")
        return
    file = Path(config.users_file).expanduser()
    try:
        accounts = read_users(file)
    except UsersError as error:
        yield problem("users", str(error), "`consent-streams users` writes such a file")
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        text = f"{file} can be read by others (mode {mode:04o}): it holds hashes of passwords"
        yield warning("users", text, f"chmod 600 {file}")
    elif not accounts:
        yield warning("users", f"{file} has no users", "`consent-streams users add` makes one")
    else:
        yield ok("users", f"{len(accounts)} in {file}")
