"""Entries of the subscription APIs: checked one by one, and turned into events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.base import WHOLE_ORG
from schemas.settings import faults_of
from schemas.subscriptions import SubscriptionEntry, SubscriptionHead
from streams.domain.orgs import Org

NOT_ADDED, NOT_FOUND, MALFORMED = 1000, 1012, 400
NO_CAMPAIGN = -1
_ENTRY = TypeAdapter(SubscriptionEntry)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that can be added: what was given, and the fields of its `consent.changed`."""

    index: int
    given: dict[str, Any]
    fields: dict[str, Any]
    waits: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an entry or a request, for people and programs."""

    code: int
    message: str

    def document(self) -> dict[str, Any]:
        return {"status": False, "code": self.code, "message": self.message}


def check(given: list[Any], org: Org, source: str | None) -> tuple[list[Entry], list[Fault]]:
    """The entries that can be added, and a fault for each other one. `source` is for those that name none."""
    entries: list[Entry] = []
    faults: list[Fault] = []
    for index, one in enumerate(given):
        found = _check(index, one, org, source)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            faults.append(Fault(NOT_ADDED, f"subscriptions[{index}]{found}"))
    return entries, faults


def _check(index: int, given: Any, org: Org, source: str | None) -> Entry | str:
    """The entry, or what is wrong with it, to be said behind its path."""
    if not isinstance(given, dict):
        return ": an object is required"
    try:
        entry = _ENTRY.validate_python(given)
    except ValidationError as exc:
        return "." + "; ".join(_with_values(exc))
    named = entry.source_name or source or default_source(org)
    if named is None:
        return ".sourceName: required, since the org has no default profile"
    fault = misplaced(org, named, entry.account_id, entry.channel, entry.org_unit_id)
    if fault:
        return "." + fault
    fields = {
        "source": named,
        "account_id": entry.account_id,
        "channel": entry.channel,
        "priority": entry.priority,
        "type": entry.type,
        "org_unit_id": entry.org_unit_id,
    }
    place = org.place(named, entry.account_id, entry.channel, entry.priority, entry.org_unit_id)
    waits = entry.type == "OPTIN" and place.opt_in_type == "DOUBLE"
    return Entry(index, {**given, "sourceName": named}, fields, waits)


def _with_values(error: ValidationError) -> list[str]:
    """Each fault with the value that was given, where it is short enough to be shown."""
    shown = []
    for fault, item in zip(faults_of(error), error.errors(include_url=False), strict=True):
        value = item["input"]
        shown.append(f"{fault}, not {value!r:.60}" if isinstance(value, (str, int)) and item["loc"] else fault)
    return shown


def default_profile(org: Org) -> tuple[str, str] | None:
    """Source and account that requests mean which name none: the org's setting, else its first active account."""
    own = org.settings.default_profile
    if own is not None:
        return own.source, own.account_id
    return next(iter(org.channels), None)


def default_source(org: Org) -> str | None:
    """The source of the default profile."""
    profile = default_profile(org)
    return None if profile is None else profile[0]


def misplaced(org: Org, source: str, account_id: str, channel: str, unit: int) -> str | None:
    """Why a change of this place would be refused by the stream (rule 2.2), with the values that are allowed."""
    channels = org.channels.get((source, account_id))
    if channels is None:
        known = ", ".join(f"{s} {a}" for s, a in org.channels)
        return f"accountId: {source} {account_id!r} is not an active account of the org: {known or 'it has none'}"
    if channel not in channels:
        return f"channel: {source} {account_id!r} is not mapped to {channel}, but to {', '.join(sorted(channels))}"
    if unit not in org.known_units:
        units = ", ".join(str(known) for known in (*org.units, WHOLE_ORG))
        return f"orgUnitId: {unit} is not a unit of the org: {units}"
    return None


def said_of_all(head: SubscriptionHead) -> dict[str, Any]:
    """The fields of an event that the request says of all its entries."""
    campaign = None if head.campaign_id == NO_CAMPAIGN else head.campaign_id
    fields = {
        "reason": head.reason,
        "campaign_id": campaign,
        "communication_id": head.communication_id,
        "language": head.language,
    }
    return {name: value for name, value in fields.items() if value is not None}
