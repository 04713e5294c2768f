"""A record's value, checked against the schemas before it is sent, with the key that it belongs under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.eligibility import REQUEST
from schemas.events import EVENTS
from schemas.settings import faults_of
from streams.domain.keys import customer_key, settings_key

SETTINGS_CHANGED = "settings.changed"


class RecordError(ValueError):
    """A value that the worker would refuse; the message names every field and its fault."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A value fit to be sent. `everywhere`: to every partition (settings), not to the key's home."""

    id: str
    org_id: int
    key: bytes
    value: bytes
    everywhere: bool = False


def check_event(value: bytes, max_bytes: int) -> Checked:
    """Check one record of `consent.changes`. Raises RecordError."""
    event = read_object(value, max_bytes)
    kind = event.get("event")
    if "event" not in event:
        raise RecordError("event: missing")
    if not isinstance(kind, str) or kind not in EVENTS:
        raise RecordError(f"event: {kind!r} is not one of {', '.join(EVENTS)}")
    _validate(EVENTS[kind], event)
    if kind != SETTINGS_CHANGED:
        return Checked(event["event_id"], event["org_id"], customer_key(event["org_id"], event["customer_id"]), value)
    if event["settings"]["org_id"] != event["org_id"]:
        raise RecordError(f"settings.org_id: {event['settings']['org_id']} is not the event's org_id {event['org_id']}")
    return Checked(event["event_id"], event["org_id"], settings_key(event["org_id"]), value, everywhere=True)


def check_request(value: bytes, max_bytes: int) -> Checked:
    """Check one record of `eligibility.requests`. Raises RecordError."""
    request = read_object(value, max_bytes)
    _validate(REQUEST, request)
    key = customer_key(request["org_id"], request["customer_id"])
    return Checked(request["request_id"], request["org_id"], key, value)


def read_object(value: bytes, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a value. Raises RecordError."""
    if len(value) > max_bytes:
        raise RecordError(f"{len(value)} bytes are too large: at most {max_bytes} (CONSENT_MAX_RECORD_BYTES)")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 at byte {error.start}") from error
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecordError("not a JSON object")
    return found


def _validate(adapter: TypeAdapter[Any], value: dict[str, Any]) -> None:
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise RecordError("; ".join(faults_of(error))) from error
