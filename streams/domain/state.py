"""A customer's state and how it is written: lines of JSON, so that what is not touched need not be decoded.

    {"v":2,"r":1}                                  format version, registration, and what else is known
    "EMAIL|BULK|200031782|INSTORE|01"              a cell's key ...
    [[[1795254259000,0,"e-1","API",null]],null,[],null]      ... and the cell, see domain.cells; and so on
    ["e-1","e-2"]                                  the last event ids

The form is canonical: the same state is always the same bytes. What batches brought also stands in the first line,
as `"b":{"batch":["e-3"]}`: the last BATCHES batches, the last ids of each.
"""

from __future__ import annotations

from typing import Any

import orjson

from streams.domain.cells import Cell, new_cell

FORMAT_VERSION = 2
REMEMBERED_IDS = 128  # domain section 2.5
BATCHES = 8  # so many batches' ids are remembered, REMEMBERED_IDS of each, apart from the others

UNREGISTERED, REGISTERED, ERASED = 0, 1, 2


class UnknownFormatError(Exception):
    """A state was written in a format that this version of the product cannot read."""


_HEAD = b'{"v":%d,"r":' % FORMAT_VERSION
_REGISTRATION_AT, _ZERO = len(_HEAD), ord("0")
_BLANK = tuple(_HEAD + b"%d}" % registration for registration in (UNREGISTERED, REGISTERED, ERASED))


class State:
    """One customer's state. What is not asked for is neither decoded nor encoded: it stays the bytes it was."""

    __slots__ = ("_about", "_cells", "_ids", "_open")

    def __init__(self, registration: int) -> None:
        #: The first line; None while it still stands before the cells, because nobody needs it apart.
        self._about: bytes | None = _BLANK[registration]
        #: Every cell as it was written: newline, key, newline, cell.
        self._cells = b""
        #: The last line; None while it still stands behind the cells, because nobody needs it apart.
        self._ids: bytes | None = b"[]"
        #: Cells that were asked for, and may have been changed since.
        self._open: dict[bytes, Cell] = {}

    def _divide(self) -> bytes:
        """Set the first line apart, and return it."""
        about = self._about
        if about is None:
            about, newline, cells = self._cells.partition(b"\n")
            self._about = about
            self._cells = newline + cells
        return about

    def _divide_ids(self) -> bytes:
        """Set the last line apart, and return it."""
        ids = self._ids
        if ids is None:
            self._cells, _, ids = self._cells.rpartition(b"\n")
            self._ids = ids
        return ids

    @property
    def registration(self) -> int:
        """UNREGISTERED, REGISTERED or ERASED."""
        return (self._about or self._cells)[_REGISTRATION_AT] - _ZERO

    @property
    def about(self) -> dict[str, Any]:
        """What is known besides consent: `r` (registration) and, if known, `i` (identifiers), `k` and `l` (language).

        `k` is how the identity table has the identifiers, where that is not just as they were given. `b` are the last
        ids of the last batches, by batch.
        """
        about: dict[str, Any] = orjson.loads(self._divide())
        return about

    def update(self, **about: Any) -> None:
        """Change what is known besides consent; None forgets."""
        changed = {**self.about, **about}
        self._about = orjson.dumps({name: value for name, value in changed.items() if value is not None})

    def cell(self, key: bytes) -> Cell | None:
        """The cell with this key (`cell_key`), if there is one."""
        found = self._open.get(key)
        if found is None:
            # No key can stand in the first line or in the last: these are not texts.
            at = self._cells.find(key)
            if at >= 0:
                start = at + len(key)
                end = self._cells.find(b"\n", start)
                found = orjson.loads(self._cells[start : end if end >= 0 else None])
                self._open[key] = found
        return found

    def cells_below(self, part: bytes) -> dict[bytes, Cell]:
        """The cells whose keys begin with `part` (`key_part`), by the rest of their keys (`key_rest`)."""
        if self._open:
            self._close()
        found = {}
        cells = self._cells
        at = cells.find(part)
        while at >= 0:
            start = at + len(part)
            middle = cells.find(b"\n", start)
            end = cells.find(b"\n", middle + 1)
            found[cells[start:middle]] = orjson.loads(cells[middle + 1 : end if end >= 0 else None])
            at = cells.find(part, middle)
        return found

    def make_cell(self, key: bytes) -> Cell:
        """The cell with this key, a new one if there is none."""
        found = self.cell(key)
        if found is None:
            found = self._open[key] = new_cell()
        return found

    def drop(self, key: bytes) -> None:
        """There is no cell with this key any more."""
        self._open.pop(key, None)
        at = self._cells.find(key)
        if at >= 0:
            end = self._cells.find(b"\n", at + len(key))
            self._cells = self._cells[:at] + (self._cells[end:] if end >= 0 else b"")

    def put_last(self, key: bytes) -> None:
        """The cell with this key, which is there, stands behind all others, as if it were made now."""
        cell = self.make_cell(key)
        self.drop(key)
        self._open[key] = cell

    def cells(self) -> dict[bytes, Cell]:
        """All cells by key."""
        self._divide()
        self._divide_ids()
        keys = [b"\n%b\n" % key for key in self._cells.split(b"\n")[1::2]]
        return {key: self.make_cell(key) for key in dict.fromkeys([*keys, *self._open])}

    def cells_of(self, source: str, account_id: str, channel: str, priority: str) -> list[Cell]:
        """The cells of every org unit for one source, account, channel and priority."""
        place = (source, account_id, channel, priority)
        return [cell for key, cell in self.cells().items() if parse_cell_key(key)[:4] == place]

    def remember(self, event_id: str) -> bool:
        """Keep an event's id among the last 128; False if it is there already (domain section 2.5)."""
        ids, own = self._divide_ids(), orjson.dumps(event_id)
        # An id's text stands in the line whenever the id does; the reverse is made sure of.
        if own in ids and event_id in orjson.loads(ids):
            return False
        ids = self._ids = b"%b%b%b]" % (ids[:-1], b"," if len(ids) > 2 else b"", own)
        # Counting separators can only count too many.
        if len(ids) > REMEMBERED_IDS and ids.count(b'","') >= REMEMBERED_IDS:
            self._ids = orjson.dumps(orjson.loads(ids)[-REMEMBERED_IDS:])
        return True

    def remember_of(self, batch: str, event_id: str) -> bool:
        """Keep the id of a batch's event, with the batch's own; False if it is there or among the last 128 others."""
        batches = self.about.get("b", {})
        ids = batches.pop(batch, [])
        if event_id in ids or event_id in self.ids():
            return False
        batches[batch] = [*ids, event_id][-REMEMBERED_IDS:]
        self.update(b=dict(list(batches.items())[-BATCHES:]))
        return True

    def forget_batch(self, batch: str) -> bool:
        """Forget the ids of a batch; whether there were any."""
        batches = self.about.get("b", {})
        if batches.pop(batch, None) is None:
            return False
        self.update(b=batches or None)
        return True

    def ids(self) -> list[str]:
        """The remembered ids, the oldest first."""
        ids: list[str] = orjson.loads(self._divide_ids())
        return ids

    def encode(self) -> bytes:
        """The state as it is written."""
        ids = self._divide_ids()
        self._close()
        return b"%b%b\n%b" % (self._about or b"", self._cells, ids)

    def _close(self) -> None:
        """Write the open cells back into their places; whoever still holds one must not change it any more."""
        self._divide_ids()
        cells = self._cells
        for key, cell in self._open.items():
            body = orjson.dumps(cell)
            at = cells.find(key)
            if at < 0:
                cells = b"%b%b%b" % (cells, key, body)
                continue
            start = at + len(key)
            end = cells.find(b"\n", start)
            cells = b"%b%b%b" % (cells[:start], body, cells[end:] if end >= 0 else b"")
        self._cells = cells
        self._open.clear()


