"""The slow model: one partition of `consent.changes`, straight from the specification.

Nothing is kept that can be computed: a cell is the complete list of its entries, and status, `since` and the run of
opt-ins are found anew from that list each time. Only where the specification bounds memory in a visible way (the last
128 event ids, and 128 of each of the last 8 batches) is the bound applied. See the numbered rules of `domain.md`,
section 2, beside the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import messages
from . import settings as org
from .settings import WHOLE_ORG, Doc
from .wire import (
    Bad,
    is_id,
    is_settings_key,
    key_of,
    parse_time,
    partition_of,
    read_change,
    read_object,
    request_faults,
    time_text,
)  # fmt: skip

Entry = dict[str, Any]  # type, occurred_at (ms), event_id, org_unit_id (where it was made), origin, batch_id
Ask = dict[str, Any]  # a double opt-in: an entry with `ended`, the batches that ended it, None for anything else
Cell = dict[str, Any]  # entries, asks
Place = tuple[str, str, str, str, int]  # source, account_id, channel, priority, org_unit_id
Customer = dict[str, Any]  # registered, erased, identifiers, language, seen, batches (ids seen), cells

REMEMBERED_IDS = 128
REMEMBERED_BATCHES = 8
CELL_FIELDS = ("source", "account_id", "channel", "priority", "org_unit_id")
ALLOWING_WHEN_NOT_SET = ("SINGLE",)


# --- cells: everything is derived from the complete list of entries ---------------------------------


def new_cell() -> Cell:
    return {"entries": [], "asks": []}


def rank(entry: Any) -> tuple[int, bool, str]:
    """Rule 4: the later wins; at the same millisecond OPTOUT; then the greater event id."""
    return entry["occurred_at"], entry["type"] == "OPTOUT", entry["event_id"]


def newest(cell: Cell) -> Entry | None:
    return max(cell["entries"], key=rank, default=None)


def status(cell: Cell) -> str:
    winner = newest(cell)
    return winner["type"] if winner else "NOT_SET"


def dating_entry(cell: Cell, refresh: bool) -> Entry | None:
    """The entry from which the status dates (rule 3): for an OPTIN the first of the unbroken run of opt-ins."""
    winner = newest(cell)
    if winner is None or winner["type"] == "OPTOUT" or refresh:
        return winner
    run: list[Entry] = []
    for entry in sorted(cell["entries"], key=rank):
        run = [*run, entry] if entry["type"] == "OPTIN" else []
    return run[0]


def join(cell: Cell, entry: Entry) -> bool:
    """Let an entry compete in a cell; True where it became the winner. The loser stays in the history too."""
    before = newest(cell)
    keep(cell, entry)
    if entry["type"] == "OPTOUT":
        end([ask for ask in cell["asks"] if rank(entry) > rank(ask)], entry["batch_id"])
    return before is None or rank(entry) > rank(before)


def keep(cell: Cell, entry: Entry) -> None:
    """A cell's history is a set: what comes a second time (its id long forgotten) adds nothing."""
    if (rank(entry), batch_of(entry)) not in [(rank(old), batch_of(old)) for old in cell["entries"]]:
        cell["entries"].append(entry)


# --- double opt-ins and batches: an ask waits until something ended it, and again when that is taken back ------------


def batch_of(entry: Entry) -> str | None:
    return entry.get("batch_id")


def pending(cell: Cell) -> Ask | None:
    return max((ask for ask in cell["asks"] if not ask["ended"]), key=rank, default=None)


def end(asks: list[Ask], by: str | None) -> None:
    """Verified, cancelled or replaced: verifying this id again is `verification_superseded`."""
    for ask in asks:
        ask["ended"].append(by)


