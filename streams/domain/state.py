"""A customer's state and how it is written: one JSON object, canonical, with the version of its format.

Fields: `v` format version, `r` registration (0 never, 1 registered, 2 erased), `i` identifiers, `l` language,
`e` the last event ids, `c` cells by their key.
"""

from __future__ import annotations

from typing import Any

import orjson

FORMAT_VERSION = 1
REMEMBERED_IDS = 128  # domain section 2.5

UNREGISTERED, REGISTERED, ERASED = 0, 1, 2

State = dict[str, Any]


class UnknownFormatError(Exception):
    """A state was written in a format that this version of the product cannot read."""


def new_state(registration: int) -> State:
    """The state of a customer without any consent."""
    return {"v": FORMAT_VERSION, "r": registration, "e": [], "c": {}}


def erased_state() -> State:
    """What erasure leaves: the mark that this customer must register anew (domain section 6)."""
    return {"v": FORMAT_VERSION, "r": ERASED}


def decode_state(raw: bytes | None) -> State | None:
    """The state as written by `encode_state`; None stays None. Raises UnknownFormatError."""
    if raw is None:
        return None
    state: State = orjson.loads(raw)
    if state["v"] != FORMAT_VERSION:
        raise UnknownFormatError(f"state format {state['v']}, this version reads {FORMAT_VERSION}")
    return state


encode_state = orjson.dumps


def cell_key(source: str, account_id: str, channel: str, priority: str, org_unit_id: int) -> str:
    """A cell's key within its customer. The account stands last: it alone may contain the separator."""
    return f"{source}|{channel}|{priority}|{org_unit_id}|{account_id}"


def parse_cell_key(key: str) -> tuple[str, str, str, str, int]:
    """Source, account, channel, priority and org unit of a cell's key."""
    source, channel, priority, unit, account_id = key.split("|", 4)
    return source, account_id, channel, priority, int(unit)


def remember(state: State, event_id: str) -> None:
    """Keep an event's id, ignored and pending ones included, among the last 128 (domain section 2.5)."""
    ids = state["e"]
    ids.append(event_id)
    if len(ids) > REMEMBERED_IDS:
        del ids[0]
