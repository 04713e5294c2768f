"""A settings document that contradicts itself is refused whole, with every fault by its path (contract section 5)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.settings import OptInTypeRule, OrgSettings, faults_of, matching_rule
from tests.schemas.samples import SETTINGS, Doc

NORTH, SOUTH = 200031782, 200031783


def faults(**changes: Any) -> list[str]:
    try:
        OrgSettings.model_validate(copy.deepcopy(SETTINGS) | changes)
    except ValidationError as error:
        return faults_of(error)
    return []


def paths(**changes: Any) -> list[str]:
    return [fault.split(":")[0] for fault in faults(**changes)]


def test_the_document_of_the_contract_is_accepted_and_keeps_every_field() -> None:
    read = OrgSettings.model_validate(SETTINGS | {"not_known": [1]})
    assert read.org_units[1].name == "South"
    assert read.accounts[1].active
    assert read.unified.org_units[SOUTH].policy == "strict"
    assert OrgSettings.model_validate_json(read.model_dump_json()) == read
    assert read.model_dump()["not_known"] == [1]


def test_a_short_document_has_the_defaults_of_the_contract() -> None:
    read = OrgSettings.model_validate({"org_id": 1, "version": 1})
    assert (read.require_registration, read.repeat_opt_in, read.max_future_ms) == (True, "ignore", 300_000)
    assert (read.ou_sync.opt_in, read.ou_sync.opt_out, read.unified.enabled) == (False, "none", False)
    assert (read.unified.policy, read.default_language) == ("recent", "en")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"org_id": "100"}, "org_id"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"require_registration": "no"}, "require_registration"),
        ({"repeat_opt_in": "always"}, "repeat_opt_in"),
        ({"ou_sync": {"opt_out": "last"}}, "ou_sync.opt_out"),
        ({"ou_sync": {"opt_in": 1}}, "ou_sync.opt_in"),
        ({"org_units": [{"id": 1}, {"id": "2"}]}, "org_units[1].id"),
        ({"org_units": [{"id": -1}]}, "org_units[0].id"),
        ({"accounts": [{"source": "FAX", "account_id": "1", "channels": []}]}, "accounts[0].source"),
        ({"accounts": [{"source": "LINE", "account_id": "1", "channels": ["SMS"]}]}, "accounts[0].channels[0]"),
        ({"accounts": [{"source": "LINE", "account_id": "1"}]}, "accounts[0].channels"),
        ({"opt_in_types": [{"type": "TRIPLE"}]}, "opt_in_types[0].type"),
        ({"unified": {"policy": "existing"}}, "unified.policy"),
        ({"max_future_ms": -1}, "max_future_ms"),
    ],
)
def test_a_field_of_the_wrong_form_is_named_by_its_path(changes: Doc, path: str) -> None:
    assert paths(**changes) == [path]


ACCOUNTS = SETTINGS["accounts"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"org_units": [{"id": NORTH}, {"id": SOUTH}, {"id": NORTH}]}, "org_units[2]"),
        ({"accounts": [*ACCOUNTS, ACCOUNTS[0]]}, "accounts[2]"),
        ({"opt_in_types": [{"org_unit_id": 7, "type": "SINGLE"}]}, "opt_in_types[0].org_unit_id"),
        ({"opt_in_types": [{"account_id": "99", "type": "SINGLE"}]}, "opt_in_types[0].account_id"),
        ({"opt_in_types": [{"source": "LINE", "account_id": "01", "type": "SINGLE"}]}, "opt_in_types[0].account_id"),
        ({"opt_in_types": [{"type": "SINGLE"}, {"type": "RESTRICTED"}]}, "opt_in_types[1]"),
        ({"opt_in_types": [{"source": "INSTORE", "channel": "EMAIL", "type": "DOUBLE"}]}, "opt_in_types[0].type"),
        ({"opt_in_types": [{"source": "INSTORE", "type": "DOUBLE"}]}, "opt_in_types[0].type"),
        ({"opt_in_types": [{"channel": "EMAIL", "type": "DOUBLE"}]}, "opt_in_types[0].type"),
        ({"opt_in_types": [{"type": "DOUBLE"}]}, "opt_in_types[0].type"),
        ({"opt_in_types": [{"org_unit_id": -1, "type": "DOUBLE"}]}, "opt_in_types[0].type"),
        ({"unified": {"org_units": {"7": {"enabled": True}}}}, "unified.org_units.7"),
    ],
)
def test_a_contradiction_is_named_by_its_path(changes: Doc, path: str) -> None:
    assert paths(**changes) == [path]


BULK_NORTH = {"source": "INSTORE", "account_id": "01", "org_unit_id": NORTH, "priority": "BULK"}
TRANS_NORTH = BULK_NORTH | {"priority": "TRANS"}
SMS = {"mode": "SMS", "number": "1234", "commands": {"OPTIN": "START", "OPTOUT": "STOP"}}
CALLS = {"mode": "MISSED_CALL", "numbers": {"OPTIN": "+49 30 1", "OPTOUT": "+49 30 2"}}


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ([BULK_NORTH | SMS, BULK_NORTH | CALLS], "mobile[1]"),
        ([BULK_NORTH | SMS | {"numbers": CALLS["numbers"]}], "mobile[0].numbers"),
        ([BULK_NORTH | CALLS | {"number": "5"}], "mobile[0].number"),
        ([BULK_NORTH | {"mode": "SMS", "commands": SMS["commands"]}], "mobile[0].number"),
        ([BULK_NORTH | {"mode": "SMS", "number": "1"}], "mobile[0].commands"),
        ([BULK_NORTH | {"mode": "MISSED_CALL"}], "mobile[0].numbers"),
        ([BULK_NORTH | SMS | {"commands": {"OPTIN": "go", "OPTOUT": " GO"}}], "mobile[0].commands.OPTOUT"),
        ([BULK_NORTH | CALLS | {"numbers": {"OPTIN": "+1 2", "OPTOUT": "+12"}}], "mobile[0].numbers.OPTOUT"),
        ([BULK_NORTH | SMS, TRANS_NORTH | SMS | {"commands": {"OPTOUT": "stop"}}], "mobile[1].commands.OPTOUT"),
        ([BULK_NORTH | SMS | {"account_id": "99"}], "mobile[0].account_id"),
        ([BULK_NORTH | SMS | {"org_unit_id": 7}], "mobile[0].org_unit_id"),
    ],
)
def test_a_contradiction_of_numbers_and_commands_is_named_by_its_path(rules: list[Doc], path: str) -> None:
    assert paths(mobile=rules) == [path]


def test_one_number_may_have_many_commands_and_a_place_may_have_one_action_only() -> None:
    trans = TRANS_NORTH | SMS | {"commands": {"OPTIN": "START INFO", "OPTOUT": "STOP INFO"}}
    assert faults(mobile=[BULK_NORTH | SMS, trans]) == []
    assert faults(mobile=[BULK_NORTH | {"mode": "MISSED_CALL", "numbers": {"OPTOUT": "+4930"}}]) == []


def test_the_default_profile_must_be_an_account() -> None:
    assert faults(default_profile={"source": "INSTORE", "account_id": "01"}) == []
    assert paths(default_profile={"source": "LINE", "account_id": "01"}) == ["default_profile"]


def test_double_is_offered_everywhere_but_for_instore_email() -> None:
    elsewhere = [
        {"type": "DOUBLE"},
        {"source": "INSTORE", "channel": "EMAIL", "type": "SINGLE"},
    ]
    assert faults(opt_in_types=elsewhere) == []
    assert faults(opt_in_types=[{"source": "INSTORE", "channel": "MOBILE", "type": "DOUBLE"}]) == []
    assert faults(opt_in_types=[{"source": "WEB_ENGAGE", "type": "DOUBLE"}]) == []


def test_a_more_specific_double_shows_through_a_general_exception() -> None:
    rules = [
        {"source": "INSTORE", "channel": "EMAIL", "type": "SINGLE"},
        {"account_id": "01", "channel": "EMAIL", "org_unit_id": SOUTH, "type": "DOUBLE"},
    ]
    assert paths(opt_in_types=rules) == ["opt_in_types[1].type"]


def test_several_faults_at_once_are_all_listed() -> None:
    found = paths(
        org_units=[{"id": NORTH}, {"id": NORTH}],
        accounts=[*ACCOUNTS, ACCOUNTS[1]],
        opt_in_types=[
            {"org_unit_id": SOUTH, "type": "SINGLE"},
            {"source": "TMALL", "account_id": "x", "type": "SINGLE"},
            {"source": "INSTORE", "channel": "EMAIL", "type": "DOUBLE"},
        ],
        unified={"org_units": {"5": {}, "6": {}}},
    )
    assert sorted(found) == sorted(
        [
            "org_units[1]", "accounts[2]", "opt_in_types[0].org_unit_id", "opt_in_types[1].account_id",
            "opt_in_types[2].type", "unified.org_units.5", "unified.org_units.6",
        ]
    )  # fmt: skip
    assert paths(org_id="x", version=0, name=1) == ["org_id", "version", "name"]


def test_faults_of_a_settings_record_are_named_from_the_record_on() -> None:
    from schemas.events import EVENTS

    event = {"event": "settings.changed", "event_id": "e", "org_id": 1, "occurred_at": "2026-11-21T10:00:00Z"}
    document = {"org_id": 1, "version": 1, "unified": {"org_units": {"5": {}}}}
    with pytest.raises(ValidationError) as caught:
        EVENTS["settings.changed"].validate_python(event | {"settings": document})
    assert [fault.split(":")[0] for fault in faults_of(caught.value)] == ["settings.unified.org_units.5"]


def test_two_entries_for_one_org_unit_are_a_contradiction_however_it_is_written() -> None:
    assert faults(unified={"org_units": {str(NORTH): {"enabled": True}, f"0{NORTH}": {"enabled": False}}}) != []


def test_a_source_without_accounts_is_named_by_the_field_that_names_it() -> None:
    assert paths(opt_in_types=[{"source": "TMALL", "type": "SINGLE"}]) == ["opt_in_types[0].source"]


def test_a_fault_stays_one_fault_whatever_it_quotes() -> None:
    assert len(faults(opt_in_types=[{"account_id": "a; b", "type": "SINGLE"}])) == 1


RULES = st.lists(
    st.builds(
        OptInTypeRule,
        source=st.sampled_from((None, "INSTORE", "LINE")),
        account_id=st.sampled_from((None, "01", "02")),
        channel=st.sampled_from((None, "EMAIL", "MOBILE")),
        org_unit_id=st.sampled_from((None, -1, 1)),
        type=st.sampled_from(("SINGLE", "RESTRICTED", "DOUBLE")),
    ),
    max_size=8,
)


@given(RULES, st.sampled_from(("INSTORE", "LINE")), st.sampled_from(("01", "02")), st.sampled_from((-1, 1)))
def test_the_rule_that_names_most_of_a_place_wins_then_the_first(
    rules: list[OptInTypeRule], source: str, account_id: str, unit: int
) -> None:
    place = (source, account_id, "EMAIL", unit)
    fitting = [
        (-sum(part is not None for part in rule.place()), n)
        for n, rule in enumerate(rules)
        if all(mine in {None, theirs} for mine, theirs in zip(rule.place(), place, strict=True))
    ]
    assert matching_rule(rules, *place[:3], unit) == (min(fitting)[1] if fitting else None)
