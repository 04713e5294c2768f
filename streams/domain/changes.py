"""What an incoming change does (domain sections 1 to 3, 6 and 9).

A state handed in is changed in place and belongs to the caller; everything else is only read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.base import WHOLE_ORG
from streams.domain.batches import rests_on_batch, revert, touch, wait_aside
from streams.domain.cells import (
    OPTIN,
    OPTOUT,
    OWN_CELL,
    OWN_ENTRY,
    OWN_PENDING,
    Cell,
    Entry,
    add_entry,
    await_verification,
    cancel_pending,
    forget_pending,
    newer,
    status,
    was_pending,
    winner,
)
from streams.domain.identities import normal
from streams.domain.orgs import Org, Place
from streams.domain.state import ERASED, REGISTERED, UNREGISTERED, State, identifiers_of, parse_cell_key


class RejectedError(Exception):
    """The record cannot be applied and is a dead letter: `code` of contract section 6 and what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Applied(NamedTuple):
    """What became of a change: for the audit, and the customer's state after it (None: still unknown)."""

    outcome: str
    reason: str | None
    cells: list[dict[str, Any]]
    state: State | None


_NO_CELLS: list[dict[str, Any]] = []


def apply_event(org: Org, state: State | None, event: dict[str, Any], written_at: int) -> Applied:
    """Apply one event of a customer. `written_at` is the record's broker timestamp in milliseconds.

    Raises RejectedError for unknown_account, channel_not_mapped, unknown_org_unit and occurred_in_future; the state is
    then as it was.
    """
    apply = _TO_CELLS.get(event["event"])
    if apply is None:
        _check_time(org, event, written_at)
        return _TO_CUSTOMERS[event["event"]](org, state, event)
    if state is None or state.registration != REGISTERED:
        if org.require_registration or (state is not None and state.registration == ERASED):
            return Applied("ignored", "not_registered", _NO_CELLS, state)
        state = state or State(UNREGISTERED)
    place = _checked_place(org, event)
    _check_time(org, event, written_at)
    batch = event.get("batch_id")
    if not (state.remember(event["event_id"]) if batch is None else state.remember_of(batch, event["event_id"])):
        return Applied("ignored", "duplicate", _NO_CELLS, state)
    return apply(org, state, event, place)


def _registered(org: Org, state: State | None, event: dict[str, Any]) -> Applied:
    """Domain section 6; after an erasure nothing of the old state is left."""
    if state is None or state.registration == ERASED:
        state = State(REGISTERED)
    known: dict[str, Any] = {"r": REGISTERED}
    given = {name: value for name, value in (event.get("identifiers") or {}).items() if value is not None}
    if given:
        known["i"] = {**state.about.get("i", {}), **given}
        normals = {kind: normal(kind, value, org.default_region) for kind, value in given.items()}
        known["k"] = {**identifiers_of(state), **normals}
        if known["k"] == known["i"]:
            known["k"] = None
    if event.get("language"):
        known["l"] = event["language"]
    state.update(**known)
    return Applied("registered", None, _NO_CELLS, state)


def _erased(org: Org, state: State | None, event: dict[str, Any]) -> Applied:  # noqa: ARG001 - a handler's signature
    return Applied("erased", None, _NO_CELLS, State(ERASED))


def _reverted(org: Org, state: State | None, event: dict[str, Any]) -> Applied:  # noqa: ARG001 - see above
    """Domain section 9. Settings do not matter: what a batch brought goes, wherever it is by now."""
    if state is None or state.registration == ERASED:
        return Applied("ignored", "batch_unknown", _NO_CELLS, state)
    if not state.remember(event["event_id"]):
        return Applied("ignored", "duplicate", _NO_CELLS, state)
    changed = revert(state, event["batch_id"])
    if changed is None:
        return Applied("ignored", "batch_unknown", _NO_CELLS, state)
    return Applied("applied", None, [_reverted_cell(*one) for one in changed], state)


def _reverted_cell(key: bytes, before: Entry | None, after: Entry | None) -> dict[str, Any]:
    source, account_id, channel, priority, unit = parse_cell_key(key)
    return {
        "source": source,
        "account_id": account_id,
        "channel": channel,
        "priority": priority,
        "org_unit_id": unit,
        "before": status(before),
        "after": status(after),
        "synced": before is not None and before[4] is not None,
    }


def _checked_place(org: Org, event: dict[str, Any]) -> Place:
    """Rule 2.2: the account is active and mapped to the channel, the org unit exists."""
    source, account_id, channel = event["source"], event["account_id"], event["channel"]
    channels = org.channels.get((source, account_id))
    if channels is None:
        raise RejectedError("unknown_account", f"source, account_id: no active account {source} {account_id!r}")
    if channel not in channels:
        raise RejectedError("channel_not_mapped", f"channel: {source} {account_id!r} is not mapped to {channel}")
    unit = event["org_unit_id"]
    if unit not in org.known_units:
        raise RejectedError("unknown_org_unit", f"org_unit_id: the org has no unit {unit}")
    return org.place(source, account_id, channel, event["priority"], unit)


def _check_time(org: Org, event: dict[str, Any], written_at: int) -> None:
    """Rule 2.6."""
    ahead = event["occurred_at"] - written_at
    if ahead > org.max_future_ms:
        raise RejectedError(
            "occurred_in_future",
            f"occurred_at: {ahead} ms after the record was written; at most {org.max_future_ms} ms are accepted",
        )


