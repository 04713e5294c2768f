"""One partition of the state: how far it is, what settings are in force, and who waits for it."""

from __future__ import annotations

import asyncio
import heapq
import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import orjson

from schemas.settings import OrgSettings
from streams.domain.keys import settings_key
from streams.domain.orgs import Org
from streams.domain.state import FORMAT_VERSION, UnknownFormatError, decode_state
from streams.engine.table import BytesStore

#: Reserved key of a partition's own record: no customer's and no org's key begins with a zero byte.
META_KEY = b"\0partition"
#: What one more change adds to a state, roughly; only the size at which a checkpoint ends early depends on it.
GROWTH_BYTES = 200
_NUMBER = re.compile(rb"-?[0-9]+")


class Partition:
    """State of one partition of `consent.changes` at `applied`: every record below that offset is in it.

    It is ahead of the store until the checkpoint is written. Whoever reads it then reads what the log says all the
    same: should the checkpoint fail, the next owner comes to the same state from the same records.
    """

    def __init__(self, number: int, store: BytesStore, decode: Callable[[bytes | None], Any] = decode_state) -> None:
        self.number = number
        self.store = store
        #: What makes a state of a value.
        self.decode = decode
        #: Below `written`, what the records caused is in the log too. `stored` is the store's own position.
        self.applied = self.written = self.stored = self._begun = _read_meta(store, number)
        self._orgs: dict[int, Org | None] = {}
        #: What was applied and is not in the store yet: by the checkpoint that is being written, and by the next one.
        self._writing: dict[bytes, bytes | None] = {}
        self._unwritten: dict[bytes, bytes | None] = {}
        #: Called whenever `applied` has grown.
        self.on_advance: Callable[[], None] = lambda: None
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = count()

    def org(self, org_id: int) -> Org | None:
        """The org's settings in force at `applied`; None if it is unknown."""
        if org_id not in self._orgs:
            raw = self.store.get_many(self.number, [settings_key(org_id)])[0]
            self._orgs[org_id] = None if raw is None else Org(OrgSettings.model_validate_json(raw))
        return self._orgs[org_id]

    def org_ids(self) -> set[int]:
        """The orgs that settings are in force for."""
        stored = {int(head) for head in self.store.heads_of(self.number, b":") if _NUMBER.fullmatch(head)}
        return {org_id for org_id in stored | set(self._orgs) if self.org(org_id) is not None}

    def states(self, keys: list[bytes]) -> dict[bytes, bytes | None]:
        """The state of each key at `applied`, None where there is none."""
        found = dict(zip(keys, self.store.get_many(self.number, keys), strict=True))
        for newer in (self._writing, self._unwritten):
            if newer:
                found.update((key, newer[key]) for key in keys if key in newer)
        return found

    def publish(self, view: View) -> None:
        """Some records are applied: from here on their changes are what is read and decided on."""
        self._unwritten.update(view.changed())
        self._orgs.update(view.orgs)
        self.advance(view.applied)

    def begin_write(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values of everything applied since the last call, for the changelog; the position last."""
        self._writing, self._unwritten = self._unwritten, {}
        self._begun = self.applied
        self._writing[META_KEY] = _write_meta(self._begun)
        return list(self._writing.items())

    def commit(self, changelog_offset: int) -> None:
        """Step 4 of a checkpoint: states, settings and position into the store, in one atomic write."""
        self.store.write(self.number, self._writing.items(), changelog_offset, upto_s=time.time())
        self._writing = {}
        self.stored = self._begun

    def leave(self) -> None:
        """Nobody but this worker has written to the changelog until now: all of that is in the store."""
        with suppress(Exception):  # files that cannot be written to are only older than they could be
            if self.store.offset(self.number) >= 0:
                self.store.write(self.number, [], self.store.offset(self.number), upto_s=time.time())

    def advance(self, applied: int) -> None:
        """Every record below `applied` is in the state now."""
        if applied <= self.applied:
            return
        self.applied = applied
        while self._waiters and self._waiters[0][0] <= applied:
            _, _, future = heapq.heappop(self._waiters)
            if not future.done():
                future.set_result(None)
        self.on_advance()

    def reached(self, offset: int) -> asyncio.Future[None]:
        """A future that is done once every record below `offset` is in the state."""
        future = asyncio.get_running_loop().create_future()
        if offset <= self.applied:
            future.set_result(None)
        else:
            heapq.heappush(self._waiters, (offset, next(self._ticket), future))
        return future


class View:
    """A checkpoint's own picture of a partition: what it read, what it changes, where it will stand."""

    def __init__(self, partition: Partition, keys: list[bytes]) -> None:
        self.partition = partition
        self.applied = partition.applied
        self.orgs: dict[int, Org | None] = {}
        self.size = 0
        self._raw = partition.states(keys)
        self._states: dict[bytes, Any] = {}
        self._changed: dict[bytes, Any] = {}
        self._documents: dict[bytes, bytes] = {}

    def knows(self, key: bytes) -> bool:
        """Whether the store holds the key, which it only does in the key's home partition."""
        return self._raw.get(key) is not None

    def org(self, org_id: int) -> Org | None:
        """The org's settings at this point of the checkpoint."""
        return self.orgs[org_id] if org_id in self.orgs else self.partition.org(org_id)

    def state(self, key: bytes) -> Any:
        """The key's state at this point of the checkpoint, None if there is none. Raises UnknownFormatError."""
        if key not in self._states:
            self._states[key] = self.partition.decode(self._raw[key])
        return self._states[key]

    def put(self, key: bytes, state: Any) -> None:
        """The key's state after a change; its `encode()` gives the value, None where nothing is left."""
        if key not in self._changed:
            self.size += len(self._raw[key] or b"") + GROWTH_BYTES
        self._states[key] = self._changed[key] = state

    def put_org(self, org_id: int, settings: OrgSettings) -> None:
        """The org's settings from here on."""
        document = settings.model_dump_json().encode()
        self._documents[settings_key(org_id)] = document
        self.orgs[org_id] = Org(settings)
        self.size += len(document)

    def changed(self) -> dict[bytes, bytes | None]:
        """Values of the states and settings that changed, by key."""
        return {**{key: state.encode() for key, state in self._changed.items()}, **self._documents}


def _write_meta(applied: int) -> bytes:
    return orjson.dumps({"v": FORMAT_VERSION, "next": applied})


def _read_meta(store: BytesStore, number: int) -> int:
    raw = store.get_many(number, [META_KEY])[0]
    if raw is None:
        return 0
    meta: dict[str, Any] = orjson.loads(raw)
    if meta["v"] != FORMAT_VERSION:
        raise UnknownFormatError(
            f"state format {meta['v']}, this version reads {FORMAT_VERSION}: run the version of consent-streams that "
            "wrote it, or start anew with another CONSENT_TOPIC_PREFIX and CONSENT_DATADIR"
        )
    return int(meta["next"])
