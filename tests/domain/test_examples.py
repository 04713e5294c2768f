"""The rules by example: one test for one sentence of domain sections 1 to 6."""

from __future__ import annotations

from typing import Any

import pytest

from streams.domain.changes import Applied, RejectedError, apply_event
from streams.domain.decisions import decide
from streams.domain.orgs import Org
from streams.domain.state import State
from tests.domain.fast import INSTORE, NORTH, NOW, SOUTH, WEB, WEST, Doc, an_org, change, question, verification

REGISTER = change("OPTIN", "r", 0) | {"event": "customer.registered"}
ERASE = change("OPTIN", "x", 0) | {"event": "customer.erased"}
MINUTES_5 = 300_000


class Customer:
    """A customer of an org, and what was said of each event."""

    def __init__(self, org: Org, *events: Doc) -> None:
        self.org = org
        self.state: State | None = None
        for event in events:
            self.send(event)

    def send(self, event: Doc) -> Applied:
        told = apply_event(self.org, self.state, dict(event), NOW)
        self.state = told.state
        return told

    def said(self, event: Doc) -> tuple[str, str | None]:
        return self.send(event)[:2]

    def asked(self, **request: Any) -> tuple[bool, str]:
        return decide(self.org, self.state, question(**request))[:2]


def typed(kind: str) -> list[Doc]:
    return [{"channel": "MOBILE", "type": kind}]


def double(**changes: Any) -> Customer:
    return Customer(an_org(opt_in_types=typed("DOUBLE"), **changes))


ROWS = [
    ("recent", None, None, "SINGLE", True, "not_set_allowed"),
    ("recent", None, None, "RESTRICTED", False, "not_set_denied"),
    ("recent", None, "OPTOUT", "SINGLE", False, "recent_opt_out"),
    ("recent", "OPTIN", "OPTOUT", "SINGLE", False, "recent_opt_out"),
    ("liberal", None, None, "SINGLE", True, "not_set_allowed"),
    ("liberal", None, None, "RESTRICTED", False, "not_set_denied"),
    ("liberal", None, "OPTOUT", "SINGLE", True, "liberal_not_set_allowed"),
    ("liberal", "OPTIN", "OPTOUT", "SINGLE", True, "liberal_opt_in"),
    ("strict", None, None, "SINGLE", True, "not_set_allowed"),
    ("strict", None, None, "RESTRICTED", False, "not_set_denied"),
    ("strict", None, "OPTOUT", "SINGLE", False, "strict_opt_out"),
    ("strict", "OPTIN", "OPTOUT", "SINGLE", False, "strict_opt_out"),
]


@pytest.mark.parametrize("later", [0, 1])
@pytest.mark.parametrize(("policy", "instore", "web", "kind", "send", "reason"), ROWS)
def test_the_platforms_own_rows_hold(
    policy: str, instore: str | None, web: str | None, kind: str, send: bool, reason: str, later: int
) -> None:
    customer = Customer(an_org(opt_in_types=typed(kind), unified={"enabled": True, "policy": policy}))
    for number, (status, profile) in enumerate(((instore, INSTORE), (web, WEB))):
        if status is not None:
            customer.send(change(status, f"e{1 - number}", number * later, profile=profile))
    assert customer.asked() == (send, reason)


@pytest.mark.parametrize(
    ("kind", "status", "send", "reason"),
    [
        ("SINGLE", "OPTIN", True, "opted_in"),
        ("SINGLE", None, True, "not_set_allowed"),
        ("SINGLE", "OPTOUT", False, "opted_out"),
        ("RESTRICTED", "OPTIN", True, "opted_in"),
        ("RESTRICTED", None, False, "not_set_denied"),
        ("RESTRICTED", "OPTOUT", False, "opted_out"),
        ("DOUBLE", "OPTIN", False, "verification_pending"),
        ("DOUBLE", None, False, "not_set_denied"),
        ("DOUBLE", "OPTOUT", False, "opted_out"),
    ],
)
def test_the_type_says_what_a_status_means(kind: str, status: str | None, send: bool, reason: str) -> None:
    customer = Customer(an_org(opt_in_types=typed(kind)))
    if status is not None:
        customer.send(change(status, "e", 0))
    assert customer.asked() == (send, reason)
    if status is None:
        assert customer.asked(priority="TRANS") == (True, "not_set_allowed")


