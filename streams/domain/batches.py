"""What imports brought, and taking a batch of it out again as if it had never been there (domain section 9).

`domain.cells` says how a cell holds it. Nothing here is met by a change without a batch on a cell without one.
"""

from __future__ import annotations

from streams.domain.cells import (
    OPTIN,
    OPTOUT,
    OWN_CELL,
    OWN_ENTRY,
    OWN_PENDING,
    Cell,
    Entry,
    Pending,
    end_pending,
    forget_pending,
    new_cell,
    newer,
    put_aside,
    winner,
)
from streams.domain.state import State


def touch(state: State, key: bytes, cell: Cell, entry: Entry) -> None:
    """Make the cell with this key ready for an entry, where the entry is a batch's or the cell is touched by one."""
    if len(entry) > OWN_ENTRY:
        if len(cell) == OWN_CELL:
            cell.append([])
    elif not (_own(cell[0], OWN_ENTRY) or _own_pending(cell) or _own_names(cell)):
        # Without the batches the cell would be made only now, behind the others.
        state.put_last(key)


def rests_on_batch(cell: Cell) -> str | None:
    """The batch without which the touched cell, which is OPTIN, would not be so; None if there is no such."""
    newest = winner(cell)
    own = _own(cell[0], OWN_ENTRY)
    if newest is None or len(newest) == OWN_ENTRY or (own and own[-1][1] == OPTIN):
        return None
    batch: str = newest[OWN_ENTRY]
    return batch


def wait_aside(cell: Cell, pending: Pending) -> None:
    """An opt-in that must be verified is ignored in a touched cell: it will wait where only batches are to blame.

    It is kept aside if it would be pending without the batches' entries.
    """
    own = _own(cell[0], OWN_ENTRY)
    waiting = _own_pending(cell)
    asked: Entry = [pending[0], OPTIN, pending[1]]
    if own and (own[-1][1] == OPTIN or not newer(asked, own[-1])):
        return
    if any(not newer(asked, _as_entry(one)) for one in waiting):
        return
    for replaced in waiting:
        if replaced in cell[4]:
            cell[4].remove(replaced)
            end_pending(cell, replaced)
    cell[4].append(pending)


def revert(state: State, batch: str) -> list[tuple[bytes, Entry | None, Entry | None]] | None:
    """Take everything of a batch out of the state; None if nothing of it is there.

    Returns the cells that have another status now, in the order of their keys: key, winner before, winner after.
    Pending entries that the batch's entries replaced or cancelled wait again, unless something else ended them since.
    """
    found = state.forget_batch(batch)
    changed = []
    for key, cell in sorted(state.cells().items()):
        if len(cell) == OWN_CELL:
            continue
        before = winner(cell)
        found |= _take_out(cell, batch)
        after = winner(cell)
        if (before and before[1]) != (after and after[1]):
            changed.append((key, before, after))
        if cell == new_cell():
            state.drop(key)
    return changed if found else None


def _take_out(cell: Cell, batch: str) -> bool:
    mark = [batch]
    entries = [entry for entry in cell[0] if entry[OWN_ENTRY:] != mark]
    names = [name for name in cell[2] if type(name) is str or name[1] != batch]
    aside = [pending for pending in cell[4] if pending[OWN_PENDING:] != mark]
    pending = None if cell[1] is None or cell[1][OWN_PENDING:] == mark else cell[1]
    rest = [entries, pending, names, cell[3], aside]
    found = rest != cell
    if found:  # else what another batch put aside stays aside
        cell[:] = rest
        _wait_again(cell)
    waiting = [*cell[4], *([] if cell[1] is None else [cell[1]])]
    if (entries, names, waiting) == (_own(entries, OWN_ENTRY), _own_names(cell), _own(waiting, OWN_PENDING)):
        del cell[OWN_CELL:]
    return found


def _wait_again(cell: Cell) -> None:
    """The newest pending entry put aside that no opt-out cancels waits again."""
    last = max((entry[0] for entry in cell[0] if entry[1] == OPTOUT), default=-1)
    alive = [pending for pending in cell[4] if pending[0] > last]
    if not alive:
        return
    newest = max(alive, key=lambda pending: (pending[0], pending[1]))
    if cell[1] is not None:
        if newer(_as_entry(cell[1]), _as_entry(newest)):
            return
        (forget_pending if len(newest) == OWN_PENDING else put_aside)(cell)
    cell[4].remove(newest)
    cell[1] = newest


def newer_opt_out(state: State | None, own: bytes, whole: bytes | None, event: dict[str, object]) -> bool:
    """Whether an opt-in comes too late: a newer opt-out of no or another batch is in force at its place or on the org.

    `own` and `whole` are the keys of the place's cell and of the whole org's beside it.
    """
    if state is None or event["type"] != "OPTIN":
        return False
    opt_in: Entry = [event["occurred_at"], OPTIN, event["event_id"]]
    own_batch = [event.get("batch_id")]
    found = [winner(state.cell(key)) for key in (own, whole) if key is not None]
    return any(
        entry is not None and entry[1] == OPTOUT and entry[OWN_ENTRY:] != own_batch and newer(entry, opt_in)
        for entry in found
    )


def _as_entry(pending: Pending) -> Entry:
    return [pending[0], OPTIN, pending[1]]


def _own(items: list[list[object]], length: int) -> list[list[object]]:
    """Those of no batch."""
    return [item for item in items if len(item) == length]


def _own_names(cell: Cell) -> list[object]:
    return [name for name in cell[2] if type(name) is str]


def _own_pending(cell: Cell) -> list[Pending]:
    """The pending entry of no batch, whether it waits or is put aside."""
    return _own([*([] if cell[1] is None else [cell[1]]), *cell[4]], OWN_PENDING)
