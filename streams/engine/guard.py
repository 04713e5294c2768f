"""Start-up checks: the data folder is ours alone, and of this cluster, these topics and this partition count."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, TextIO


class GuardError(Exception):
    """The worker must not start here; the message is one clear line."""


def lock(folder: Path) -> TextIO:
    """Take the folder for this process; the lock ends with the returned file or the process. Raises GuardError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "worker.lock").open("a+")
    except OSError as exc:
        raise GuardError(f"the data folder {folder} cannot be used: {exc.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise GuardError(
            f"the data folder {folder} is in use by another worker (pid {owner}): give each its own CONSENT_DATADIR"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def identify(folder: Path, identity: dict[str, Any]) -> None:
    """Tie the folder to a cluster, topics and partition count on first use; later compare. Raises GuardError."""
    file = folder / "identity.json"
    if not file.exists():
        draft = file.with_suffix(".tmp")
        draft.write_text(json.dumps(identity, indent=1, sort_keys=True))
        draft.replace(file)
        return
    try:
        known = json.loads(file.read_text())
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise GuardError(f"{file} is damaged: remove the data folder to restore the state from the changelog") from None
    for name, value in identity.items():
        if known.get(name) != value:
            raise GuardError(
                f"the data folder {folder} belongs to another {name.replace('_', ' ')} ({known.get(name)}, here "
                f"{value}): use another CONSENT_DATADIR, or remove this one to restore the state from the changelog"
            )