def test_a_verified_double_opt_in_counts_from_its_verification() -> None:
    customer = double()
    assert customer.said(change("OPTIN", "e", 0)) == ("pending", None)
    assert customer.said(verification("other", "v0", 1)) == ("ignored", "verification_unknown")
    told = customer.send(verification("e", "v", 5))
    assert (told.outcome, [(c["before"], c["after"], c["synced"]) for c in told.cells]) == (
        "applied", [("NOT_SET", "OPTIN", False)],
    )  # fmt: skip
    assert customer.asked() == (True, "opted_in")
    verdict = decide(customer.org, customer.state, question())
    assert verdict.inputs[0].dated is not None
    assert verdict.inputs[0].dated[:3] == [NOW + 5, 0, "v"]
    assert customer.said(verification("e", "v2", 6)) == ("ignored", "verification_superseded")
    assert customer.said(change("OPTIN", "again", 7)) == ("ignored", "already_opted_in")


@pytest.mark.parametrize(("at", "cancelled"), [(9, False), (10, True), (11, True)])
def test_an_opt_out_at_or_after_a_pending_opt_in_cancels_it(at: int, cancelled: bool) -> None:
    customer = double()
    customer.send(change("OPTIN", "e", 10))
    customer.send(change("OPTOUT", "s", at))
    assert customer.asked() == (False, "opted_out" if cancelled else "verification_pending")
    expected = ("ignored", "verification_superseded") if cancelled else ("applied", None)
    assert customer.said(verification("e", "v", 20)) == expected


def test_a_synced_opt_out_cancels_a_pending_opt_in_of_another_unit() -> None:
    customer = double(ou_sync={"opt_out": "any"})
    customer.send(change("OPTIN", "e", 10, SOUTH))
    customer.send(change("OPTOUT", "s", 11, NORTH))
    assert customer.said(verification("e", "v", 20, SOUTH)) == ("ignored", "verification_superseded")


def test_a_newer_pending_opt_in_takes_the_place_of_an_older_one() -> None:
    customer = double()
    customer.send(change("OPTIN", "b", 10))
    assert customer.said(change("OPTIN", "a", 10)) == ("ignored", "superseded")
    assert customer.said(change("OPTIN", "c", 10)) == ("pending", None)
    assert customer.said(verification("b", "v", 20)) == ("ignored", "verification_superseded")
    assert customer.said(verification("c", "w", 20)) == ("applied", None)


def test_the_type_at_the_time_of_the_opt_in_decides_whether_it_needs_verification() -> None:
    customer = double()
    customer.send(change("OPTIN", "e", 0))
    customer.org = an_org()
    assert decide(customer.org, customer.state, question())[:2] == (True, "not_set_allowed")
    assert customer.said(verification("e", "v", 1)) == ("applied", None)
    single = Customer(an_org(), change("OPTIN", "e", 0))
    single.org = an_org(opt_in_types=typed("DOUBLE"))
    assert single.asked() == (True, "opted_in")


def test_the_later_entry_wins_then_the_opt_out_then_the_greater_id() -> None:
    customer = Customer(an_org(), change("OPTOUT", "m", 10))
    assert customer.said(change("OPTIN", "z", 9)) == ("ignored", "superseded")
    assert customer.said(change("OPTIN", "z2", 10)) == ("ignored", "superseded")
    assert customer.said(change("OPTOUT", "a", 10)) == ("ignored", "superseded")
    assert customer.said(change("OPTOUT", "n", 10)) == ("applied", None)
    assert customer.said(change("OPTIN", "b", 11)) == ("applied", None)


def test_a_late_opt_out_cannot_undo_a_repeated_opt_in() -> None:
    customer = Customer(an_org(), change("OPTIN", "a", 0))
    assert customer.said(change("OPTIN", "b", 20)) == ("ignored", "already_opted_in")
    assert customer.said(change("OPTOUT", "c", 10)) == ("ignored", "superseded")
    assert customer.asked() == (True, "opted_in")


@pytest.mark.parametrize(("repeat", "send"), [("ignore", False), ("refresh", True)])
def test_consent_dates_from_the_first_opt_in_unless_repeats_refresh_it(repeat: str, send: bool) -> None:
    org = an_org(repeat_opt_in=repeat, unified={"enabled": True})
    customer = Customer(org, change("OPTIN", "a", 0), change("OPTOUT", "b", 10, profile=WEB), change("OPTIN", "c", 20))
    assert customer.asked()[0] is send


