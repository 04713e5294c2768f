"""Times: RFC 3339 in, milliseconds inside, UTC with milliseconds out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import format_instant, parse_instant

TEN = 1_795_255_200_000  # 2026-11-21T10:00:00Z
MOMENTS = st.integers(0, 253_402_300_799_999 - 86_400_000)
OFFSETS = st.integers(-1439, 1439)


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("2026-11-21T10:00:00.123Z", TEN + 123),
        ("2026-11-21T10:00:00Z", TEN),
        ("2026-11-21t10:00:00z", TEN),
        ("2026-11-21T10:00:00.1Z", TEN + 100),
        ("2026-11-21T10:00:00.12Z", TEN + 120),
        ("2026-11-21T10:00:00.1239999999Z", TEN + 123),
        ("2026-11-21T10:00:00.000000001Z", TEN),
        ("2026-11-21T15:30:00.5+05:30", TEN + 500),
        ("2026-11-21T07:00:00.123-03:00", TEN + 123),
        ("2026-11-21T10:00:00+00:00", TEN),
        ("2026-11-21T10:00:00-00:00", TEN),
        ("2026-11-22T09:59:00+23:59", TEN),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T05:30:00+05:30", 0),
        ("2024-02-29T12:00:00Z", 1_709_208_000_000),
    ],
)
def test_every_form_of_an_instant_is_understood(text: str, millis: int) -> None:
    assert parse_instant(text) == millis
    assert parse_instant(text) == millis  # from memory now


@pytest.mark.parametrize(
    "text",
    [
        None, 5, 1.5, True, b"2026-11-21T10:00:00Z", "", "now", "2026-11-21", "2026-11-21T10:00:00",
        "2026-11-21T10:00:00.123", "2026-11-21T10:00Z", "2026-11-21T10:00:00.Z", "2026-11-21T10:00:00,5Z",
        "2026-11-21T10:00:00 Z", "2026-11-21T10:00:00+05", "2026-11-21T10:00:00+0530", "2026-11-21T10:00:00+05:30:10",
        "2026-11-21T10:00:00+24:00", "2026-11-21T24:00:00Z", "2026-11-21T10:60:00Z", "2026-11-21T10:00:61Z",
        "2026-02-30T10:00:00Z", "2026-13-01T10:00:00Z", "2026-00-10T10:00:00Z", "2025-02-29T10:00:00Z",
        "20261121T100000Z", "2026-W47-6T10:00:00Z", "2026-325T10:00:00.000Z", " 2026-11-21T10:00:00Z",
        "2026-11-21T10:00:00Z ", "2026-11-21T10:00:00.1234x", "2026-11-21T10:00:0\u0663Z", "\uff12026-11-21T10:00:00Z",
        "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00", "1969-12-31T23:59:59Z", "2026-11-21T10:00:00.123ZZ",
        "2026-11-21T10:00:-1.123Z", "2026-11-21T10:00:99.123Z", "2026-11-21T10:00:00.12aZ", "2026-11-21T10-00-00.123Z",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: object) -> None:
    parse_instant("2026-11-21T10:00:00.123Z")  # so that the minute is known
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_instant(text)


@given(MOMENTS)
def test_what_is_written_is_read_back(millis: int) -> None:
    text = format_instant(millis)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert parse_instant(text) == millis
    assert parse_instant(text) == millis


@given(MOMENTS, OFFSETS, st.integers(0, 9), st.booleans())
def test_an_instant_is_the_same_at_every_offset_and_with_any_number_of_digits(
    millis: int, minutes: int, digits: int, lower: bool
) -> None:
    millis = max(millis, 86_400_000)
    moment = datetime.fromtimestamp(millis // 1000, UTC).astimezone(timezone(timedelta(minutes=minutes)))
    fraction = f"{millis % 1000:03d}987654"[:digits]
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    text = f"{moment:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}{sign}{hours:02d}:{rest:02d}"
    expected = millis // 1000 * 1000 + int((fraction + "000")[:3])
    assert parse_instant(text.lower() if lower else text) == expected


@given(st.text("0123456789-:TtZz+. ", max_size=30))
def test_no_text_ends_in_anything_but_an_instant_or_a_value_error(text: str) -> None:
    try:
        millis = parse_instant(text)
    except ValueError:
        return
    assert parse_instant(format_instant(millis)) == millis


def test_the_last_instant_that_can_be_written_is_the_last_that_can_be_read() -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_instant("9999-12-31T23:59:59-10:00")
