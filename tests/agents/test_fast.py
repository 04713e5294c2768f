"""The fast readers: what they take is what pydantic makes of it, and everything ordinary is taken."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from schemas.eligibility import REQUEST, EligibilityRequest
from schemas.events import EVENTS, ConsentChanged
from streams.agents.fast import reader
from tests.schemas import samples

READERS = {
    "change": (reader(ConsentChanged), EVENTS["consent.changed"]),
    "request": (reader(EligibilityRequest), REQUEST),
}
REQUEST_IN_FULL = samples.REQUEST | {
    "requested_at": "2026-11-21T10:00:00.123Z", "campaign_id": "c", "communication_id": 7, "max_wait_ms": 10,
    "min_position": {"partition": 1, "offset": 2}, "source": None, "account_id": None, "org_unit_id": -1,
}  # fmt: skip
SAMPLES = [
    ("change", samples.CHANGED),
    ("change", samples.CHANGED_IN_FULL),
    ("request", samples.REQUEST),
    ("request", REQUEST_IN_FULL),
]
UNKNOWN = {"unknown": [1, {"deep": [None, True, 2.5e3, "text"]}]}
SNIPPETS = [
    b"null", b"true", b"1", b"-1", b"1.0", b"01", b"1.", b"1e", b'"', b"{", b"}", b"[", b"]", b",", b":", b'""',
    b"NaN", b"Infinity", b"\x00", b"\x01", b"\x7f", b"\n", b" ", b"99999999999999999999", b'"x"', b"//", b"+1",
    b'"org_id":"x",', b'"org_id":5,', b"\\u0041", b"\\ud800", b"\\", b"\xff", "é".encode(),
]  # fmt: skip


def expected(name: str, value: bytes) -> Any:
    try:
        return READERS[name][1].validator.validate_json(value)
    except ValidationError:
        return None


@pytest.mark.parametrize(("name", "document"), SAMPLES)
def test_ordinary_records_are_read_fast(name: str, document: dict[str, Any]) -> None:
    value = orjson.dumps(document | UNKNOWN)
    found = READERS[name][0](value)
    assert found is not None
    assert found == expected(name, value)


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, bytes]:
    """A record with some of its bytes left out, put in or doubled."""
    name, document = draw(st.sampled_from(SAMPLES))
    value = orjson.dumps(document | UNKNOWN)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(value)))
        until = at + draw(st.integers(0, 6))
        value = value[:at] + draw(st.sampled_from([b"", value[at : at + 30], *SNIPPETS])) + value[until:]
    return name, value


@settings(max_examples=2_000)
@given(broken())
@example(("request", b"[" * 5_000))
@example(("change", orjson.dumps(samples.CHANGED)[:-1] + b',"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}"))
def test_what_is_read_fast_is_what_pydantic_reads(record: tuple[str, bytes]) -> None:
    name, value = record
    found = READERS[name][0](value)
    if found is not None:
        assert found == expected(name, value)


@pytest.mark.parametrize(
    "field", [b'"proof":{}', b'"proof":null', b'"identifiers":{"a":1}', b'"identifiers":"\\u0000"']
)
def test_records_with_a_field_that_must_be_left_are_left(field: bytes) -> None:
    read = reader(ConsentChanged, leave=frozenset({"proof", "identifiers"}))
    value = orjson.dumps(samples.CHANGED)
    assert read(value) is not None
    assert read(b"%b,%b}" % (value[:-1], field)) is None


def test_a_type_without_a_counterpart_is_refused_when_the_reader_is_made() -> None:
    record = TypedDict("record", {"field": set[int]})  # noqa: UP013 - made here only
    TypeAdapter(record)
    with pytest.raises(TypeError, match="no decoder"):
        reader(record)