def test_the_same_id_again_changes_nothing_whatever_it_says() -> None:
    customer = Customer(an_org(), change("OPTIN", "a", 0))
    assert customer.said(change("OPTOUT", "a", 50, SOUTH)) == ("ignored", "duplicate")
    with pytest.raises(RejectedError, match="org_unit_id"):
        customer.send(change("OPTOUT", "a", 50, 9))  # looked at after the place


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (change("OPTIN", "e", 0, profile={"source": "TMALL", "account_id": "1"}), "unknown_account"),
        (change("OPTIN", "e", 0, channel="WECHAT"), "channel_not_mapped"),
        (change("OPTIN", "e", 0, 9), "unknown_org_unit"),
        (change("OPTIN", "e", MINUTES_5 + 1), "occurred_in_future"),
        (REGISTER | {"occurred_at": NOW + MINUTES_5 + 1}, "occurred_in_future"),
        (ERASE | {"occurred_at": NOW + MINUTES_5 + 1}, "occurred_in_future"),
    ],
)
def test_what_cannot_be_applied_has_its_code_and_leaves_the_state_as_it_was(event: Doc, code: str) -> None:
    customer = Customer(an_org(), change("OPTIN", "a", 0))
    assert customer.state is not None
    before = customer.state.encode()
    with pytest.raises(RejectedError) as caught:
        customer.send(event)
    assert caught.value.code == code
    assert customer.state.encode() == before


def test_five_minutes_ahead_is_not_yet_the_future() -> None:
    assert Customer(an_org()).said(change("OPTIN", "e", MINUTES_5)) == ("applied", None)


def test_only_registered_customers_are_looked_at_before_anything_else() -> None:
    customer = Customer(an_org(require_registration=True))
    nonsense = change("OPTIN", "e", 10 * MINUTES_5, 9, {"source": "TMALL", "account_id": "1"})
    assert customer.said(nonsense) == ("ignored", "not_registered")
    assert customer.state is None
    assert customer.asked() == (False, "not_registered")
    assert customer.said(REGISTER) == ("registered", None)
    assert customer.asked() == (True, "not_set_allowed")


@pytest.mark.parametrize("required", [True, False])
def test_nothing_of_an_erased_customers_consent_comes_back(required: bool) -> None:
    org = an_org(require_registration=required)
    known = REGISTER | {"identifiers": {"mobile": "+491"}, "language": "de"}
    customer = Customer(org, known, change("OPTOUT", "a", 0))
    assert customer.said(ERASE) == ("erased", None)
    assert customer.asked() == (False, "not_registered")
    assert customer.said(change("OPTIN", "b", 1)) == ("ignored", "not_registered")
    customer.send(REGISTER)
    assert customer.state is not None
    assert (customer.state.cells(), customer.state.ids()) == ({}, [])
    assert customer.state.about.keys() == State(1).about.keys()
    assert customer.asked() == (True, "not_set_allowed")


def cells(told: Applied) -> list[tuple[int, str, bool]]:
    return [(cell["org_unit_id"], cell["after"], cell["synced"]) for cell in told.cells]


def test_an_opt_in_syncs_to_all_units_but_not_over_a_later_entry() -> None:
    customer = Customer(an_org(ou_sync={"opt_in": True}), change("OPTOUT", "s", 50, WEST))
    told = customer.send(change("OPTIN", "a", 10, NORTH))
    assert cells(told) == [(NORTH, "OPTIN", False), (SOUTH, "OPTIN", True)]
    assert customer.asked(unit=SOUTH) == (True, "opted_in")
    assert customer.asked(unit=WEST) == (False, "opted_out")
    assert customer.asked(unit=-1) == (True, "not_set_allowed")  # sync is between units; the org's own cell stays
    verdict = decide(customer.org, customer.state, question(SOUTH))
    assert (verdict.inputs[0].org_unit_id, verdict.inputs[0].dated) == (NORTH, [NOW + 10, 0, "a", "PRODUCER", NORTH])


def test_a_late_entry_that_wins_elsewhere_is_applied_there() -> None:
    customer = Customer(an_org(ou_sync={"opt_out": "any"}), change("OPTIN", "a", 50, NORTH))
    told = customer.send(change("OPTOUT", "b", 10, NORTH))
    assert told.outcome == "applied"
    assert cells(told) == [(SOUTH, "OPTOUT", True), (WEST, "OPTOUT", True)]
    assert customer.asked(unit=NORTH) == (True, "opted_in")


