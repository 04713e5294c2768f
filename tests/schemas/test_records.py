"""Strict on the fields that the contract knows, tolerant of all others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.audit import AUDIT
from schemas.base import format_instant
from schemas.eligibility import DECISION, REQUEST
from schemas.events import EVENTS
from schemas.notifications import NOTIFICATION
from schemas.settings import OrgSettings, faults_of
from tests.schemas import samples
from tests.schemas.samples import Doc

SETTINGS: TypeAdapter[OrgSettings] = TypeAdapter(OrgSettings)
ADAPTERS: dict[str, TypeAdapter[Any]] = EVENTS | {
    "settings": SETTINGS,
    "eligibility.request": REQUEST,
    "eligibility.decision": DECISION,
    "consent.audit.change": AUDIT,
    "consent.audit.decision": AUDIT,
    "consent.notification": NOTIFICATION,
}


def faults(name: str, record: Doc) -> list[str]:
    try:
        ADAPTERS[name].validate_python(record)
    except ValidationError as error:
        return faults_of(error)
    return []


@pytest.mark.parametrize(("name", "sample"), samples.BY_SCHEMA)
def test_the_samples_of_the_contract_are_read(name: str, sample: Doc) -> None:
    assert faults(name, sample) == []


@pytest.mark.parametrize(("name", "sample"), samples.BY_SCHEMA)
def test_unknown_fields_are_no_fault(name: str, sample: Doc) -> None:
    assert faults(name, sample | {"not_known": {"deep": [1, None]}, "Event": 1}) == []


def test_reading_changes_only_the_times() -> None:
    read = EVENTS["consent.changed"].validate_python(samples.CHANGED_IN_FULL)
    assert read == samples.CHANGED_IN_FULL | {"occurred_at": 1_795_255_200_000}
    asked = REQUEST.validate_python(samples.REQUEST)
    assert asked == samples.REQUEST | {"requested_at": 1_795_255_800_000}


def test_what_is_not_given_is_not_made_up() -> None:
    assert set(REQUEST.validate_python(samples.SHORTEST_REQUEST)) == set(samples.SHORTEST_REQUEST)
    assert set(EVENTS["consent.changed"].validate_python(samples.CHANGED)) == set(samples.CHANGED)


@pytest.mark.parametrize(("name", "sample"), samples.BY_SCHEMA[:7])
def test_every_required_field_is_missed_by_its_name(name: str, sample: Doc) -> None:
    optional = {
        "origin", "language", "reason", "campaign_id", "communication_id", "batch_id", "proof", "identifiers",
    }  # fmt: skip
    required = {"org_id", "version"} if name == "settings" else set(sample) - optional
    for field in required:
        left = {other: value for other, value in sample.items() if other != field}
        assert [fault for fault in faults(name, left) if fault.startswith(f"{field}: ")] != []


WRONG: list[tuple[str, Any]] = [
    ("event_id", ""), ("event_id", "e" * 129), ("event_id", 5), ("event_id", None),
    ("org_id", "100"), ("org_id", 100.0), ("org_id", True), ("org_id", 2**63), ("org_id", None),
    ("customer_id", ""), ("customer_id", "c" * 129), ("customer_id", 565039505),
    ("occurred_at", 1_795_255_200_000), ("occurred_at", "yesterday"), ("occurred_at", None),
    ("source", "instore"), ("source", None), ("source", "FAX"), ("account_id", 1), ("account_id", None),
    ("channel", "SMS"), ("channel", ["EMAIL"]), ("priority", "BATCH"), ("type", "NOT_SET"), ("type", "optin"),
    ("org_unit_id", "200031782"), ("org_unit_id", True), ("org_unit_id", 1.5), ("org_unit_id", None),
    ("origin", "FAX"), ("proof", "a text"), ("proof", [1]), ("reason", 5), ("campaign_id", 1.5), ("batch_id", ""),
    ("event", "consent.verified"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_known_field_of_a_change_is_taken_as_it_is_or_not_at_all(field: str, value: Any) -> None:
    found = faults("consent.changed", samples.CHANGED_IN_FULL | {field: value})
    assert found
    assert all(fault.startswith(field) for fault in found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", ""), ("request_id", "r" * 129), ("org_id", "100"), ("channel", "FAX"), ("priority", 1),
        ("org_unit_id", "-1"), ("source", "FAX"), ("account_id", 1), ("requested_at", "now"),
        ("min_position", 7), ("min_position", {"partition": 3}), ("min_position", {"partition": -1, "offset": 1}),
        ("min_position", {"partition": 1, "offset": "1"}), ("max_wait_ms", -1), ("max_wait_ms", 60_001),
        ("max_wait_ms", 1.5),
    ],
)  # fmt: skip
def test_a_known_field_of_a_request_is_taken_as_it_is_or_not_at_all(field: str, value: Any) -> None:
    found = faults("eligibility.request", samples.REQUEST | {field: value})
    assert found
    assert all(fault.startswith(field) for fault in found)


@pytest.mark.parametrize(
    "field", ["source", "account_id", "requested_at", "campaign_id", "min_position", "max_wait_ms"]
)
def test_an_optional_field_of_a_request_may_be_null(field: str) -> None:
    assert faults("eligibility.request", samples.REQUEST | {field: None}) == []


@pytest.mark.parametrize("name", ["consent.changed", "eligibility.request"])
def test_campaigns_are_numbers_or_names(name: str) -> None:
    sample = dict(samples.BY_SCHEMA)[name]
    assert faults(name, sample | {"campaign_id": 17}) == []
    assert faults(name, sample | {"campaign_id": "k-17"}) == []


@pytest.mark.parametrize("value", ["100", True, 100.0])
def test_the_org_of_a_settings_record_is_a_number_as_everywhere(value: Any) -> None:
    assert faults("settings.changed", samples.SETTINGS_CHANGED | {"org_id": value}) != []


def test_identifiers_are_checked_one_by_one() -> None:
    record = samples.REGISTERED | {"identifiers": {"mobile": 49, "email": "", "external_id": "x", "fax": 1}}
    found = faults("customer.registered", record)
    assert sorted(fault.split(":")[0] for fault in found) == ["identifiers.email", "identifiers.mobile"]


def test_an_audit_record_is_written_with_its_times_as_text() -> None:
    read = AUDIT.validate_python(samples.DECISION_AUDIT)
    assert read["inputs"][0]["since"] == 1_795_255_200_000
    assert AUDIT.dump_python(read, mode="json")["inputs"][0]["since"] == format_instant(1_795_255_200_000)
