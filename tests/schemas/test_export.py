"""The published JSON Schema files are those of the models, and say what the contract says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from schemas import export
from schemas.base import Instant
from tests.schemas.samples import BY_SCHEMA, Doc

SCHEMAS = {name.removesuffix(".json"): json.loads(content) for name, content in export.documents().items()}
OPTIONAL_OF_A_CHANGE = {
    "origin", "language", "reason", "campaign_id", "communication_id", "batch_id", "proof",
}  # fmt: skip


def test_the_files_are_in_step_with_the_models() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in export.FOLDER.glob("*.json")}
    assert written == export.documents(), "run `python -m schemas.export`"


def test_exporting_writes_every_file_and_removes_what_is_no_record_any_more(tmp_path: Path) -> None:
    (tmp_path / "gone.json").write_text("{}")
    export.export(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == export.documents()


def test_there_is_a_file_for_every_record_of_the_contract() -> None:
    assert set(SCHEMAS) == {
        "consent.changes", "consent.changed", "consent.verified", "consent.batch_reverted", "customer.registered",
        "customer.erased", "settings.changed", "settings", "eligibility.request", "eligibility.decision",
        "consent.audit", "consent.audit.change", "consent.audit.decision", "consent.audit.inbound", "consent.inbound",
        "sms.received", "call.missed", "consent.notification",
    }  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_file_names_its_dialect_itself_and_what_it_describes(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:consent-streams:{name}"
    assert schema["title"]


def _parts(schema: Any) -> list[Doc]:
    """Every object schema in a document, itself included."""
    if isinstance(schema, list):
        return [part for item in schema for part in _parts(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if "properties" in schema else []
    return own + [part for item in schema.values() for part in _parts(item)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_object_has_a_title_and_a_description(name: str) -> None:
    parts = _parts(SCHEMAS[name])
    assert parts
    assert [part.get("title") for part in parts if not (part.get("title") and part.get("description"))] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_unknown_fields_are_allowed_everywhere(name: str) -> None:
    assert [part["title"] for part in _parts(SCHEMAS[name]) if part.get("additionalProperties", True) is not True] == []


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("consent.changed", "occurred_at"),
        ("consent.verified", "occurred_at"),
        ("customer.registered", "occurred_at"),
        ("customer.erased", "occurred_at"),
        ("settings.changed", "occurred_at"),
        ("eligibility.request", "requested_at"),
    ],
)
def test_times_are_date_time_strings(name: str, field: str) -> None:
    found = SCHEMAS[name]["properties"][field]
    kinds = [part for part in found.get("anyOf", [found]) if part["type"] != "null"]
    assert [(kind["type"], kind["format"]) for kind in kinds] == [("string", "date-time")]
    assert TypeAdapter(Instant).validate_python(kinds[0]["examples"][0]) == 1_795_255_200_123


@pytest.mark.parametrize(
    ("name", "optional"),
    [
        ("consent.changed", OPTIONAL_OF_A_CHANGE),
        ("consent.verified", set()),
        ("customer.registered", {"identifiers", "language"}),
        ("customer.erased", set()),
        ("settings.changed", set()),
        (
            "eligibility.request",
            {
                "org_unit_id", "source", "account_id", "requested_at", "campaign_id", "communication_id",
                "min_position", "max_wait_ms",
            },
        ),
        ("eligibility.decision", set()),
        ("consent.audit.change", set()),
        ("consent.audit.decision", set()),
        ("consent.notification", set()),
    ],
)  # fmt: skip
def test_exactly_the_fields_that_the_contract_calls_optional_may_be_missing(name: str, optional: set[str]) -> None:
    schema = SCHEMAS[name]
    assert set(schema["properties"]) - set(schema["required"]) == optional


def test_the_settings_need_only_an_org_and_a_version() -> None:
    assert set(SCHEMAS["settings"]["required"]) == {"org_id", "version"}


def _may_be_null(schema: Doc) -> bool:
    return any(part.get("type") == "null" for part in schema.get("anyOf", []))


@pytest.mark.parametrize("name", ["consent.changed", "consent.verified", "customer.registered", "eligibility.request"])
def test_no_required_field_of_an_input_may_be_null(name: str) -> None:
    schema = SCHEMAS[name]
    assert [field for field in schema["required"] if _may_be_null(schema["properties"][field])] == []


def test_the_fields_of_a_decision_that_may_be_null_are_those_that_may_not_be_known() -> None:
    schema = SCHEMAS["eligibility.decision"]
    never = {"request_id", "decision_id", "eligible", "reason", "as_of"}
    assert {field for field, part in schema["properties"].items() if not _may_be_null(part)} == never


def test_the_fields_of_a_notification_that_may_be_null_are_those_that_verify() -> None:
    schema = SCHEMAS["consent.notification"]
    nullable = {field for field, part in schema["properties"].items() if _may_be_null(part)}
    assert nullable == {"token", "link", "keyword", "expires_at"}


def test_the_union_of_all_changes_is_told_apart_by_the_field_event() -> None:
    union = SCHEMAS["consent.changes"]
    kinds = {part["properties"]["event"]["const"] for part in _parts(union) if "event" in part["properties"]}
    assert union["discriminator"]["propertyName"] == "event"
    assert len(union["oneOf"]) == 6
    assert kinds == {
        "consent.changed", "consent.verified", "consent.batch_reverted", "customer.registered", "customer.erased",
        "settings.changed",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "sample"), BY_SCHEMA)
def test_the_samples_of_the_contract_are_valid_by_the_published_files(name: str, sample: Doc) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    validator.check_schema(SCHEMAS[name])
    assert [error.message for error in validator.iter_errors(sample)] == []
    union = {"consent.audit.change": "consent.audit", "consent.audit.decision": "consent.audit"}.get(name)
    if "event" in sample:
        union = "consent.changes"
    if union is not None:
        assert list(jsonschema.Draft202012Validator(SCHEMAS[union]).iter_errors(sample)) == []
    required = SCHEMAS[name]["required"]
    assert not validator.is_valid({field: value for field, value in sample.items() if field != required[0]})