def ask_in_vain(cell: Cell, ask: Ask) -> None:
    """An ask that is ignored because of batches alone waits once they are gone."""
    rivals = [entry for entry in cell["entries"] if entry["type"] == "OPTOUT" or entry is newest(cell)]
    rivals = [rival for rival in rivals if rank(rival) >= rank(ask) or rival["type"] == "OPTIN"]
    rivals += [other for other in cell["asks"] if not other["ended"] and rank(other) >= rank(ask)]
    own = [entry for entry in cell["entries"] if batch_of(entry) is None]
    own_asks = [other for other in cell["asks"] if batch_of(other) is None and None not in other["ended"]]
    last = max(own, key=rank, default=None)
    if last and (last["type"] == "OPTIN" or rank(last) >= rank(ask)):
        return
    if any(rank(other) >= rank(ask) for other in own_asks):
        return
    end([other for other in own_asks if other["ended"]], None)
    cell["asks"].append(ask | {"ended": [batch_of(rival) for rival in rivals]})


def take_out(cell: Cell, batch: str) -> bool:
    """Take a batch's part out of a cell; whether there was any."""
    left = [entry for entry in cell["entries"] if batch_of(entry) != batch]
    asks = [ask for ask in cell["asks"] if batch_of(ask) != batch]
    found = (left, asks) != (cell["entries"], cell["asks"])
    cell["entries"], cell["asks"] = left, asks
    for ask in asks:
        ask["ended"] = [by for by in ask["ended"] if by != batch]
    waiting = sorted((ask for ask in asks if not ask["ended"]), key=rank)
    end(waiting[:-1], None)
    return found


# --- customers --------------------------------------------------------------------------------------


def new_customer() -> Customer:
    flags = {"registered": False, "erased": False, "identifiers": {}, "language": None}
    return flags | {"seen": [], "batches": {}, "cells": {}}


def see(customer: Customer, event: Doc) -> bool:
    """Rule 5; False for an id seen before. A batch's ids are remembered apart."""
    event_id, batch = event["event_id"], event.get("batch_id") if event["event"] == "consent.changed" else None
    ids = customer["seen"] if batch is None else customer["batches"].get(batch, [])
    known = event_id in [*ids[-REMEMBERED_IDS:], *customer["seen"][-REMEMBERED_IDS:]]
    if batch is None and not known:
        ids.append(event_id)
    elif not known:
        others = [item for item in customer["batches"].items() if item[0] != batch]
        customer["batches"] = dict([*others, (batch, [*ids, event_id])][-REMEMBERED_BATCHES:])
    return not known


def place_of(event: Doc) -> Place:
    source, account_id, channel, priority, unit = (event[field] for field in CELL_FIELDS)
    return source, account_id, channel, priority, unit


def at_unit(place: Place, unit: int) -> Place:
    return (*place[:4], unit)


def cell_at(customer: Customer, place: Place) -> Cell:
    """The cell as it is; an empty one where there is none (and none is made by looking)."""
    return customer["cells"].get(place) or new_cell()


def has_entry_on_any_unit(customer: Customer, place: Place) -> bool:
    return any(cell["entries"] for other, cell in customer["cells"].items() if other[:4] == place[:4])


def barred(doc: Doc, customer: Customer | None) -> bool:
    """Rule 1. An erased customer is barred until a new registration, whatever the org requires."""
    if customer is None:
        return org.requires_registration(doc)
    return customer["erased"] or (org.requires_registration(doc) and not customer["registered"])


def dead(code: str) -> Doc:
    return {"kind": "deadletter", "code": code}


# --- the model --------------------------------------------------------------------------------------