def test_opt_outs_sync_always_or_only_as_the_first_entry_to_arrive_or_never() -> None:
    for mode, first, second in (("any", 3, 3), ("first", 3, 1), ("none", 1, 1)):
        customer = Customer(an_org(ou_sync={"opt_out": mode}))
        assert len(customer.send(change("OPTOUT", "a", 0, NORTH)).cells) == first
        assert len(customer.send(change("OPTOUT", "b", 1, NORTH)).cells) == second
        other = Customer(an_org(ou_sync={"opt_out": mode}), change("OPTIN", "a", 0, SOUTH))
        assert len(other.send(change("OPTOUT", "b", 1, NORTH)).cells) == second


def test_a_change_on_the_whole_org_counts_for_every_unit_and_needs_no_sync() -> None:
    customer = Customer(an_org(ou_sync={"opt_in": True, "opt_out": "any"}), change("OPTIN", "a", 0, NORTH))
    told = customer.send(change("OPTOUT", "b", 5, -1))
    assert cells(told) == [(-1, "OPTOUT", False)]
    assert [customer.asked(unit=unit)[1] for unit in (NORTH, SOUTH, -1)] == ["opted_out"] * 3
    customer.send(change("OPTIN", "c", 9, SOUTH))
    assert customer.asked(unit=SOUTH) == (True, "opted_in")
    assert customer.asked(unit=-1) == (False, "opted_out")


def test_a_pending_opt_in_syncs_when_it_is_verified() -> None:
    customer = double(ou_sync={"opt_in": True})
    assert customer.send(change("OPTIN", "a", 0, NORTH)).cells == []
    told = customer.send(verification("a", "v", 1, NORTH))
    assert cells(told) == [(NORTH, "OPTIN", False), (SOUTH, "OPTIN", True), (WEST, "OPTIN", True)]


@pytest.mark.parametrize(
    ("policy", "send"), [("liberal", True), ("recent", False), ("strict", False)]
)  # fmt: skip
def test_profiles_of_different_types_that_are_all_not_set(policy: str, send: bool) -> None:
    rules = [{"source": "WEB_ENGAGE", "type": "RESTRICTED"}]
    customer = Customer(an_org(opt_in_types=rules, unified={"enabled": True, "policy": policy}), REGISTER)
    assert customer.asked() == (send, "not_set_allowed" if send else "not_set_denied")


def test_strict_wants_an_opt_in_everywhere() -> None:
    customer = Customer(an_org(unified={"enabled": True, "policy": "strict"}), change("OPTIN", "a", 0))
    assert customer.asked() == (False, "strict_missing_opt_in")
    customer.send(change("OPTIN", "b", 0, profile=WEB))
    assert customer.asked() == (True, "strict_opt_in")


def test_a_units_own_unified_setting_beats_the_orgs() -> None:
    own = {"1": {"enabled": False}, "2": {"policy": "strict"}}
    org = an_org(unified={"enabled": True, "policy": "liberal", "org_units": own})
    policies = [decide(org, None, question(unit)).policy for unit in (NORTH, SOUTH, WEST, -1)]
    assert policies == ["existing", "strict", "liberal", "liberal"]


def test_everything_unknown_is_no_in_the_order_of_the_rules() -> None:
    org = an_org(require_registration=True)
    everything_wrong = question(9, {"source": "TMALL", "account_id": "1"}, channel="WECHAT")
    assert decide(None, None, everything_wrong)[:2] == (False, "unknown_org")
    assert decide(org, None, everything_wrong)[:2] == (False, "unknown_org_unit")
    assert decide(org, None, everything_wrong | {"org_unit_id": NORTH})[:2] == (False, "not_registered")
    customer = Customer(org, REGISTER)
    assert customer.asked(profile={"source": "TMALL", "account_id": "1"}) == (False, "unknown_account")
    assert customer.asked(channel="WECHAT") == (False, "channel_not_mapped")
    assert customer.asked(profile=None) == (False, "source_required")
    customer.org = an_org(unified={"enabled": True})
    assert customer.asked(profile=None, channel="WECHAT") == (False, "channel_not_mapped")
    assert customer.asked(profile=None) == (True, "not_set_allowed")
