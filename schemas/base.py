"""Types that every record is made of: times, ids and the words of the domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

#: Known fields are taken as they are (no "1" for 1), unknown ones are left to the audit, which holds the raw record.
RECORD = ConfigDict(strict=True, extra="ignore")

Source = Literal[
    "INSTORE", "FACEBOOK", "WEB_ENGAGE", "WECHAT", "MARTJACK", "TMALL", "TAOBAO", "JD", "ECOMMERCE", "WEBSITE",
    "LINE", "MOBILE_APP",
]  # fmt: skip
Channel = Literal["MOBILE", "EMAIL", "WECHAT", "WHATSAPP", "IOS", "ANDROID", "LINE"]
Priority = Literal["BULK", "TRANS"]
ChangeType = Literal["OPTIN", "OPTOUT"]
Status = Literal["NOT_SET", "OPTIN", "OPTOUT"]
OptInType = Literal["SINGLE", "RESTRICTED", "DOUBLE"]
Policy = Literal["existing", "recent", "liberal", "strict"]
Origin = Literal["API", "SMS", "MISSED_CALL", "EMAIL_LINK", "CONSOLE", "IMPORT", "PRODUCER"]

INT64_MAX = 2**63 - 1
#: The org unit that is the org itself.
WHOLE_ORG = -1
Int64 = Annotated[int, Field(ge=-(2**63), le=INT64_MAX)]
Offset = Annotated[int, Field(ge=0, le=INT64_MAX)]
Id = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=4096)]
Language = Annotated[str, Field(min_length=1, max_length=35, description="BCP 47 tag, such as en or zh-Hant")]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTES: dict[str, int] = {}
_SECONDS = {f":{second:02d}": second * 1000 for second in range(60)}
_MILLIS = {f".{milli:03d}Z": milli for milli in range(1000)}
_MINUTE_TEXTS: dict[int, str] = {}
LAST_MS = 253_402_300_799_999  # the end of the year 9999 in UTC
_MINUTES_KEPT = 100_000  # about nine weeks of distinct minutes; then the cache starts anew


def parse_instant(text: object) -> int:
    """Milliseconds since the epoch of an RFC 3339 time; digits beyond milliseconds are cut off.

    Raises ValueError for anything else: no offset, a date alone, a number, a year before 1970.
    """
    if type(text) is not str:
        raise ValueError("must be a string with an RFC 3339 time, such as 2026-11-21T10:00:00.123Z")
    # The canonical form costs three look-ups; everything else takes the long way.
    minute, second, milli = _MINUTES.get(text[:16]), _SECONDS.get(text[16:19]), _MILLIS.get(text[19:])
    if minute is not None and second is not None and milli is not None:
        return minute + second + milli
    return _parse_slowly(text)


def _parse_slowly(text: str) -> int:
    bad = ValueError(f"{text[:40]!r} is not an RFC 3339 time with an offset, such as 2026-11-21T10:00:00.123Z")
    day, rest = text[:10], text[11:]
    if not text.isascii() or len(text) < 20 or text[10] not in "Tt " or len(rest) < 9 or rest[2] + rest[5] != "::":
        raise bad
    clock, fraction, zone = rest[:8], "", rest[8:]
    if zone[:1] == ".":
        digits = len(zone[1:]) - len(zone[1:].lstrip("0123456789"))
        fraction, zone = zone[1 : 1 + digits], zone[1 + digits :]
        if not fraction:
            raise bad
    if zone in {"Z", "z"}:
        zone = "+00:00"
    if len(zone) != 6 or zone[0] not in "+-" or zone[3] != ":" or len(day) != 10 or day[4] + day[7] != "--":
        raise bad
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone}")
    except ValueError:
        raise bad from None
    whole = moment - _EPOCH
    millis = (whole.days * 86_400 + whole.seconds) * 1000
    if not 0 <= millis <= LAST_MS:
        raise bad
    if len(_MINUTES) >= _MINUTES_KEPT:
        _MINUTES.clear()
    if zone == "+00:00":
        _MINUTES[text[:16].upper()] = millis - moment.second * 1000
    return millis + int((fraction + "000")[:3])


def format_instant(millis: int) -> str:
    """The canonical form of a time: RFC 3339, UTC, milliseconds, `Z`."""
    minute, rest = divmod(millis, 60_000)
    text = _MINUTE_TEXTS.get(minute)
    if text is None:
        if len(_MINUTE_TEXTS) >= _MINUTES_KEPT:
            _MINUTE_TEXTS.clear()
        text = _MINUTE_TEXTS[minute] = f"{_EPOCH + timedelta(minutes=minute):%Y-%m-%dT%H:%M:}"
    return f"{text}{rest // 1000:02d}.{rest % 1000:03d}Z"


def _instant_schema() -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-21T10:00:00.123Z"]})


#: A time on the wire is RFC 3339; inside it is milliseconds since the epoch.
Instant = Annotated[
    int, BeforeValidator(parse_instant), PlainSerializer(format_instant, return_type=str), _instant_schema()
]
JsonObject = dict[str, Any]
