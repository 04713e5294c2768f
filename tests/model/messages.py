"""The messages of the slow model (domain section 8): which one a change causes, under which settings text."""

from __future__ import annotations

from typing import Any

from .settings import TYPE_FIELDS, Doc

Told = tuple[str, str | None]  # kind, and the settings' text under its language; None where none is configured


def message(doc: Doc, event: Doc, audit: Doc, origin: str, customer_language: str | None) -> Told | None:
    """The kind of message and its text; `origin` is the change's, or that of the pending entry it verifies."""
    if audit["outcome"] == "pending":
        entry = _entry(doc, event, "verify")
        return "verify", None if entry is None else _text(doc, event, entry, customer_language)
    own = [cell for cell in audit["cells"] if cell["org_unit_id"] == event["org_unit_id"]]
    if audit["outcome"] != "applied" or not own:
        return None
    if event["priority"] == "TRANS" or origin in ("API", "IMPORT"):
        return None
    kind = {"OPTIN": "confirm_opt_in", "OPTOUT": "confirm_opt_out"}[own[0]["after"]]
    entry = _entry(doc, event, kind)
    return None if entry is None else (kind, _text(doc, event, entry, customer_language))


def faults(doc: Doc, event: Doc, told: Told, body: Doc) -> list[str]:
    """What is wrong with a notification that is to tell this."""
    kind, text = told
    wanted: Doc = {field: event[field] for field in ("org_id", "customer_id", "event_id", "priority", *TYPE_FIELDS)}
    wanted["kind"] = kind
    if text is not None:
        wanted["text"] = _filled(doc, event, text, body)
    found = [f"{field} {body[field]!r}, should be {value!r}" for field, value in wanted.items() if body[field] != value]
    if text is None and (body["language"] != "en" or (body["link"] or "no link") not in body["text"]):
        found.append(f"built-in text: {body['text']!r}")
    token, link = body["token"], body["link"]
    if (token is not None, link is not None) != (kind == "verify",) * 2 or (link or "").split("/")[-1] != (token or ""):
        found.append(f"token {token!r}, link {link!r}")
    return found


def _filled(doc: Doc, event: Doc, text: str, body: Doc) -> str:
    org = doc.get("name") or str(doc["org_id"])
    units = {unit["id"]: unit.get("name") for unit in doc.get("org_units") or []}
    known = {"{org}": org, "{org_unit}": units.get(event["org_unit_id"]) or org, "{channel}": event["channel"]}
    for name, value in (known | {"{link}": body["link"], "{keyword}": body["keyword"]}).items():
        text = text.replace(name, value or "")
    return text


def _entry(doc: Doc, event: Doc, kind: str) -> Doc | None:
    best, best_named = None, -1
    for entry in doc.get("messages") or []:
        named = [field for field in TYPE_FIELDS if entry.get(field) is not None]
        if entry["kind"] == kind and all(entry[field] == event[field] for field in named) and len(named) > best_named:
            best, best_named = entry, len(named)
    return best


def _text(doc: Doc, event: Doc, entry: Doc, customer_language: str | None) -> str:
    """A tag without regard to case, then shortened part by part, before the next in the chain."""
    texts: dict[str, Any] = {tag.casefold(): text for tag, text in entry["texts"].items()}
    for language in (event.get("language"), customer_language, doc.get("default_language", "en"), "en"):
        parts = language.casefold().split("-") if language else []
        for length in range(len(parts), 0, -1):
            tag = "-".join(parts[:length])
            if tag in texts:
                found: str = texts[tag]
                return found
    raise AssertionError("settings without a text in the default language and English are refused")
