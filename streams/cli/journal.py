"""How far an import came: a small file in the data folder, so that it goes on there after an interruption."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import orjson

from streams.config import Config

EVERY_S = 1.0


class Journal:
    """One batch's journal; there is none before the first row and after the last.

    :param content: what is imported (the file's digest and how it is read): another content begins anew.
    """

    def __init__(self, config: Config, org_id: int, batch_id: str, content: str) -> None:
        self._path = path_of(config, org_id, batch_id)
        self._about = {"org_id": org_id, "batch_id": batch_id, "content": content}
        self._saved = -math.inf
        self.rows = 0

    def read(self) -> int:
        """How many rows of this content were acknowledged before."""
        try:
            found = orjson.loads(self._path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return 0
        about = {name: found.get(name) for name in self._about} if isinstance(found, dict) else {}
        self.rows = int(found["rows"]) if about == self._about else 0
        return self.rows

    def acknowledged(self, row: int) -> None:
        """Every row up to this one is in the log; written down once a second."""
        self.rows = row
        if time.monotonic() - self._saved >= EVERY_S:
            self.save()

    def save(self) -> None:
        """Write it down now: whole, or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        draft.write_bytes(orjson.dumps(self._about | {"rows": self.rows}))
        draft.replace(self._path)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The import is complete."""
        self._path.unlink(missing_ok=True)


def path_of(config: Config, org_id: int, batch_id: str) -> Path:
    """Where the journal of a batch is."""
    name = hashlib.sha256(f"{config.topic_prefix}\0{org_id}\0{batch_id}".encode()).hexdigest()[:32]
    return config.datadir / "imports" / f"{name}.json"
