"""From a raw record to a checked one, or to the code and message of its dead letter (contract section 6)."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.settings import faults_of
from streams.kafka.records import Record

#: So many faults of one record are named; a settings document is named in full by `settings check`.
FAULTS_NAMED = 20
#: Deeper values can be read but not written again by every JSON library on the way.
MOST_NESTED = 100


class UnreadableError(Exception):
    """The record cannot be read: `code` of contract section 6, and a message that names the field and the fault.

    `document` is what could be decoded of it, if anything.
    """

    def __init__(self, code: str, message: str, document: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.document = document


def parse(record: Record, max_bytes: int) -> dict[str, Any]:
    """The record's value as a JSON object. Raises UnreadableError: too_large, not_utf8 or malformed_json."""
    value = checked_size(record, max_bytes)
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise _unparsable(value, exc) from None
    if type(document) is not dict:
        raise UnreadableError("malformed_json", f"the value is a JSON {_json_kind(document)}, not an object")
    return document


def size_of(record: Record) -> int:
    """Bytes of the record's value with its key and headers."""
    _, _, key, value, headers = record
    size = len(value or b"") + len(key or b"")
    for name, content in headers:
        size += len(name) + len(content or b"")
    return size


def checked_size(record: Record, max_bytes: int) -> bytes:
    """The record's value, if there is one and it is not too large with its key and headers. Raises UnreadableError."""
    size = size_of(record)
    if size > max_bytes:
        raise UnreadableError("too_large", f"the record has {size} bytes, at most {max_bytes} are accepted")
    if record.value is None:
        raise UnreadableError("malformed_json", "the record has no value")
    return record.value


def check_nesting(document: dict[str, Any]) -> None:
    """Refuse what can be read but not be written again. Raises UnreadableError: malformed_json."""
    if _depth(document) > MOST_NESTED:
        raise UnreadableError("malformed_json", f"the value is nested deeper than {MOST_NESTED} levels")


def _unparsable(value: bytes, error: orjson.JSONDecodeError) -> UnreadableError:
    try:
        value.decode()
    except UnicodeDecodeError as exc:
        return UnreadableError("not_utf8", f"the value is not UTF-8: byte {exc.start}: {exc.reason}")
    return UnreadableError("malformed_json", f"the value is not JSON: {error}")


def _depth(document: Any) -> int:
    """How many levels of arrays and objects a document has."""
    depth, level = 0, [document]
    while level:
        nested = [one for one in level if isinstance(one, (dict, list))]
        depth += bool(nested)
        level = [inner for one in nested for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _json_kind(document: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(document), "number")


def validate(document: dict[str, Any], schema: TypeAdapter[Any]) -> dict[str, Any]:
    """The known fields, checked and converted. Raises UnreadableError: invalid_field, with every fault by its path."""
    try:
        checked: dict[str, Any] = schema.validator.validate_python(document)
    except ValidationError as exc:
        faults = faults_of(exc)
        more = [f"and {len(faults) - FAULTS_NAMED} more"] if len(faults) > FAULTS_NAMED else []
        message = "; ".join(faults[:FAULTS_NAMED] + more)
        raise UnreadableError("invalid_field", message, document) from None
    return checked