class SlowModel:
    """One partition of `consent.changes`: feed it the log, ask it for decisions."""

    def __init__(self, partition: int, partitions: int, max_value_bytes: int | None = None) -> None:
        self.partition = partition
        self.partitions = partitions
        self.max_value_bytes = max_value_bytes  # the contract names `too_large` but no size
        self.position = 0  # `as_of`: every record below it has been weighed
        self.settings: dict[int, Doc] = {}
        self.customers: dict[tuple[int, str], Customer] = {}
        self.message: messages.Told | None = None  # what the record applied last tells its customer

    # -- changes --

    def apply(
        self, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Iterable[Any] = ()
    ) -> Doc | None:
        """What the audit, dead letter or forwarding of this record has to say. (Headers decide nothing.)"""
        del headers
        assert offset >= self.position, "the log is applied in its order"
        self.position = offset + 1
        self.message = None
        if not key:
            return dead("missing_key")
        home = partition_of(key, self.partitions)
        if home != self.partition and not is_settings_key(key):
            return {"kind": "forward", "to": home}
        try:
            return self._apply_home(timestamp_ms, key, value)
        except Bad as bad:
            return dead(bad.code)

    def _apply_home(self, timestamp_ms: int, key: bytes, value: bytes | None) -> Doc:
        self._refuse_large(value)
        event = read_change(value)
        if event["event"] == "settings.changed":
            return self._settings_changed(event, key)
        if key != key_of(event):
            raise Bad("key_mismatch")
        if event["org_id"] not in self.settings:
            raise Bad("unknown_org")
        if event["event"] == "customer.registered":
            return self._registered(event, timestamp_ms)
        if event["event"] == "customer.erased":
            return self._erased(event, timestamp_ms)
        if event["event"] == "consent.batch_reverted":
            return self._reverted(event, timestamp_ms)
        return self._consent(event, timestamp_ms)

    def _refuse_large(self, value: bytes | None) -> None:
        if self.max_value_bytes is not None and value is not None and len(value) > self.max_value_bytes:
            raise Bad("too_large")

    def _settings_changed(self, event: Doc, key: bytes) -> Doc:
        doc = event["settings"]
        if org.faults(doc) or doc["org_id"] != event["org_id"]:
            raise Bad("invalid_field")
        if key != key_of(event):
            raise Bad("key_mismatch")
        current = self.settings.get(event["org_id"])
        if current is not None and doc["version"] <= current["version"]:
            return self._audit(event, "ignored", "stale_settings")
        self.settings[event["org_id"]] = doc
        return self._audit(event, "settings_applied")

    def _registered(self, event: Doc, timestamp_ms: int) -> Doc:
        self._refuse_future(event, timestamp_ms)
        customer = self._customer(event)
        if customer is None or customer["erased"]:
            customer = self._put(event, new_customer())
        customer["registered"] = True
        given = event.get("identifiers") or {}
        for name in ("mobile", "email", "external_id"):
            if given.get(name) is not None:
                customer["identifiers"][name] = given[name]
        customer["language"] = event.get("language") or customer["language"]
        return self._audit(event, "registered")

    def _erased(self, event: Doc, timestamp_ms: int) -> Doc:
        self._refuse_future(event, timestamp_ms)
        self._put(event, new_customer())["erased"] = True  # nothing is left but the marker
        return self._audit(event, "erased")

    def _reverted(self, event: Doc, timestamp_ms: int) -> Doc:
        """Section 9: a batch is taken out, wherever it is by now."""
        self._refuse_future(event, timestamp_ms)
        customer = self._customer(event)
        if customer is None or customer["erased"]:
            return self._audit(event, "ignored", "batch_unknown")
        if not see(customer, event):
            return self._audit(event, "ignored", "duplicate")
        found = customer["batches"].pop(event["batch_id"], None) is not None
        cells = []
        for place, cell in sorted(customer["cells"].items(), key=lambda item: _cell_name(item[0])):
            before, winner = status(cell), newest(cell)
            found |= take_out(cell, event["batch_id"])
            if status(cell) != before:
                assert winner is not None
                synced = winner["org_unit_id"] != place[4]
                cells.append(_changed_cell(place, before, status(cell), synced))
        if not found:
            return self._audit(event, "ignored", "batch_unknown")
        return self._audit(event, "applied", None, cells)

    def _consent(self, event: Doc, timestamp_ms: int) -> Doc:
        doc = self.settings[event["org_id"]]
        customer = self._customer(event)
        if barred(doc, customer):  # rule 1
            return self._audit(event, "ignored", "not_registered")
        self._refuse_unknown_place(doc, event)  # rule 2
        self._refuse_future(event, timestamp_ms)  # rule 6
        if customer is None:
            customer = self._put(event, new_customer())
        if not see(customer, event):  # rule 5
            return self._audit(event, "ignored", "duplicate")
        if event["event"] == "consent.changed":
            audit, origin = self._changed(doc, customer, event), event.get("origin", "PRODUCER")
        else:
            waiting = pending(cell_at(customer, place_of(event)))
            audit, origin = self._verified(doc, customer, event), (waiting or {"origin": "none"})["origin"]
        self.message = messages.message(doc, event, audit, origin, customer["language"])
        return audit

    def _refuse_unknown_place(self, doc: Doc, event: Doc) -> None:
        account = org.find_active(doc, event["source"], event["account_id"])
        if account is None:
            raise Bad("unknown_account")
        if event["channel"] not in account["channels"]:
            raise Bad("channel_not_mapped")
        if not org.has_unit(doc, event["org_unit_id"]):
            raise Bad("unknown_org_unit")

    def _refuse_future(self, event: Doc, timestamp_ms: int) -> None:
        occurred_at = parse_time(event["occurred_at"])
        assert occurred_at is not None
        if occurred_at - timestamp_ms > org.max_future_ms(self.settings[event["org_id"]]):
            raise Bad("occurred_in_future")

    def _changed(self, doc: Doc, customer: Customer, event: Doc) -> Doc:
        entry = self._entry(event, event["type"], event.get("batch_id"))
        place = place_of(event)
        if event["type"] == "OPTIN" and org.opt_in_type(doc, *place) == "DOUBLE":
            cell = cell_at(customer, place)
            if status(cell) != "OPTIN":
                return self._await_verification(customer, event, entry)
            opted_in = newest(cell)
            own = max((old for old in cell["entries"] if batch_of(old) is None), key=rank, default=None)
            assert opted_in is not None
            if batch_of(entry) is None and (own is None or own["type"] == "OPTOUT"):
                # Only a batch makes it a repetition, and it was not verified itself: it belongs to that batch.
                ask_in_vain(cell, dict(entry))
                entry["batch_id"] = batch_of(opted_in)
        return self._enter(doc, customer, event, entry)

    def _await_verification(self, customer: Customer, event: Doc, entry: Entry) -> Doc:
        """A pending entry is no entry: it is kept beside the history and syncs nothing yet."""
        cell = self._own_cell(customer, place_of(event))
        waiting = pending(cell)
        rivals = [old for old in cell["entries"] if old["type"] == "OPTOUT"] + ([waiting] if waiting else [])
        if any(rank(entry) <= rank(rival) for rival in rivals):
            if batch_of(entry) is None:
                ask_in_vain(cell, entry)
            return self._audit(event, "ignored", "superseded")
        end(cell["asks"] if batch_of(entry) is None else [waiting] if waiting else [], batch_of(entry))
        cell["asks"].append(entry | {"ended": []})
        return self._audit(event, "pending")

    def _verified(self, doc: Doc, customer: Customer, event: Doc) -> Doc:
        cell = self._own_cell(customer, place_of(event))
        waiting = pending(cell)
        if waiting and waiting["event_id"] == event["verifies"]:
            end([waiting], None)
            return self._enter(doc, customer, event, self._entry(event, "OPTIN", batch_of(waiting)))
        known = event["verifies"] in [ask["event_id"] for ask in cell["asks"]]
        return self._audit(event, "ignored", "verification_superseded" if known else "verification_unknown")

    def _enter(self, doc: Doc, customer: Customer, event: Doc, entry: Entry) -> Doc:
        """Rules 3 and 4, and the sync of section 3."""
        place = place_of(event)
        own = self._own_cell(customer, place)
        if entry["type"] == "OPTIN" and status(own) == "OPTIN" and not org.refreshes(doc):  # rule 3
            keep(own, entry)
            return self._audit(event, "ignored", "already_opted_in")
        units = self._sync_units(doc, customer, place, entry)  # asked before the entry is in: is it the first?
        cells = []
        for unit in [place[4], *units]:
            target = at_unit(place, unit)
            cell = self._own_cell(customer, target)
            before = status(cell)
            if join(cell, entry):
                cells.append(_changed_cell(target, before, status(cell), synced=unit != place[4]))
        if not cells:
            return self._audit(event, "ignored", "superseded")
        return self._audit(event, "applied", None, cells)

    def _sync_units(self, doc: Doc, customer: Customer, place: Place, entry: Entry) -> list[int]:
        """The other OUs this entry goes to. `-1` is the org itself: it neither sends nor receives."""
        if place[4] == WHOLE_ORG:
            return []
        if entry["type"] == "OPTIN":
            on = org.syncs_opt_in(doc)
        else:
            mode = org.opt_out_sync(doc)
            on = mode == "any" or (mode == "first" and not has_entry_on_any_unit(customer, place))
        return [unit for unit in org.unit_ids(doc) if unit != place[4]] if on else []

    def _entry(self, event: Doc, kind: str, batch: str | None) -> Entry:
        occurred_at = parse_time(event["occurred_at"])
        return {
            "type": kind,
            "occurred_at": occurred_at,
            "event_id": event["event_id"],
            "org_unit_id": event["org_unit_id"],
            "origin": event.get("origin", "PRODUCER"),
            "batch_id": batch,
        }

    def _customer(self, event: Doc) -> Customer | None:
        return self.customers.get((event["org_id"], event["customer_id"]))

    def _put(self, event: Doc, customer: Customer) -> Customer:
        self.customers[event["org_id"], event["customer_id"]] = customer
        return customer

    def _own_cell(self, customer: Customer, place: Place) -> Cell:
        cell: Cell = customer["cells"].setdefault(place, new_cell())
        return cell

    def _audit(self, event: Doc, outcome: str, reason: str | None = None, cells: Sequence[Doc] = ()) -> Doc:
        return {
            "kind": "audit",
            "outcome": outcome,
            "outcome_reason": reason,
            "settings_version": self.settings[event["org_id"]]["version"],
            "cells": list(cells),
            "event_id": event["event_id"],
        }

    # -- decisions --

    def answer(self, key: bytes | None, value: bytes | None) -> Doc:
        """What becomes of a record of `eligibility.requests`: a decision, a dead letter or a forwarding."""
        if not key:
            return dead("missing_key")
        home = partition_of(key, self.partitions)
        if home != self.partition:
            return {"kind": "forward", "to": home}
        try:
            self._refuse_large(value)
            request = read_object(value)
        except Bad as bad:
            return dead(bad.code)
        if not is_id(request.get("request_id")):
            return dead("invalid_field")  # nobody could match an answer to it
        if not request_faults(request) and key != key_of(request):
            return {"kind": "decision"} | _no("invalid_request")
        return {"kind": "decision"} | self.decide(request)

    def decide(self, request: Doc) -> Doc:
        """The decision at this position of the log, without ids and `as_of`."""
        if request_faults(request):
            return _no("invalid_request")
        doc = self.settings.get(request["org_id"])
        if not self._reached(request.get("min_position")):
            return _no("state_behind", doc)
        if doc is None:
            return _no("unknown_org")
        unit = _unit_of(request)
        if not org.has_unit(doc, unit):
            return _no("unknown_org_unit", doc)
        policy = org.policy_for(doc, unit)
        customer = self.customers.get((request["org_id"], request["customer_id"]))
        if barred(doc, customer):
            return _no("not_registered", doc, policy)
        if policy == "existing":
            return _decide_existing(doc, customer or new_customer(), request)
        return _decide_unified(doc, customer or new_customer(), request, policy)

    def _reached(self, wanted: Doc | None) -> bool:
        """A position of another partition is never reached here: late, never stale."""
        return wanted is None or (wanted["partition"] == self.partition and wanted["offset"] < self.position)

    # -- for people and tests --

    def state(self, org_id: int, customer_id: str) -> Doc | None:
        """A customer in plain words: flags, and for every cell its status, `since` and pending id."""
        customer = self.customers.get((org_id, customer_id))
        if customer is None:
            return None
        refresh = org.refreshes(self.settings[org_id])
        used = {place: cell for place, cell in sorted(customer["cells"].items()) if cell != new_cell()}
        cells = {place: _plain_cell(cell, refresh) for place, cell in used.items()}
        return {name: customer[name] for name in ("registered", "erased", "identifiers", "language")} | {"cells": cells}


