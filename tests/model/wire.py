"""Reading what is on the wire: Kafka's hash, JSON, times and fields. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

SOURCES = (
    "INSTORE", "FACEBOOK", "WEB_ENGAGE", "WECHAT", "MARTJACK", "TMALL",
    "TAOBAO", "JD", "ECOMMERCE", "WEBSITE", "LINE", "MOBILE_APP",
)  # fmt: skip
CHANNELS = ("MOBILE", "EMAIL", "WECHAT", "WHATSAPP", "IOS", "ANDROID", "LINE")
PRIORITIES = ("BULK", "TRANS")
ENTRY_TYPES = ("OPTIN", "OPTOUT")
ORIGINS = ("API", "SMS", "MISSED_CALL", "EMAIL_LINK", "CONSOLE", "IMPORT", "PRODUCER")
EVENTS = (
    "consent.changed", "consent.verified", "consent.batch_reverted", "customer.registered", "customer.erased",
    "settings.changed",
)  # fmt: skip

Test = Callable[[Any], bool]


class Bad(Exception):  # noqa: N818 - what it says about the record, not about this program
    """The record is a dead letter (or, for a request, not readable); `code` says which."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


# --- keys and partitions ---------------------------------------------------------------------------


def murmur2(data: bytes) -> int:
    """Kafka's 32 bit murmur2 (seed 0x9747b28c), as an unsigned number."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The Java default partitioner: the sign bit is masked away, not negated."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def is_settings_key(key: bytes) -> bool:
    """`{org_id}:`, which is written to every partition on purpose."""
    return re.fullmatch(rb"-?[0-9]+:", key) is not None


# --- JSON ------------------------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_object(value: bytes | None) -> dict[str, Any]:
    """The JSON object in `value`; a tombstone is not an object either."""
    if value is None:
        raise Bad("malformed_json", "no value")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Bad("not_utf8", str(error)) from None
    try:
        parsed = json.loads(text, parse_constant=_no_constant)
        # A lone surrogate escape cannot be written as UTF-8 again, so no audit could hold it.
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Bad("malformed_json", str(error)) from None
    if not isinstance(parsed, dict):
        raise Bad("malformed_json", "not an object")
    return parsed


# --- times -----------------------------------------------------------------------------------------

_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt](?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.(?P<fraction>[0-9]+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def parse_time(text: Any) -> int | None:
    """RFC 3339 to milliseconds since 1970; None where it is no such time. Further digits are cut off."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    hours, minutes = int(match["hours"] or 0), int(match["minutes"] or 0)
    if hours > 23 or minutes > 59:
        return None
    offset = timedelta(hours=hours, minutes=minutes)
    try:
        local = datetime.strptime(f"{match['date']} {match['clock']}Z", "%Y-%m-%d %H:%M:%S%z")
        utc = local + offset if match["sign"] == "-" else local - offset
    except (ValueError, OverflowError):
        return None
    if local.second != int(match["clock"][6:]):  # strptime reads :60 and :61; they are refused here
        return None
    milliseconds = int((match["fraction"] or "")[:3].ljust(3, "0"))
    return (utc - _EPOCH) // _MS + milliseconds


def time_text(ms: int) -> str:
    """The one form in which times leave the system: UTC with milliseconds."""
    at = _EPOCH + timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- fields ----------------------------------------------------------------------------------------


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_natural(value: Any) -> bool:
    return is_int(value) and value >= 0


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def is_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 128


def is_time(value: Any) -> bool:
    return parse_time(value) is not None


def one_of(words: Collection[str]) -> Test:
    return lambda value: isinstance(value, str) and value in words


def is_mobile(value: Any) -> bool:
    """E.164 with its plus sign."""
    return isinstance(value, str) and re.fullmatch(r"\+[1-9][0-9]{1,14}", value) is not None


def is_email(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[^@\s]+@[^@\s]+", value) is not None


def is_identifiers(value: Any) -> bool:
    tests: dict[str, Test] = {"mobile": is_mobile, "email": is_email, "external_id": is_text}
    return is_object(value) and not faulty(value, {}, tests)


def is_position(value: Any) -> bool:
    tests: dict[str, Test] = {"partition": is_natural, "offset": is_natural}
    return is_object(value) and not faulty(value, tests, {})


def faulty(value: Mapping[str, Any], required: Mapping[str, Test], optional: Mapping[str, Test]) -> list[str]:
    """The names of the fields that are missing or wrong. An optional field that is null counts as not given."""
    wrong = [name for name, good in required.items() if not good(value.get(name))]
    return wrong + [name for name, good in optional.items() if value.get(name) is not None and not good(value[name])]


_COMMON: dict[str, Test] = {"event_id": is_id, "org_id": is_int, "occurred_at": is_time}
_CUSTOMER: dict[str, Test] = _COMMON | {"customer_id": is_id}
_CELL: dict[str, Test] = {
    "source": one_of(SOURCES),
    "account_id": is_text,
    "channel": one_of(CHANNELS),
    "priority": one_of(PRIORITIES),
    "org_unit_id": is_int,
}
_REQUIRED: dict[str, dict[str, Test]] = {
    "consent.changed": _CUSTOMER | _CELL | {"type": one_of(ENTRY_TYPES)},
    "consent.verified": _CUSTOMER | _CELL | {"verifies": is_id},
    "consent.batch_reverted": _CUSTOMER | {"batch_id": is_id},
    "customer.registered": _CUSTOMER,
    "customer.erased": _CUSTOMER,
    "settings.changed": _COMMON | {"settings": is_object},
}
_OPTIONAL: dict[str, dict[str, Test]] = {
    "consent.changed": {
        "origin": one_of(ORIGINS),
        "language": is_text,
        "reason": is_text,
        "campaign_id": is_text,
        "communication_id": is_text,
        "batch_id": is_id,
        "proof": is_object,
    },
    "consent.verified": {},
    "consent.batch_reverted": {},
    "customer.registered": {"identifiers": is_identifiers, "language": is_text},
    "customer.erased": {},
    "settings.changed": {},
}


def read_change(value: bytes | None) -> dict[str, Any]:
    """A record of `consent.changes` with every field this event knows checked; else Bad."""
    event = read_object(value)
    name = event.get("event")
    if not isinstance(name, str):
        raise Bad("invalid_field", "event")
    if name not in EVENTS:
        raise Bad("unknown_event", name)
    wrong = faulty(event, _REQUIRED[name], _OPTIONAL[name])
    if wrong:
        raise Bad("invalid_field", ", ".join(wrong))
    return event


def key_of(event: Mapping[str, Any]) -> bytes:
    """The only key that agrees with the record's own fields."""
    customer = "" if event.get("event") == "settings.changed" else event["customer_id"]
    return f"{event['org_id']}:{customer}".encode()


REQUEST_REQUIRED: dict[str, Test] = {
    "request_id": is_id,
    "org_id": is_int,
    "customer_id": is_id,
    "channel": one_of(CHANNELS),
    "priority": one_of(PRIORITIES),
}
REQUEST_OPTIONAL: dict[str, Test] = {
    "org_unit_id": is_int,
    "source": one_of(SOURCES),
    "account_id": is_text,
    "requested_at": is_time,
    "campaign_id": is_text,
    "communication_id": is_text,
    "min_position": is_position,
    "max_wait_ms": is_natural,
}


def request_faults(request: Mapping[str, Any]) -> list[str]:
    return faulty(request, REQUEST_REQUIRED, REQUEST_OPTIONAL)
