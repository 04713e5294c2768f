"""Cells and the competition of their entries (domain sections 2.3, 2.4, 2.7).

State is plain JSON data, so that decoding it is all it takes to work with it. An entry is
`[occurred_ms, kind, event_id, origin, synced_from]`, with `kind` 0 for OPTIN and 1 for OPTOUT: the first three
compare as rule 2.4 wants. A cell is `[entries, pending, formerly_pending, older]`:

- `entries`: the newest HISTORY entries in the order of rule 2.4, the winner last;
- `pending`: None or `[occurred_ms, event_id, origin]` of a double opt-in that waits;
- `formerly_pending`: ids of pending entries that were verified, cancelled or replaced, the newest HISTORY;
- `older`: None or the entry that dates the run in which the entries left out end, then the newest of these.
"""

from __future__ import annotations

from typing import Any

HISTORY = 32

OPTIN, OPTOUT = 0, 1
STATUS = ("OPTIN", "OPTOUT")

Entry = list[Any]
Cell = list[Any]


def new_cell() -> Cell:
    """A cell without a status."""
    return [[], None, [], None]


def newer(a: Entry, b: Entry) -> bool:
    """Whether `a` beats `b` by rule 2.4: later, at the same millisecond OPTOUT, then the greater event id."""
    if a[0] != b[0]:
        return bool(a[0] > b[0])
    return (a[1], a[2]) > (b[1], b[2])


def winner(cell: Cell | None) -> Entry | None:
    """The entry that gives the cell its status; None is NOT_SET."""
    return cell[0][-1] if cell is not None and cell[0] else None


def status(entry: Entry | None) -> str:
    """The status that a winning entry stands for."""
    return "NOT_SET" if entry is None else STATUS[entry[1]]


def dating(cell: Cell, *, refresh: bool) -> Entry:
    """The entry from which the cell's status dates: the first opt-in of the unbroken run, else the winner.

    Domain section 2.3: with `repeat_opt_in: refresh` and for opt-outs the newest entry counts. The cell has a status.
    """
    entries = cell[0]
    newest: Entry = entries[-1]
    if refresh or newest[1] == OPTOUT:
        return newest
    first = newest
    for entry in reversed(entries):
        if entry[1] == OPTOUT:
            return first
        first = entry
    older = cell[3]
    return older[0] if older is not None and older[0][1] == OPTIN else first


def add_entry(cell: Cell, entry: Entry, *, refresh: bool = False) -> bool:
    """Put an entry in its place; whether it is the cell's winner now. The same entry twice is kept once."""
    entries = cell[0]
    if not entries or newer(entry, entries[-1]):
        entries.append(entry)
        won = True
    else:
        won = False
        _insert(cell, entry)
    if len(entries) > HISTORY:
        _retire(cell, entries.pop(0), refresh)
    return won


def _insert(cell: Cell, entry: Entry) -> None:
    entries = cell[0]
    at = len(entries) - 1
    while at and newer(entries[at - 1], entry):
        at -= 1
    neighbour = entries[at]
    if entry[:3] == neighbour[:3] or (at and entry[:3] == entries[at - 1][:3]):
        return
    entries.insert(at if newer(neighbour, entry) else at + 1, entry)


def _retire(cell: Cell, entry: Entry, refresh: bool) -> None:
    """Fold the oldest entry into the summary; one that came too late to be told apart there changes nothing."""
    older = cell[3]
    if refresh:
        # Runs do not count, so the summary need not know of them and is the same in any order of arrival.
        newest = entry if older is None or newer(entry, older[1]) else older[1]
        cell[3] = [newest, newest]
    elif older is None:
        cell[3] = [entry, entry]
    elif newer(entry, older[1]):
        run = older[0] if older[0][1] == entry[1] == OPTIN else entry
        cell[3] = [run, entry]


def forget_pending(cell: Cell) -> None:
    """The pending entry is verified, cancelled or replaced: only its id is remembered (domain section 1)."""
    cell[2] = [*cell[2], cell[1][1]][-HISTORY:]
    cell[1] = None


def cancel_pending(cell: Cell, entry: Entry) -> None:
    """An opt-out dated at or after the pending entry cancels it (domain section 1)."""
    if cell[1] is not None and entry[1] == OPTOUT and entry[0] >= cell[1][0]:
        forget_pending(cell)