def replay(records: Iterable[Sequence[Any]], upto: int, partition: int = 0, partitions: int = 1) -> SlowModel:
    """The model after every record below `upto`. A record is (offset, timestamp_ms, key, value[, headers])."""
    model = SlowModel(partition, partitions)
    for record in records:
        if record[0] < upto:
            model.apply(*record)
    model.position = max(model.position, upto)  # offsets have gaps (transactions): `upto` itself is what was reached
    return model


def _plain_cell(cell: Cell, refresh: bool) -> Doc:
    dating = dating_entry(cell, refresh)
    entries = sorted(cell["entries"], key=rank)
    waiting = pending(cell)
    return {
        "status": status(cell),
        "since": time_text(dating["occurred_at"]) if dating else None,
        "pending": waiting["event_id"] if waiting else None,
        "entries": [(e["type"], e["occurred_at"], e["event_id"], e["org_unit_id"]) for e in entries],
    }


def _cell_name(place: Place) -> str:
    source, account_id, channel, priority, unit = place
    return "|".join((channel, priority, str(unit), source, account_id))


def _changed_cell(place: Place, before: str, after: str, synced: bool) -> Doc:
    return dict(zip(CELL_FIELDS, place, strict=True)) | {"before": before, "after": after, "synced": synced}


# --- decisions: pure functions of settings, customer and request ------------------------------------


