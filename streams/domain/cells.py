"""Cells and the competition of their entries (domain sections 1, 2.3, 2.4, 2.7).

State is plain JSON data, so that decoding it is all it takes to work with it. An entry is
`[occurred_ms, kind, event_id, origin, synced_from]`, with `kind` 0 for OPTIN and 1 for OPTOUT: the first three
compare as rule 2.4 wants. A cell is `[entries, pending, formerly_pending, older]`:

- `entries`: the newest HISTORY entries in the order of rule 2.4, the winner last;
- `pending`: None or `[occurred_ms, event_id, origin]` of a double opt-in that waits;
- `formerly_pending`: ids of pending entries that were verified, cancelled or replaced, the newest HISTORY;
- `older`: None or the entry that dates the run in which the entries left out end, then the newest of these.

What an import brought can be taken out again (`domain.batches`), so it carries the batch id as one more element: an
entry as its sixth, a pending entry as its fourth; in `formerly_pending` it is `[event_id, batch_id]`. A cell that has
any of these is *touched* and has a fifth element:

- `aside`: pending entries that would wait, were it not for the entries of batches.

In a touched cell what is a batch's is bounded apart from the rest, by HISTORY too, and is in no summary: an entry of a
batch that is older than everything in `entries` is dropped.
"""

from __future__ import annotations

from typing import Any

HISTORY = 32

#: Elements of a cell that no batch touched, and of an entry and a pending entry that are no batch's.
OWN_CELL, OWN_ENTRY, OWN_PENDING = 4, 5, 3

OPTIN, OPTOUT = 0, 1
STATUS = ("OPTIN", "OPTOUT")

Entry = list[Any]
Pending = list[Any]
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
        if len(cell) == OWN_CELL:
            _retire(cell, entries.pop(0), refresh)
        else:
            _shorten(cell, refresh)
    return won


def _insert(cell: Cell, entry: Entry) -> None:
    entries = cell[0]
    at = len(entries) - 1
    while at and newer(entries[at - 1], entry):
        at -= 1
    neighbour = entries[at]
    equal = entry[:3] == neighbour[:3] or (at and entry[:3] == entries[at - 1][:3])
    if equal and (len(cell) == OWN_CELL or any(_same(entry, other) for other in entries)):
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


def _same(a: Entry, b: Entry) -> bool:
    """Whether two entries are one event's, and of the same batch or of none."""
    return a[:3] == b[:3] and a[OWN_ENTRY:] == b[OWN_ENTRY:]


def _shorten(cell: Cell, refresh: bool) -> None:
    """Bound the entries of a touched cell: a batch's entries push out no others, so that these are there without it."""
    entries = cell[0]
    own = [entry for entry in entries if len(entry) == OWN_ENTRY]
    if len(own) > HISTORY:
        _retire(cell, own[0], refresh)
        entries.remove(own[0])
    older = cell[3]
    of_batches = [entry for entry in entries if len(entry) > OWN_ENTRY]
    for at, entry in enumerate(of_batches):
        if at < len(of_batches) - HISTORY or (older is not None and not newer(entry, older[1])):
            entries.remove(entry)


def await_verification(cell: Cell, pending: Pending) -> None:
    """The opt-in waits, in place of an older one (domain section 1)."""
    if len(cell) == OWN_CELL:
        if cell[1] is not None:
            forget_pending(cell)
    elif len(pending) > OWN_PENDING:
        put_aside(cell)
    else:
        for ended in (*cell[4], cell[1]):
            end_pending(cell, ended)
        cell[4] = []
    cell[1] = pending


def forget_pending(cell: Cell) -> None:
    """The pending entry is verified, cancelled or replaced: only its id is remembered (domain section 1)."""
    if len(cell) == OWN_CELL:
        cell[2] = [*cell[2], cell[1][1]][-HISTORY:]
    else:
        end_pending(cell, cell[1])
    cell[1] = None


def cancel_pending(cell: Cell, entry: Entry) -> None:
    """An opt-out dated at or after the pending entry cancels it (domain section 1)."""
    if entry[1] == OPTIN:
        return
    if len(cell) > OWN_CELL and len(entry) == OWN_ENTRY:
        for ended in [pending for pending in cell[4] if entry[0] >= pending[0]]:
            cell[4].remove(ended)
            end_pending(cell, ended)
    if cell[1] is not None and entry[0] >= cell[1][0]:
        if len(entry) == OWN_ENTRY:
            forget_pending(cell)
        else:
            put_aside(cell)


def put_aside(cell: Cell) -> None:
    """A batch's entry replaces or cancels the pending entry of a touched cell, which may come back without it."""
    if cell[1] is not None:
        aside = [*cell[4], cell[1]]
        own = [pending for pending in aside if len(pending) == OWN_PENDING]
        cell[4] = [*own, *[pending for pending in aside if len(pending) > OWN_PENDING][-HISTORY:]]
        cell[1] = None


def was_pending(cell: Cell, event_id: str) -> bool:
    """Whether an entry of this id was pending in the cell and is so no more."""
    if event_id in cell[2]:
        return True
    if len(cell) == OWN_CELL:
        return False
    ended = [name[0] for name in cell[2] if type(name) is list] + [pending[1] for pending in cell[4]]
    return event_id in ended


def end_pending(cell: Cell, pending: Pending | None) -> None:
    """Remember the id of a touched cell's pending entry that ended; None is none."""
    if pending is not None:
        names = [*cell[2], pending[1] if len(pending) == OWN_PENDING else [pending[1], pending[OWN_PENDING]]]
        own = [name for name in names if type(name) is str]
        cell[2] = [*own[-HISTORY:], *[name for name in names if type(name) is list][-HISTORY:]]
