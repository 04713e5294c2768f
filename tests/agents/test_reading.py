"""From raw bytes to a checked record, or to the code and message of a dead letter (contract section 6)."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafkas_murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.eligibility import REQUEST
from schemas.events import EVENTS
from streams.agents.reading import FAULTS_NAMED, UnreadableError, parse, validate
from streams.domain.keys import customer_key, is_settings_key, murmur2, partition_of, settings_key
from streams.kafka.records import Record
from tests.model import wire
from tests.schemas import samples

MOST = 10_000


def record(value: bytes | None, key: bytes | None = b"100:c", headers: Any = ()) -> Record:
    return Record(7, 0, key, value, headers)


def unreadable(value: bytes | None, **parts: Any) -> tuple[str, str]:
    with pytest.raises(UnreadableError) as caught:
        parse(record(value, **parts), MOST)
    message = str(caught.value)
    assert "\n" not in message
    return caught.value.code, message


@pytest.mark.parametrize(
    ("value", "code", "part"),
    [
        (None, "malformed_json", "no value"),
        (b"", "malformed_json", "not JSON"),
        (b"   ", "malformed_json", "not JSON"),
        (b'{"event":', "malformed_json", "not JSON"),
        (b"{'event': 1}", "malformed_json", "not JSON"),
        (b'{"a":NaN}', "malformed_json", "not JSON"),
        (b'{"a":1}{"b":2}', "malformed_json", "not JSON"),
        (b'{"a":"\\ud800"}', "malformed_json", "not JSON"),
        (b"\xef\xbb\xbf{}", "malformed_json", "not JSON"),
        (b"[" * 5_000, "malformed_json", ""),
        (b"[1]", "malformed_json", "a JSON array"),
        (b'"text"', "malformed_json", "a JSON string"),
        (b"5", "malformed_json", "a JSON number"),
        (b"true", "malformed_json", "a JSON boolean"),
        (b"null", "malformed_json", "a JSON null"),
        (b'{"a":"\xff"}', "not_utf8", "byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8", "byte 6"),
        (b"\xff\xfe{\0}\0", "not_utf8", "byte 0"),
        (b'{"a":"' + b"x" * MOST + b'"}', "too_large", "at most 10000"),
    ],
)
def test_a_value_that_cannot_be_read_has_a_code_and_says_why(value: bytes | None, code: str, part: str) -> None:
    found, message = unreadable(value)
    assert found == code
    assert part in message


def test_keys_and_headers_count_for_the_size_of_a_record() -> None:
    assert unreadable(b"{}", key=b"k" * MOST)[0] == "too_large"
    assert unreadable(b"{}", headers=[("h", b"x" * MOST)])[0] == "too_large"
    fits = record(b"{}", key=b"k" * 10, headers=[("h", None), ("i", b"x" * (MOST - 14))])
    assert parse(fits, MOST) == {}
    with pytest.raises(UnreadableError):
        parse(fits._replace(key=b"k" * 11), MOST)


INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("consent.changed", {"type": "MAYBE"}, "type"),
    ("consent.changed", {"channel": "FAX"}, "channel"),
    ("consent.changed", {"priority": 1}, "priority"),
    ("consent.changed", {"source": None}, "source"),
    ("consent.changed", {"org_unit_id": "north"}, "org_unit_id"),
    ("consent.changed", {"event_id": ""}, "event_id"),
    ("consent.changed", {"occurred_at": "yesterday"}, "occurred_at"),
    ("consent.changed", {"proof": "a text"}, "proof"),
    ("consent.verified", {"verifies": "v" * 129}, "verifies"),
    ("customer.registered", {"identifiers": {"mobile": 49}}, "identifiers.mobile"),
    ("customer.erased", {"customer_id": 5}, "customer_id"),
    ("settings.changed", {"settings": samples.SETTINGS | {"version": "1"}}, "settings.version"),
    (
        "settings.changed",
        {"settings": samples.SETTINGS | {"accounts": [{"source": "FAX", "account_id": "1", "channels": []}]}},
        "settings.accounts[0].source",
    ),
]


@pytest.mark.parametrize(("name", "change", "field"), INVALID)
def test_an_invalid_field_is_named_in_the_message(name: str, change: dict[str, Any], field: str) -> None:
    document = dict(samples.BY_SCHEMA)[name] | change
    with pytest.raises(UnreadableError) as caught:
        validate(document, EVENTS[name])
    assert caught.value.code == "invalid_field"
    assert field in [fault.split(":")[0] for fault in str(caught.value).split("; ")]
    assert caught.value.document is document


def test_a_missing_field_is_named_in_the_message() -> None:
    with pytest.raises(UnreadableError, match=r"^request_id: "):
        validate({name: value for name, value in samples.REQUEST.items() if name != "request_id"}, REQUEST)


def test_very_many_faults_are_counted_instead_of_listed() -> None:
    units = [{"id": "x"}] * (FAULTS_NAMED + 5)
    record = samples.SETTINGS_CHANGED | {"settings": samples.SETTINGS | {"org_units": units}}
    with pytest.raises(UnreadableError) as caught:
        validate(record, EVENTS["settings.changed"])
    assert str(caught.value).endswith("; and 5 more")
    assert len(str(caught.value).split("; ")) == FAULTS_NAMED + 1


def test_what_is_valid_comes_back_checked_and_the_document_stays_as_it_was() -> None:
    document = dict(samples.CHANGED_IN_FULL)
    checked = validate(document, EVENTS["consent.changed"])
    assert checked["occurred_at"] == 1_795_255_200_000
    assert document == samples.CHANGED_IN_FULL


# --- keys -------------------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_keys_are_hashed_as_kafkas_own_clients_hash_them(key: bytes) -> None:
    assert murmur2(key) == kafkas_murmur2(key) & 0xFFFFFFFF == wire.murmur2(key)


@given(st.binary(max_size=40), st.integers(1, 1_000))
def test_a_key_has_one_home_among_any_number_of_partitions(key: bytes, partitions: int) -> None:
    home = partition_of(key, partitions)
    assert home == (kafkas_murmur2(key) & 0x7FFFFFFF) % partitions == wire.partition_of(key, partitions)


@pytest.mark.parametrize("length", [0, 3, 4, 315, 316, 319, 320, 321, 1_000])
def test_keys_of_every_length_are_hashed(length: int) -> None:
    key = bytes(range(256)) * 4
    assert murmur2(key[:length]) == kafkas_murmur2(key[:length]) & 0xFFFFFFFF


@given(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=5))
def test_no_customer_has_an_orgs_key(org_id: int, customer_id: str) -> None:
    assert is_settings_key(settings_key(org_id))
    if "\ud800" <= min(customer_id) <= "\udfff" or any("\ud800" <= c <= "\udfff" for c in customer_id):
        return
    assert not is_settings_key(customer_key(org_id, customer_id)) or customer_id.endswith(":")
    assert customer_key(org_id, customer_id) != settings_key(org_id)


@pytest.mark.parametrize(
    "key", [b"", b":", b"-:", b"--5:", b"5", b"5:x", b"5::", b"x:", b"+5:", b" 5:", b"5:\n", b"5-:"]
)
def test_what_only_looks_like_an_orgs_key_is_none(key: bytes) -> None:
    assert not is_settings_key(key)
    assert not wire.is_settings_key(key)


@given(st.binary(max_size=6) | st.text("0123456789-:", max_size=6).map(str.encode))
def test_orgs_keys_are_told_as_the_slow_model_tells_them(key: bytes) -> None:
    assert is_settings_key(key) == wire.is_settings_key(key)