def _no(reason: str, doc: Doc | None = None, policy: str | None = None) -> Doc:
    return _decision(False, reason, doc, policy, None, [])


def _decision(
    eligible: bool, reason: str, doc: Doc | None, policy: str | None, decided_by: str | None, inputs: list[Doc]
) -> Doc:
    return {
        "eligible": eligible,
        "reason": reason,
        "policy": policy,
        "opt_in_type": decided_by,
        "settings_version": doc["version"] if doc else None,
        "inputs": inputs,
    }


def _unit_of(request: Doc) -> int:
    unit: int | None = request.get("org_unit_id")
    return WHOLE_ORG if unit is None else unit


def _weigh(doc: Doc, customer: Customer, request: Doc, source: str, account_id: str) -> Doc:
    """One profile: its effective status for the OU asked about (section 3), and where that comes from."""
    unit = _unit_of(request)
    place: Place = (source, account_id, request["channel"], request["priority"], unit)
    cells = [cell_at(customer, place)]
    if unit != WHOLE_ORG:
        cells.append(cell_at(customer, at_unit(place, WHOLE_ORG)))
    # Rule 4 between the newest entry of each; `since` is that of the cell that wins, not of both together.
    winning = max((cell for cell in cells if cell["entries"]), key=lambda cell: rank(newest(cell)), default=new_cell())
    dating = dating_entry(winning, org.refreshes(doc))
    return {
        "source": source,
        "account_id": account_id,
        "opt_in_type": org.opt_in_type(doc, *place),
        "status": status(winning),
        "since": time_text(dating["occurred_at"]) if dating else None,
        "event_id": dating["event_id"] if dating else None,
        "org_unit_id": dating["org_unit_id"] if dating else None,
        "pending": any(pending(cell) is not None for cell in cells),
        "_since_ms": dating["occurred_at"] if dating else None,
    }


