"""The settings document of an org (contract, section 5): its faults, and the questions put to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .wire import (
    CHANNELS,
    PRIORITIES,
    SOURCES,
    Test,
    faulty,
    is_bool,
    is_int,
    is_list,
    is_natural,
    is_object,
    is_text,
    one_of,
)  # fmt: skip

Doc = dict[str, Any]

WHOLE_ORG = -1
TYPES = ("SINGLE", "RESTRICTED", "DOUBLE")
POLICIES = ("recent", "liberal", "strict")
TYPE_FIELDS = ("source", "account_id", "channel", "org_unit_id")
DEFAULT_MAX_FUTURE_MS = 300_000

_TOP_REQUIRED: dict[str, Test] = {"org_id": is_int, "version": lambda v: is_int(v) and v >= 1}
_TOP_OPTIONAL: dict[str, Test] = {
    "name": is_text,
    "default_language": is_text,
    "require_registration": is_bool,
    "repeat_opt_in": one_of(("ignore", "refresh")),
    "max_future_ms": is_natural,
    "org_units": is_list,
    "ou_sync": is_object,
    "accounts": is_list,
    "opt_in_types": is_list,
    "unified": is_object,
    "messages": is_list,
    "mobile": is_list,
}
_UNIFIED: dict[str, Test] = {"enabled": is_bool, "policy": one_of(POLICIES)}


def _is_channels(value: Any) -> bool:
    return is_list(value) and all(one_of(CHANNELS)(channel) for channel in value)


# --- faults ----------------------------------------------------------------------------------------


def faults(doc: Doc) -> list[str]:
    """The path of every fault. A document with any is refused whole."""
    found = faulty(doc, _TOP_REQUIRED, _TOP_OPTIONAL)
    found += _shape_faults(doc)
    # Contradictions can only be looked for in a document that has the right shape.
    return found or list(_contradictions(doc))


def _shape_faults(doc: Doc) -> list[str]:
    parts: list[str] = []
    parts += _item_faults(doc, "org_units", {"id": is_int}, {"name": is_text})
    parts += _item_faults(
        doc,
        "accounts",
        {"source": one_of(SOURCES), "account_id": is_text, "channels": _is_channels},
        {"active": is_bool},
    )
    parts += _item_faults(
        doc,
        "opt_in_types",
        {"type": one_of(TYPES)},
        {"source": one_of(SOURCES), "account_id": is_text, "channel": one_of(CHANNELS), "org_unit_id": is_int},
    )
    parts += _part_faults(doc, "ou_sync", {"opt_in": is_bool, "opt_out": one_of(("none", "any", "first"))})
    parts += _part_faults(doc, "unified", _UNIFIED | {"org_units": is_object})
    unified = doc.get("unified")
    units = unified.get("org_units") if isinstance(unified, dict) else None
    for name, unit in units.items() if isinstance(units, dict) else ():
        if re.fullmatch(r"-?[0-9]+", name) is None or not is_object(unit) or faulty(unit, {}, _UNIFIED):
            parts.append(f"unified.org_units.{name}")
    return parts


def _part_faults(doc: Doc, name: str, optional: dict[str, Test]) -> list[str]:
    part = doc.get(name)
    if not isinstance(part, dict):
        return []  # not given, or already a fault at the top
    return [f"{name}.{field}" for field in faulty(part, {}, optional)]


def _item_faults(doc: Doc, name: str, required: dict[str, Test], optional: dict[str, Test]) -> list[str]:
    items = doc.get(name)
    found = []
    for number, item in enumerate(items if isinstance(items, list) else []):
        wrong = faulty(item, required, optional) if isinstance(item, dict) else ["(not an object)"]
        found += [f"{name}.{number}.{field}" for field in wrong]
    return found


def _contradictions(doc: Doc) -> Iterator[str]:
    units = unit_ids(doc)
    for number, unit in enumerate(units):
        if unit == WHOLE_ORG or unit in units[:number]:
            yield f"org_units.{number}.id"
    pairs = [(account["source"], account["account_id"]) for account in accounts(doc)]
    for number, pair in enumerate(pairs):
        if pair in pairs[:number]:
            yield f"accounts.{number}"
    yield from _type_contradictions(doc)
    for name in (doc.get("unified") or {}).get("org_units") or {}:
        if int(name) not in units:
            yield f"unified.org_units.{name}"


def _type_contradictions(doc: Doc) -> Iterator[str]:
    entries = _type_entries(doc)
    places = [tuple(entry.get(field) for field in TYPE_FIELDS) for entry in entries]
    for number, entry in enumerate(entries):
        if places[number] in places[:number]:
            yield f"opt_in_types.{number}"
        if entry.get("org_unit_id") is not None and not has_unit(doc, entry["org_unit_id"]):
            yield f"opt_in_types.{number}.org_unit_id"
        if entry.get("account_id") is not None and not _names_an_account(doc, entry):
            yield f"opt_in_types.{number}.account_id"
        asked = (entry.get("source"), entry.get("channel"), entry["type"])
        if asked == ("INSTORE", "EMAIL", "DOUBLE"):
            yield f"opt_in_types.{number}.type"
    # An entry that leaves fields out can ask for DOUBLE on INSTORE EMAIL without naming either.
    for account in accounts(doc):
        if account["source"] == "INSTORE" and "EMAIL" in account["channels"]:
            for unit in [WHOLE_ORG, *unit_ids(doc)]:
                if opt_in_type(doc, "INSTORE", account["account_id"], "EMAIL", "BULK", unit) == "DOUBLE":
                    yield "opt_in_types"


def _names_an_account(doc: Doc, entry: Doc) -> bool:
    return any(
        account["account_id"] == entry["account_id"] and entry.get("source") in (None, account["source"])
        for account in accounts(doc)
    )


# --- questions -------------------------------------------------------------------------------------


def unit_ids(doc: Doc) -> list[int]:
    return [unit["id"] for unit in doc.get("org_units") or []]


def has_unit(doc: Doc, unit: int) -> bool:
    return unit == WHOLE_ORG or unit in unit_ids(doc)


def accounts(doc: Doc) -> list[Doc]:
    return doc.get("accounts") or []


def active_accounts(doc: Doc) -> list[Doc]:
    return [account for account in accounts(doc) if account.get("active") is not False]


def find_active(doc: Doc, source: str, account_id: str) -> Doc | None:
    for account in active_accounts(doc):
        if account["source"] == source and account["account_id"] == account_id:
            return account
    return None


def profiles_with(doc: Doc, channel: str) -> list[Doc]:
    """What the unified layer weighs, in the order of the settings."""
    return [account for account in active_accounts(doc) if channel in account["channels"]]


def _type_entries(doc: Doc) -> list[Doc]:
    return doc.get("opt_in_types") or []


def opt_in_type(doc: Doc, source: str, account_id: str, channel: str, priority: str, unit: int) -> str:
    """The matching entry that names most fields; among equals the first. TRANS is not configurable."""
    assert priority in PRIORITIES
    if priority == "TRANS":
        return "SINGLE"
    place = {"source": source, "account_id": account_id, "channel": channel, "org_unit_id": unit}
    best, best_named = "SINGLE", -1
    for entry in _type_entries(doc):
        named = [field for field in TYPE_FIELDS if entry.get(field) is not None]
        if all(entry[field] == place[field] for field in named) and len(named) > best_named:
            best, best_named = entry["type"], len(named)
    return best


def requires_registration(doc: Doc) -> bool:
    return doc.get("require_registration") is not False


def refreshes(doc: Doc) -> bool:
    return doc.get("repeat_opt_in") == "refresh"


def max_future_ms(doc: Doc) -> int:
    given = doc.get("max_future_ms")
    return DEFAULT_MAX_FUTURE_MS if given is None else given


def syncs_opt_in(doc: Doc) -> bool:
    return (doc.get("ou_sync") or {}).get("opt_in") is True


def opt_out_sync(doc: Doc) -> str:
    return (doc.get("ou_sync") or {}).get("opt_out") or "none"


def policy_for(doc: Doc, unit: int) -> str:
    """`existing`, or the policy of the unified layer where it is on. What an OU does not give is the org's."""
    org = doc.get("unified") or {}
    own: Doc = {}
    if unit != WHOLE_ORG:
        for name, part in (org.get("org_units") or {}).items():
            if int(name) == unit:
                own = part
    enabled = own.get("enabled") if own.get("enabled") is not None else org.get("enabled")
    if not enabled:
        return "existing"
    return own.get("policy") or org.get("policy") or "recent"