def _change(org: Org, state: State, event: dict[str, Any], place: Place) -> Applied:
    kind = OPTIN if event["type"] == "OPTIN" else OPTOUT
    entry: Entry = [event["occurred_at"], kind, event["event_id"], event.get("origin", "PRODUCER"), None]
    if event.get("batch_id") is not None:
        entry.append(event["batch_id"])
    cell = state.make_cell(place.key)
    if len(cell) > OWN_CELL or len(entry) > OWN_ENTRY:
        touch(state, place.key, cell, entry)
    newest = winner(cell)
    if kind == OPTIN and place.opt_in_type == "DOUBLE":
        if newest is None or newest[1] == OPTOUT:
            return _ask_verification(state, cell, entry, newest)
        if len(cell) > OWN_CELL and len(entry) == OWN_ENTRY and (batch := rests_on_batch(cell)) is not None:
            # It was never verified: it may not outlive the verified or older opt-in that it repeats.
            wait_aside(cell, _pending(entry))
            entry.append(batch)
    return _enter(org, state, event, cell, entry)


def _pending(entry: Entry) -> list[Any]:
    return [entry[0], entry[2], entry[3], *entry[OWN_ENTRY:]]


def _ask_verification(state: State, cell: Cell, entry: Entry, newest: Entry | None) -> Applied:
    """Domain section 1, DOUBLE: the opt-in waits, unless a newer pending one or the cell's opt-out stands above it."""
    pending = cell[1]
    waiting = None if pending is None else [pending[0], OPTIN, pending[1]]
    if any(other is not None and not newer(entry, other) for other in (waiting, newest)):
        if len(cell) > OWN_CELL and len(entry) == OWN_ENTRY:
            wait_aside(cell, _pending(entry))
        return Applied("ignored", "superseded", _NO_CELLS, state)
    await_verification(cell, _pending(entry))
    return Applied("pending", None, _NO_CELLS, state)


def _verify(org: Org, state: State, event: dict[str, Any], place: Place) -> Applied:
    """Domain section 1: a verification that names the pending entry enters an OPTIN at its own time."""
    cell = state.cell(place.key)
    named = event["verifies"]
    if cell is None or cell[1] is None or cell[1][1] != named:
        once = cell is not None and was_pending(cell, named)
        return Applied("ignored", "verification_superseded" if once else "verification_unknown", _NO_CELLS, state)
    pending = cell[1]
    forget_pending(cell)
    # What verifies a batch's opt-in is the batch's too: without it there would be nothing to verify.
    entry = [event["occurred_at"], OPTIN, event["event_id"], pending[2], None, *pending[OWN_PENDING:]]
    return _enter(org, state, event, cell, entry)


def _enter(org: Org, state: State, event: dict[str, Any], cell: Cell, entry: Entry) -> Applied:
    """Rules 2.3 and 2.4 in the entry's own cell, then org-unit sync."""
    newest = winner(cell)
    if entry[1] == OPTIN and newest is not None and newest[1] == OPTIN and not org.refresh:
        add_entry(cell, entry)
        return Applied("ignored", "already_opted_in", _NO_CELLS, state)
    syncs = _must_sync(org, state, event, entry)
    changed = []
    if add_entry(cell, entry, refresh=org.refresh):
        changed.append(_cell_change(event, event["org_unit_id"], newest, entry))
    cancel_pending(cell, entry)
    if syncs:
        _sync(org, state, event, entry, changed)
    if changed:
        return Applied("applied", None, changed, state)
    return Applied("ignored", "superseded", _NO_CELLS, state)


def _must_sync(org: Org, state: State, event: dict[str, Any], entry: Entry) -> bool:
    """Domain section 3; looked at before the entry is in its cell, so that `first` means what it says."""
    if event["org_unit_id"] == WHOLE_ORG:
        return False
    if entry[1] == OPTIN:
        return org.sync_opt_in
    if org.sync_opt_out != "first":
        return org.sync_opt_out == "any"
    cells = state.cells_of(event["source"], event["account_id"], event["channel"], event["priority"])
    return not any(cell[0] for cell in cells)


def _sync(org: Org, state: State, event: dict[str, Any], entry: Entry, changed: list[dict[str, Any]]) -> None:
    """The entry joins the cell of every other org unit by rule 2.4, with its own time, id and origin."""
    own = event["org_unit_id"]
    synced = [*entry[:4], own, *entry[OWN_ENTRY:]]
    for unit in org.units:
        if unit == own:
            continue
        place = org.place(event["source"], event["account_id"], event["channel"], event["priority"], unit)
        cell = state.make_cell(place.key)
        if len(cell) > OWN_CELL or len(synced) > OWN_ENTRY:
            touch(state, place.key, cell, synced)
        newest = winner(cell)
        if add_entry(cell, synced, refresh=org.refresh):
            changed.append(_cell_change(event, unit, newest, synced))
        cancel_pending(cell, synced)


def _cell_change(event: dict[str, Any], unit: int, before: Entry | None, after: Entry) -> dict[str, Any]:
    return {
        "source": event["source"],
        "account_id": event["account_id"],
        "channel": event["channel"],
        "priority": event["priority"],
        "org_unit_id": unit,
        "before": status(before),
        "after": status(after),
        "synced": unit != event["org_unit_id"],
    }


_TO_CELLS = {"consent.changed": _change, "consent.verified": _verify}
_TO_CUSTOMERS = {
    "customer.registered": _registered,
    "customer.erased": _erased,
    "consent.batch_reverted": _reverted,
}