def _public(profiles: list[Doc]) -> list[Doc]:
    return [{name: value for name, value in profile.items() if name[0] != "_"} for profile in profiles]


def _allows(profile: Doc) -> bool:
    return profile["opt_in_type"] in ALLOWING_WHEN_NOT_SET


def _decide_existing(doc: Doc, customer: Customer, request: Doc) -> Doc:
    source, account_id = request.get("source"), request.get("account_id")
    if source is None or account_id is None:
        return _no("source_required", doc, "existing")
    account = org.find_active(doc, source, account_id)
    if account is None:
        return _no("unknown_account", doc, "existing")
    if request["channel"] not in account["channels"]:
        return _no("channel_not_mapped", doc, "existing")
    profile = _weigh(doc, customer, request, source, account_id)
    decided_by = None
    if profile["status"] == "NOT_SET":
        decided_by = profile["opt_in_type"]
        eligible = _allows(profile)
        reason = "not_set_allowed" if eligible else "not_set_denied"
    else:
        eligible = profile["status"] == "OPTIN"
        reason = "opted_in" if eligible else "opted_out"
    if not eligible and profile["pending"]:
        reason = "verification_pending"
    return _decision(eligible, reason, doc, "existing", decided_by, _public([profile]))


def _decide_unified(doc: Doc, customer: Customer, request: Doc, policy: str) -> Doc:
    accounts = org.profiles_with(doc, request["channel"])
    if not accounts:
        return _no("channel_not_mapped", doc, policy)
    profiles = [_weigh(doc, customer, request, a["source"], a["account_id"]) for a in accounts]
    if all(profile["status"] == "NOT_SET" for profile in profiles):
        eligible, reason, decided_by = _all_not_set(profiles, policy)
    else:
        eligible, reason, decided_by = {"recent": _recent, "liberal": _liberal, "strict": _strict}[policy](profiles)
    return _decision(eligible, reason, doc, policy, decided_by, _public(profiles))


