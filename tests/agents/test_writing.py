"""The records that the agents write."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audit import AUDIT
from streams.agents.bodies import change_audit, must_rewrite, rewritten
from streams.agents.writing import Scribe, progress_header
from streams.engine.outputs import Outputs
from streams.kafka.records import Record
from tests.schemas import samples
from tests.written import by_place

CODES = (
    "malformed_json", "not_utf8", "invalid_field", "unknown_event", "key_mismatch", "missing_key",
    "occurred_in_future", "unknown_org", "unknown_account", "unknown_org_unit", "channel_not_mapped", "too_large",
)  # fmt: skip
APPLIED: Any = ("applied", None, samples.CHANGE_AUDIT["cells"])


def record(value: bytes | None, **parts: Any) -> Record:
    return Record(**({"offset": 17, "timestamp": 5, "key": b"100:565039505", "value": value, "headers": []} | parts))


def audit_of(value: bytes, outcome: Any = APPLIED, version: int | None = 1) -> bytes:
    """As the agent does it: the input as it came where it can stand so, else rewritten."""
    raw = rewritten(orjson.loads(value)) if must_rewrite(value) else value
    return change_audit(3, 17, raw, version, outcome)


def body(value: bytes, outcome: Any = APPLIED, version: int | None = 1) -> dict[str, Any]:
    written = audit_of(value, outcome, version)
    assert b"\n" not in written
    assert b"\r" not in written
    found: dict[str, Any] = json.loads(written)
    return found


def test_the_audit_of_a_change_is_what_the_contract_says() -> None:
    found = body(orjson.dumps(samples.CHANGED))
    assert found == samples.CHANGE_AUDIT
    assert AUDIT.validate_python(found)


def test_an_ignored_change_says_why_and_changes_no_cell() -> None:
    found = body(orjson.dumps(samples.CHANGED), ("ignored", "duplicate", []), None)
    assert (found["outcome"], found["outcome_reason"], found["cells"]) == ("ignored", "duplicate", [])
    assert found["settings_version"] is None


@pytest.mark.parametrize("sample", [samples.CHANGED_IN_FULL, samples.REGISTERED])
def test_identifiers_and_proof_never_reach_the_audit(sample: dict[str, Any]) -> None:
    found = body(orjson.dumps(sample | {"not_known": [1, {"b": None}]}))["input"]
    private = {"identifiers", "proof"}
    assert found == {name: value for name, value in sample.items() if name not in private} | {
        "not_known": [1, {"b": None}]
    }
    assert private & set(sample)


@pytest.mark.parametrize("name", ["proof", "identifiers"])
def test_they_are_left_out_however_their_names_are_written(name: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    value = orjson.dumps(samples.CHANGED)[:-1] + f',"{escaped}":{{"secret":1}}}}'.encode()
    assert b"secret" not in audit_of(value)


@pytest.mark.parametrize("space", ["\n", "\r\n", "\r", "\t", " "])
def test_an_input_on_several_lines_becomes_one_line(space: str) -> None:
    value = json.dumps(samples.CHANGED, indent=1).replace("\n", space).encode()
    assert body(value)["input"] == samples.CHANGED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=6) | st.sampled_from(("proof", "identifiers")), JSON, max_size=6),
    st.sampled_from((None, 1)),
    st.booleans(),
)
def test_the_spliced_input_equals_the_parsed_one(
    document: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    value = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    expected = {name: part for name, part in document.items() if name not in {"proof", "identifiers"}}
    assert body(value)["input"] == expected


def _one(outputs: Outputs, topic: str, partition: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    assert list(by_place(outputs)) == [(topic, partition)]
    ((key, value, headers),) = by_place(outputs)[topic, partition]
    return key, value, list(headers)


@pytest.mark.parametrize("code", CODES)
def test_a_dead_letter_is_the_record_as_it_came_with_the_place_and_the_code(code: str) -> None:
    outputs = Outputs()
    own = [("trace", b"1"), ("trace", b"2"), ("empty", None), ("ce_id", b"x")]
    Scribe("consent.changes", 3, "p-").dead_letter(outputs, record(b"\xff", headers=own), code, "field: é is wrong")
    key, value, headers = _one(outputs, "p-consent.deadletter", 3)
    assert (key, value) == (b"100:565039505", b"\xff")
    assert headers[:4] == own
    added = dict(headers[4:])
    assert len(added) == len(headers) - 4
    assert added["__connect.errors.topic"] == b"p-consent.changes"
    assert added["__connect.errors.partition"] == b"3"
    assert added["__connect.errors.offset"] == b"17"
    assert added["__connect.errors.exception.message"].decode() == "field: é is wrong"
    assert added["consent.error"] == code.encode()
    assert added["__connect.errors.stage"] in {b"KEY_CONVERTER", b"VALUE_CONVERTER", b"TRANSFORMATION"}
    assert added["__connect.errors.exception.class.name"]
    assert all(isinstance(content, bytes) for content in added.values())


def test_a_dead_letter_may_have_neither_key_nor_value() -> None:
    outputs = Outputs()
    Scribe("eligibility.requests", 0, "").dead_letter(outputs, record(None, key=None), "missing_key", "no key")
    key, value, headers = _one(outputs, "consent.deadletter", 0)
    assert (key, value) == (None, None)
    assert ("__connect.errors.topic", b"eligibility.requests") in headers


def test_an_output_that_a_restart_found_in_place_is_not_written_again() -> None:
    scribe = Scribe("consent.changes", 3, "")
    scribe.written = {"consent.audit": {17}, "consent.deadletter": {18}, "consent.notifications": {17}}
    outputs = Outputs()
    scribe.audit(outputs, record(b"{}"), b"{}")
    scribe.notification(outputs, record(b"{}"), "verify", b"{}")
    scribe.dead_letter(outputs, record(b"{", offset=18), "malformed_json", "m")
    assert by_place(outputs) == {}
    scribe.audit(outputs, record(b"{}", offset=18), b"{}")
    scribe.notification(outputs, record(b"{}", offset=18), "verify", b"{}")
    scribe.dead_letter(outputs, record(b"{"), "malformed_json", "m")
    topics = ("consent.audit", "consent.deadletter", "consent.notifications")
    assert set(by_place(outputs)) == {(topic, 3) for topic in topics}


def test_the_workers_own_records_are_cloud_events_that_name_their_input() -> None:
    outputs = Outputs()
    Scribe("consent.changes", 3, "").audit(outputs, record(b"{}"), b"{}")
    Scribe("consent.changes", 3, "").notification(outputs, record(b"{}"), "verify", b"{}")
    Scribe("eligibility.requests", 4, "").decision(outputs, record(b"{}"), b"{}", b"{}", progress_header(b"1/2"))
    for (_, partition), ((key, _, headers),) in by_place(outputs).items():
        own = dict(headers)
        assert key == b"100:565039505"
        assert {"ce_specversion", "ce_type", "ce_source", "ce_id"} <= set(own)
        assert own["ce_specversion"] == b"1.0"
        source = "consent.changes" if partition == 3 else "eligibility.requests"
        assert own["ce_id"] == f"{source}/{partition}/17".encode()
    identities = [
        (dict(headers)["ce_source"], dict(headers)["ce_id"])
        for ((_, _, headers),) in by_place(outputs).values()
    ]  # fmt: skip
    assert len(set(identities)) == len(identities), "source and id together name one event"


@pytest.mark.parametrize("source", ["consent.changes", "eligibility.requests"])
def test_no_header_of_the_workers_own_records_comes_twice(source: str) -> None:
    outputs = Outputs()
    scribe = Scribe(source, 3, "")
    if source == "consent.changes":
        scribe.audit(outputs, record(b"{}"), b"{}")
    else:
        scribe.decision(outputs, record(b"{}"), b"{}", b"{}", progress_header(b"1/2"))
    scribe.notification(outputs, record(b"{}"), "verify", b"{}")
    for ((_, _, headers),) in by_place(outputs).values():
        names = [name for name, _ in headers]
        assert sorted(names) == sorted(set(names))


def test_a_record_goes_home_as_it_came_and_says_from_where() -> None:
    outputs = Outputs()
    own = [("trace", b"1")]
    Scribe("consent.changes", 3, "p-").forward(outputs, record(b"{}", headers=own), 6)
    key, value, headers = _one(outputs, "p-consent.changes", 6)
    assert (key, value) == (b"100:565039505", b"{}")
    assert headers == [*own, ("consent.forwarded_from", b"consent.changes/3/17")]
