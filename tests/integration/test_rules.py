"""The rules of `domain.md`, asked of a running worker over Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from schemas.eligibility import DECISION
from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import AUDIT, CHANGES, REQUESTS, Doc, Worker, World
from tests.integration.orgs import CELL, INSTORE, NORTH, SOUTH, WEB, WEST, Org, all_types, dump

pytestmark = pytest.mark.kafka

APPLIED = ("applied", None)
PENDING = ("pending", None)
REPEATED = ("ignored", "already_opted_in")
SUPERSEDED = ("ignored", "superseded")
DUPLICATE = ("ignored", "duplicate")
NOT_REGISTERED = ("ignored", "not_registered")


@pytest.fixture(scope="module", autouse=True)
def running(world: World, worker: Worker) -> Iterator[None]:
    """The one worker of this module; afterwards all that it did is compared with the slow model."""
    yield
    world.settle()
    Comparison(world).check()
    assert worker.running


def unified(policy: str) -> Doc:
    return {"enabled": True, "policy": policy}


# --- section 4: the unified layer --------------------------------------------------------------------

ROWS = [
    ("recent", None, None, "SINGLE", (True, "not_set_allowed")),
    ("recent", None, None, "RESTRICTED", (False, "not_set_denied")),
    ("recent", None, "OPTOUT", "SINGLE", (False, "recent_opt_out")),
    ("recent", "OPTIN", "OPTOUT", "SINGLE", (False, "recent_opt_out")),
    ("liberal", None, None, "SINGLE", (True, "not_set_allowed")),
    ("liberal", None, None, "RESTRICTED", (False, "not_set_denied")),
    ("liberal", None, "OPTOUT", "SINGLE", (True, "liberal_not_set_allowed")),
    ("liberal", "OPTIN", "OPTOUT", "SINGLE", (True, "liberal_opt_in")),
    ("strict", None, None, "SINGLE", (True, "not_set_allowed")),
    ("strict", None, None, "RESTRICTED", (False, "not_set_denied")),
    ("strict", None, "OPTOUT", "SINGLE", (False, "strict_opt_out")),
    ("strict", "OPTIN", "OPTOUT", "SINGLE", (False, "strict_opt_out")),
]


@pytest.mark.parametrize("priority", ["BULK", "TRANS"])
@pytest.mark.parametrize(("policy", "instore", "web", "opt_in_type", "wanted"), ROWS)
def test_the_twelve_rows_of_the_platform_hold(
    world: World, policy: str, instore: Any, web: Any, opt_in_type: str, wanted: tuple[bool, str], priority: str
) -> None:
    org = Org(world, unified=unified(policy), opt_in_types=all_types(opt_in_type))
    for account, kind, at in ((INSTORE, instore, 0), (WEB, web, 1000)):
        if kind:
            org.opt_in(at, **account | {"type": kind, "priority": priority})
    if priority == "TRANS" and wanted == (False, "not_set_denied"):
        wanted = (True, "not_set_allowed")  # there the type is always SINGLE
    decision = org.ask(priority=priority)
    assert (decision["eligible"], decision["reason"], decision["policy"]) == (*wanted, policy)


def test_recent_takes_the_opt_out_of_the_same_instant_and_the_later_opt_in(world: World) -> None:
    org = Org(world, unified=unified("recent"))
    org.opt_in(5, **INSTORE)
    org.opt_out(5, **WEB)
    assert org.verdict() == (False, "recent_opt_out")
    org.opt_in(6, **WEB)
    assert org.verdict() == (True, "recent_opt_in")


def test_strict_and_liberal_have_their_other_reasons(world: World) -> None:
    strict = Org(world, unified=unified("strict"))
    strict.opt_in(**INSTORE)
    assert strict.verdict() == (False, "strict_missing_opt_in")
    strict.opt_in(**WEB)
    assert strict.verdict() == (True, "strict_opt_in")
    liberal = Org(world, unified=unified("liberal"))
    liberal.opt_out(**INSTORE)
    liberal.opt_out(**WEB)
    assert liberal.verdict() == (False, "liberal_denied")


def test_profiles_of_different_types_are_allowed_by_any_in_liberal_and_by_all_elsewhere(world: World) -> None:
    types = [WEB | {"type": "RESTRICTED"}]
    answers = {
        policy: Org(world, unified=unified(policy), opt_in_types=types).verdict()
        for policy in ("recent", "liberal", "strict")
    }
    denied = (False, "not_set_denied")
    assert answers == {"recent": denied, "liberal": (True, "not_set_allowed"), "strict": denied}


def test_a_unit_of_its_own_policy_beats_the_org(world: World) -> None:
    units = {str(SOUTH): {"enabled": False}, str(WEST): {"policy": "strict"}}
    org = Org(world, unified={"enabled": True, "org_units": units})
    policies = [org.ask(org_unit_id=unit)["policy"] for unit in (NORTH, SOUTH, WEST, -1)]
    assert policies == ["recent", "existing", "strict", "recent"]


# --- section 1: opt-in types -------------------------------------------------------------------------

TYPES = [
    ("SINGLE", (True, "not_set_allowed")),
    ("RESTRICTED", (False, "not_set_denied")),
    ("DOUBLE", (False, "not_set_denied")),
]


@pytest.mark.parametrize(("name", "not_set"), TYPES)
def test_the_type_decides_while_nothing_is_set_and_the_status_afterwards(
    world: World, name: str, not_set: tuple[bool, str]
) -> None:
    org = Org(world, opt_in_types=all_types(name))
    decision = org.ask()
    assert (decision["eligible"], decision["reason"], decision["opt_in_type"]) == (*not_set, name)
    assert org.verdict(priority="TRANS") == (True, "not_set_allowed")
    org.opt_in(event_id="in")
    if name == "DOUBLE":
        assert org.verdict() == (False, "verification_pending")
        org.verify("in", 1)
    assert org.verdict() == (True, "opted_in")
    org.opt_out(2)
    assert org.verdict() == (False, "opted_out")


def test_an_opt_out_cancels_a_pending_opt_in_for_good(world: World) -> None:
    org = Org(world, opt_in_types=all_types("DOUBLE"))
    assert org.said(org.opt_in(10, event_id="p")) == PENDING
    assert org.said(org.opt_out(10)) == APPLIED
    assert org.said(org.verify("p", 20)) == ("ignored", "verification_superseded")
    assert org.said(org.verify("never", 20)) == ("ignored", "verification_unknown")
    assert org.verdict() == (False, "opted_out")


def test_a_newer_double_opt_in_takes_the_place_of_an_older_pending_one(world: World) -> None:
    org = Org(world, opt_in_types=all_types("DOUBLE"))
    assert org.said(org.opt_in(10, event_id="old")) == PENDING
    assert org.said(org.opt_in(5)) == SUPERSEDED
    assert org.said(org.opt_in(20, event_id="new")) == PENDING
    assert org.said(org.verify("old", 30)) == ("ignored", "verification_superseded")
    assert org.said(org.verify("new", 30)) == APPLIED
    assert org.verdict() == (True, "opted_in")


def test_the_type_at_the_time_of_the_opt_in_decides_whether_it_waits(world: World) -> None:
    org = Org(world)
    org.opt_in(0)
    org.configure(opt_in_types=all_types("DOUBLE"))
    assert org.verdict() == (True, "opted_in")
    org.opt_in(0, event_id="p", **WEB)
    org.configure(opt_in_types=[])
    decision = org.ask(**WEB)
    assert (decision["eligible"], decision["reason"], decision["settings_version"]) == (True, "not_set_allowed", 3)
    assert org.said(org.verify("p", 1, **WEB)) == APPLIED


# --- section 2: what a change does -------------------------------------------------------------------


def test_an_opt_in_on_an_opt_in_is_ignored_but_remembered(world: World) -> None:
    org = Org(world)
    assert org.said(org.opt_in(0)) == APPLIED
    assert org.said(org.opt_in(20)) == REPEATED
    assert org.said(org.opt_out(10)) == SUPERSEDED
    assert org.verdict() == (True, "opted_in")


def test_with_refresh_a_repeated_opt_in_counts_as_the_most_recent_consent(world: World) -> None:
    answers = {}
    for repeat in ("ignore", "refresh"):
        org = Org(world, unified=unified("recent"), repeat_opt_in=repeat)
        org.opt_in(0, **INSTORE)
        org.opt_out(10, **WEB)
        assert org.said(org.opt_in(20, **INSTORE)) == (APPLIED if repeat == "refresh" else REPEATED)
        answers[repeat] = org.verdict()
    assert answers == {"ignore": (False, "recent_opt_out"), "refresh": (True, "recent_opt_in")}


def test_late_events_lose_and_at_the_same_millisecond_the_opt_out_wins(world: World) -> None:
    org = Org(world)
    assert org.said(org.opt_out(10)) == APPLIED
    assert org.said(org.opt_in(5)) == SUPERSEDED
    assert org.said(org.opt_in(10, event_id="zzz")) == SUPERSEDED
    assert org.verdict() == (False, "opted_out")
    assert org.said(org.opt_in(11)) == APPLIED
    assert org.said(org.opt_out(11, event_id="aaa")) == APPLIED
    assert org.verdict() == (False, "opted_out")


def test_the_same_event_id_again_changes_nothing_whatever_it_says(world: World) -> None:
    org = Org(world)
    assert org.said(org.opt_out(0, event_id="one")) == APPLIED
    assert org.said(org.opt_out(0, event_id="one")) == DUPLICATE
    assert org.said(org.opt_in(10, event_id="one")) == DUPLICATE
    assert org.verdict() == (False, "opted_out")


def test_any_offset_of_a_time_is_accepted(world: World) -> None:
    org = Org(world)
    org.opt_in(occurred_at="2026-01-01T12:00:00+02:00")
    org.opt_out(occurred_at="2026-01-01T10:00:00.001Z")
    org.opt_in(occurred_at="2026-01-01t04:30:00.0009-05:30")
    assert org.verdict() == (False, "opted_out")


def test_registration_is_required_unless_the_org_switches_it_off(world: World) -> None:
    org = Org(world, require_registration=True)
    assert org.verdict() == (False, "not_registered")
    assert org.said(org.opt_in(0)) == NOT_REGISTERED
    assert org.said(org.register(identifiers={"mobile": "+4915112345678"})) == ("registered", None)
    assert org.verdict() == (True, "not_set_allowed")
    assert org.said(org.opt_out(0)) == APPLIED
    assert org.verdict() == (False, "opted_out")


def test_nothing_of_an_erased_customer_comes_back(world: World) -> None:
    org = Org(world)
    org.register()
    org.opt_out(0)
    assert org.said(org.erase()) == ("erased", None)
    assert org.verdict() == (False, "not_registered")
    assert org.said(org.opt_in(10)) == NOT_REGISTERED
    org.register()
    assert org.verdict() == (True, "not_set_allowed")


# --- section 3: org units ----------------------------------------------------------------------------


def statuses(org: Org) -> list[str]:
    return [org.ask(org_unit_id=unit)["reason"] for unit in (NORTH, SOUTH, WEST)]


def test_without_sync_a_change_stays_on_its_unit(world: World) -> None:
    org = Org(world)
    org.opt_in(0)
    org.opt_out(0, org_unit_id=SOUTH)
    assert statuses(org) == ["opted_in", "opted_out", "not_set_allowed"]


def test_an_opt_in_syncs_to_all_units_with_its_time_id_and_origin(world: World) -> None:
    org = Org(world, ou_sync={"opt_in": True})
    org.opt_out(50, org_unit_id=WEST)
    place = org.opt_in(0, event_id="in")
    assert statuses(org) == ["opted_in", "opted_in", "opted_out"]
    cells = org.audit(place)["cells"]
    assert [(cell["org_unit_id"], cell["before"], cell["after"], cell["synced"]) for cell in cells] == [
        (NORTH, "NOT_SET", "OPTIN", False),
        (SOUTH, "NOT_SET", "OPTIN", True),
    ]
    asked = org.ask(org_unit_id=SOUTH)
    (weighed,) = decision_audit(world, asked)["inputs"]
    assert (weighed["event_id"], weighed["org_unit_id"]) == ("in", NORTH)


@pytest.mark.parametrize(
    ("mode", "first", "later"),
    [
        ("none", ["opted_out", "not_set_allowed", "not_set_allowed"], ["opted_out", "opted_in", "not_set_allowed"]),
        ("any", ["opted_out", "opted_out", "opted_out"], ["opted_out", "opted_out", "opted_out"]),
        ("first", ["opted_out", "opted_out", "opted_out"], ["opted_out", "opted_in", "opted_out"]),
    ],
)
def test_opt_outs_sync_as_the_switch_says(world: World, mode: str, first: list[str], later: list[str]) -> None:
    org = Org(world, ou_sync={"opt_out": mode})
    org.opt_out(0)
    assert statuses(org) == first
    org.opt_in(10, org_unit_id=SOUTH)
    org.opt_out(20)
    assert statuses(org) == later


def test_a_pending_opt_in_syncs_when_it_is_verified(world: World) -> None:
    org = Org(world, ou_sync={"opt_in": True}, opt_in_types=all_types("DOUBLE"))
    org.opt_in(0, event_id="p")
    assert statuses(org) == ["verification_pending", "not_set_denied", "not_set_denied"]
    org.verify("p", 10)
    assert statuses(org) == ["opted_in", "opted_in", "opted_in"]


def test_the_whole_org_competes_with_the_unit_asked_about(world: World) -> None:
    org = Org(world)
    org.opt_in(0)
    org.opt_out(10, org_unit_id=-1)
    assert statuses(org) == ["opted_out", "opted_out", "opted_out"]
    org.opt_out(15, org_unit_id=SOUTH)
    org.opt_in(20, org_unit_id=-1)
    assert statuses(org) == ["opted_in", "opted_in", "opted_in"]
    assert org.verdict(org_unit_id=-1) == (True, "opted_in")


# --- section 5: decisions ----------------------------------------------------------------------------


def decision_audit(world: World, decision: Doc) -> Doc:
    def wanted(record: Any) -> bool:
        return bool(record.body.get("decision", {}).get("decision_id") == decision["decision_id"])

    return world.log(AUDIT).wait("the decision's audit", wanted).body


def test_everything_unknown_is_answered_with_no(world: World) -> None:
    org = Org(world)
    assert org.verdict(org_unit_id=4711) == (False, "unknown_org_unit")
    assert org.verdict(account_id="02") == (False, "unknown_account")
    assert org.verdict(channel="WHATSAPP") == (False, "channel_not_mapped")
    assert org.verdict(source=None) == (False, "source_required")
    assert org.verdict(account_id=None) == (False, "source_required")
    assert Org(world, unified=unified("recent")).verdict(channel="LINE") == (False, "channel_not_mapped")
    stranger = Org(world)
    stranger.id = 999_999
    assert stranger.verdict() == (False, "unknown_org")


def test_an_inactive_account_is_unknown(world: World) -> None:
    org = Org(world)
    org.opt_in(0)
    org.configure(accounts=[INSTORE | {"channels": ["MOBILE"], "active": False}, WEB | {"channels": ["MOBILE"]}])
    assert org.verdict() == (False, "unknown_account")


def test_settings_that_are_not_newer_are_stale(world: World) -> None:
    org = Org(world)
    org.configure(opt_in_types=all_types("RESTRICTED"))
    (place, *_) = org.configure(version=2, opt_in_types=[])
    assert org.said(place) == ("ignored", "stale_settings")
    decision = org.ask()
    assert (decision["reason"], decision["settings_version"]) == ("not_set_denied", 2)


def test_a_decision_has_every_field_and_its_audit_has_the_inputs(world: World) -> None:
    org = Org(world, unified=unified("recent"))
    place = org.opt_in(0, event_id="in", **WEB)
    request = org.request(campaign_id="k-1", communication_id="m-1")
    decision = org.decision(org.send_request(request))
    assert DECISION.validate_python(decision) == decision
    echoed = ("request_id", "org_id", "customer_id", "channel", "priority", "org_unit_id")
    assert decision == {
        **{name: request[name] for name in echoed},
        "decision_id": decision["decision_id"],
        "eligible": True,
        "reason": "recent_opt_in",
        "policy": "recent",
        "opt_in_type": None,
        "as_of": {"partition": place.partition, "offset": place.offset + 1},
        "settings_version": 1,
        "campaign_id": "k-1",
        "communication_id": "m-1",
    }
    audit = decision_audit(world, decision)
    assert audit["decision"] == decision
    assert [(one["source"], one["status"], one["event_id"]) for one in audit["inputs"]] == [
        ("INSTORE", "NOT_SET", None),
        ("WEB_ENGAGE", "OPTIN", "in"),
    ]


def test_own_records_carry_cloud_events_headers(world: World) -> None:
    org = Org(world)
    decision = org.ask()
    record = world.log("eligibility.decisions").wait("it", lambda r: r.body["decision_id"] == decision["decision_id"])
    names = {name for name, _ in record.headers}
    assert {"ce_specversion", "ce_id", "ce_type", "ce_source"} <= names


# --- the fence (contract section 4) ------------------------------------------------------------------


def test_a_change_acknowledged_before_the_request_is_always_weighed(world: World) -> None:
    org = Org(world)
    for at in range(20):
        place = org.opt_in(at) if at % 2 else org.opt_out(at)
        decision = org.ask()
        assert decision["eligible"] is bool(at % 2)
        assert decision["as_of"]["offset"] > place.offset


@pytest.mark.parametrize("fence", ["fetch", "ask"])
def test_either_fence_weighs_what_was_acknowledged(make_world: MakeWorld, make_worker: MakeWorker, fence: str) -> None:
    world = make_world()
    worker = make_worker(world, CONSENT_FENCE=fence).start().ready()
    org = Org(world)
    for at in range(20):
        org.opt_in(at) if at % 2 else org.opt_out(at)
        assert org.verdict() == ((True, "opted_in") if at % 2 else (False, "opted_out"))
    shown = httpx.get(f"{worker.url}/metrics").text
    assert ('consent_fences_total{way="same fetch"}' in shown) is (fence == "fetch")
    assert ('consent_fences_total{way="asked"}' in shown) or fence == "fetch"


def test_a_position_that_is_reached_is_waited_for(world: World) -> None:
    org = Org(world)
    place = org.opt_out(0)
    position = {"partition": place.partition, "offset": place.offset}
    assert org.verdict(min_position=position) == (False, "opted_out")
    ahead = org.send_request(org.request(min_position={**position, "offset": place.offset + 1}, max_wait_ms=20_000))
    org.opt_in(1)
    decision = org.decision(ahead)
    assert (decision["reason"], decision["as_of"]["offset"] > place.offset + 1) == ("opted_in", True)


def test_a_position_that_is_not_reached_is_answered_in_time_and_holds_up_nobody(world: World) -> None:
    org = Org(world)
    started = time.monotonic()
    never = {"partition": org.home(), "offset": 10**9}
    late = org.send_request(org.request(min_position=never, max_wait_ms=2000))
    assert org.verdict() == (True, "not_set_allowed")
    assert time.monotonic() - started < 1.9, "the request behind the waiting one was held up"
    decision = org.decision(late)
    waited = time.monotonic() - started
    assert (decision["eligible"], decision["reason"]) == (False, "state_behind")
    assert 1.9 < waited < 4


def test_a_position_of_another_partition_is_never_reached(world: World) -> None:
    org = Org(world)
    elsewhere = {"partition": (org.home() + 1) % 4, "offset": 0}
    assert org.verdict(min_position=elsewhere, max_wait_ms=100) == (False, "state_behind")


def opt_out_in_transaction(world: World, org: Org, *, commit: bool) -> None:
    world.transaction([(CHANGES, org.key(), dump(org.opt_in_event(0, type="OPTOUT")))], commit=commit)


def test_what_a_transaction_aborts_never_happened(world: World) -> None:
    org = Org(world)
    opt_out_in_transaction(world, org, commit=False)
    assert org.verdict() == (True, "not_set_allowed")


def test_a_committed_transaction_is_weighed_by_every_later_request(world: World) -> None:
    """Also by one written before the broker has put the commit's marker into the partition."""
    for _ in range(20):
        org = Org(world)
        opt_out_in_transaction(world, org, commit=True)
        assert org.verdict() == (False, "opted_out")


def test_an_open_transaction_is_answered_within_the_waiting_time_and_weighed_when_it_is_committed(world: World) -> None:
    org = Org(world)
    with world.open_transaction([(CHANGES, org.key(), dump(org.opt_in_event(0, type="OPTOUT")))]) as end:
        assert org.verdict(max_wait_ms=200) in [(True, "not_set_allowed"), (False, "state_behind")]
        end(True)
    assert org.verdict() == (False, "opted_out")


def test_requests_of_an_aborted_transaction_are_not_answered(world: World) -> None:
    org = Org(world)
    request = org.request()
    world.transaction([(REQUESTS, org.key(), dump(request))], commit=False)
    org.ask()
    answered = {record.body["request_id"] for record in world.read("eligibility.decisions")}
    assert request["request_id"] not in answered


def test_cells_of_other_customers_channels_and_priorities_are_left_alone(world: World) -> None:
    org = Org(world)
    org.opt_out(0)
    others = [{"customer_id": "d"}, {"channel": "EMAIL"}, {"priority": "TRANS"}, WEB, {"org_unit_id": SOUTH}]
    assert {org.verdict(**CELL | other) for other in others} == {(True, "not_set_allowed")}