Verdict = tuple[bool, str, str | None]  # eligible, reason, the type that decided


def _all_not_set(profiles: list[Doc], policy: str) -> Verdict:
    allowing = [profile for profile in profiles if _allows(profile)]
    denying = [profile for profile in profiles if not _allows(profile)]
    enough = bool(allowing) if policy == "liberal" else not denying
    if enough:
        return True, "not_set_allowed", allowing[0]["opt_in_type"]
    return False, "not_set_denied", denying[0]["opt_in_type"]


def _recent(profiles: list[Doc]) -> Verdict:
    explicit = [profile for profile in profiles if profile["status"] != "NOT_SET"]
    latest = max(explicit, key=lambda profile: (profile["_since_ms"], profile["status"] == "OPTOUT"))
    if latest["status"] == "OPTIN":
        return True, "recent_opt_in", None
    return False, "recent_opt_out", None


def _liberal(profiles: list[Doc]) -> Verdict:
    if any(profile["status"] == "OPTIN" for profile in profiles):
        return True, "liberal_opt_in", None
    not_set = [profile for profile in profiles if profile["status"] == "NOT_SET"]
    if any(_allows(profile) for profile in not_set):
        return True, "liberal_not_set_allowed", next(p["opt_in_type"] for p in not_set if _allows(p))
    return False, "liberal_denied", not_set[0]["opt_in_type"] if not_set else None


def _strict(profiles: list[Doc]) -> Verdict:
    statuses = [profile["status"] for profile in profiles]
    if "OPTOUT" in statuses:
        return False, "strict_opt_out", None
    if "NOT_SET" in statuses:
        return False, "strict_missing_opt_in", None
    return True, "strict_opt_in", None