def identifiers_of(state: State | None) -> dict[str, str]:
    """The customer's identifiers by kind, as the identity table has them."""
    if state is None:
        return {}
    about = state.about
    identifiers: dict[str, str] = about.get("k", about.get("i", {}))
    return identifiers


def decode_state(raw: bytes | None) -> State | None:
    """The state as written by `State.encode`; None stays None. Raises UnknownFormatError."""
    if raw is None:
        return None
    if not raw.startswith(_HEAD):
        raise UnknownFormatError(f"a state begins with {raw[:20]!r}, this version reads {_HEAD!r}")
    state = _new(State)
    state._about, state._cells, state._ids, state._open = None, raw, None, {}
    return state


_new = State.__new__


def cell_key(source: str, account_id: str, channel: str, priority: str, org_unit_id: int) -> bytes:
    """A cell's key within its customer: a line of JSON. The account stands last: it alone may hold the separator."""
    return b"\n%b\n" % orjson.dumps(f"{channel}|{priority}|{org_unit_id}|{source}|{account_id}")


def key_part(channel: str, priority: str, org_unit_id: int) -> bytes:
    """What the keys of all cells of a channel, priority and org unit begin with."""
    return f'\n"{channel}|{priority}|{org_unit_id}|'.encode()


def key_rest(key: bytes, part: bytes) -> bytes:
    """What is left of a cell's key behind `part`, as `State.cells_below` gives it."""
    return key[len(part) : -1]


def parse_cell_key(key: bytes) -> tuple[str, str, str, str, int]:
    """Source, account, channel, priority and org unit of a cell's key."""
    channel, priority, unit, source, account_id = orjson.loads(key).split("|", 4)
    return source, account_id, channel, priority, int(unit)
