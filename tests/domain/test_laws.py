"""Laws of the rules (domain sections 2, 4 and 5), tried on random input."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.settings import OrgSettings
from streams.domain.cells import HISTORY, add_entry, dating, new_cell
from streams.domain.changes import apply_event
from streams.domain.decisions import decide
from streams.domain.orgs import Org
from streams.domain.state import REMEMBERED_IDS, State, decode_state
from tests.domain.fast import (
    INSTORE,
    NORTH,
    NOW,
    SOUTH,
    WEB,
    WEST,
    an_org,
    applied,
    change,
    document,
    question,
    settings_of,
    statuses,
    verification,
    whole,
    words,
)
from tests.model import slow

Doc = dict[str, Any]

UNITS = (NORTH, SOUTH, -1)
PROFILES = (INSTORE, WEB)
# Few moments and few places: what decides are the ties.
MOMENTS = st.integers(0, 6)


@st.composite
def changes_of_one_customer(draw: st.DrawFn, most: int = 14) -> list[Doc]:
    """Changes with an id each, so that a change and its id mean the same."""
    ids = draw(st.lists(st.text("ab1~", min_size=1, max_size=3), unique=True, max_size=most))
    return [
        change(
            draw(st.sampled_from(("OPTIN", "OPTOUT"))),
            event_id,
            draw(MOMENTS),
            draw(st.sampled_from(UNITS)),
            draw(st.sampled_from(PROFILES)),
            priority=draw(st.sampled_from(("BULK", "BULK", "TRANS"))),
        )
        for event_id in ids
    ]


@st.composite
def shuffled_with_repeats(draw: st.DrawFn, most: int = 14) -> tuple[list[Doc], list[Doc]]:
    """A set of changes in two orders of arrival, the second with repetitions."""
    once = draw(changes_of_one_customer(most))
    repeats = draw(st.lists(st.sampled_from(once), max_size=6)) if once else []
    return once, draw(st.permutations([*once, *repeats]))


TYPES = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(("SINGLE", "RESTRICTED")), "org_unit_id": st.sampled_from(UNITS)}),
    unique_by=lambda rule: rule["org_unit_id"],
)


@given(shuffled_with_repeats(), st.sampled_from(("ignore", "refresh")), TYPES)
def test_statuses_depend_on_the_set_of_changes_alone_while_units_are_not_synced(
    orders: tuple[list[Doc], list[Doc]], repeat: str, types: list[Doc]
) -> None:
    org = an_org(repeat_opt_in=repeat, opt_in_types=types)
    one, other = (statuses(org, applied(org, order)) for order in orders)
    assert one == other
    expected: dict[Any, Any] = {}
    for event in orders[0]:
        place = tuple(event[name] for name in ("source", "account_id", "channel", "priority", "org_unit_id"))
        rank = (event["occurred_at"], event["type"] == "OPTOUT", event["event_id"], event["type"])
        expected[place] = max(expected.get(place, rank), rank)
    assert one == {place: rank[3] for place, rank in expected.items()}


@given(shuffled_with_repeats(), st.booleans(), st.sampled_from(("none", "any")), TYPES)
def test_the_whole_state_depends_on_the_set_of_changes_alone_with_refresh(
    orders: tuple[list[Doc], list[Doc]], opt_in: bool, opt_out: str, types: list[Doc]
) -> None:
    sync = {"opt_in": opt_in, "opt_out": opt_out}
    org = an_org(repeat_opt_in="refresh", ou_sync=sync, opt_in_types=types)
    one, other = (whole(applied(org, order)) for order in orders)
    assert one == other


def test_the_whole_state_depends_on_the_set_alone_even_beyond_the_history() -> None:
    org = an_org(repeat_opt_in="refresh")
    events = [change("OPTIN", f"e{n:03}", n) for n in range(HISTORY + 3)]
    assert whole(applied(org, events)) == whole(applied(org, events[::-1]))


EVENTS = st.one_of(
    changes_of_one_customer(1).filter(bool).map(lambda events: events[0]),
    st.builds(verification, st.sampled_from(("a", "b", "1")), st.text("xy", min_size=1, max_size=2), MOMENTS),
    st.sampled_from(("customer.registered", "customer.erased")).map(
        lambda kind: change("OPTIN", "r", 0) | {"event": kind, "language": "de", "identifiers": {"mobile": "+491"}}
    ),
)


@st.composite
def orgs(draw: st.DrawFn) -> Doc:
    """Any settings of three units and two profiles."""
    kinds = st.sampled_from(("SINGLE", "RESTRICTED", "DOUBLE"))
    policies = st.sampled_from(("recent", "liberal", "strict"))
    unified = st.fixed_dictionaries({}, optional={"enabled": st.booleans(), "policy": policies})
    rules = st.fixed_dictionaries(
        {"type": kinds, "channel": st.just("MOBILE")},
        optional={"source": st.sampled_from(("INSTORE", "WEB_ENGAGE")), "org_unit_id": st.sampled_from(UNITS)},
    )
    place = ("source", "org_unit_id")
    return document(
        require_registration=draw(st.booleans()),
        repeat_opt_in=draw(st.sampled_from(("ignore", "refresh"))),
        ou_sync={"opt_in": draw(st.booleans()), "opt_out": draw(st.sampled_from(("none", "any", "first")))},
        opt_in_types=draw(st.lists(rules, max_size=4, unique_by=lambda rule: tuple(map(rule.get, place)))),
        unified=draw(unified)
        | {"org_units": draw(st.dictionaries(st.sampled_from(("1", "2", "3")), unified, max_size=2))},
    )


@given(orgs(), st.lists(EVENTS, max_size=8), EVENTS)
def test_applying_twice_is_applying_once(doc: Doc, before: list[Doc], event: Doc) -> None:
    org = Org(settings_of(doc))
    state = applied(org, [change("OPTIN", "r", 0) | {"event": "customer.registered"}, *before])
    once = apply_event(org, state, dict(event), NOW).state
    assert once is not None
    written = once.encode()
    again = apply_event(org, once, dict(event), NOW)
    assert again.state is not None
    assert again.state.encode() == written
    if event["event"].startswith("consent."):
        assert again.outcome == "ignored"
        assert again.reason in {"duplicate", "not_registered"}


@given(orgs(), st.lists(EVENTS, max_size=10))
def test_a_log_applied_again_from_its_start_changes_nothing(doc: Doc, events: list[Doc]) -> None:
    org = Org(settings_of(doc | {"require_registration": False}))
    changes = [event for event in events if event["event"].startswith("consent.")]
    once = applied(org, changes)
    twice = applied(org, changes, decode_state(None if once is None else once.encode()))
    assert (twice and twice.encode()) == (once and once.encode())


QUESTIONS = st.builds(
    question,
    unit=st.sampled_from((*UNITS, WEST)),
    profile=st.sampled_from((*PROFILES, None)),
    priority=st.sampled_from(("BULK", "TRANS")),
)


@given(orgs(), st.lists(EVENTS, max_size=10), QUESTIONS)
def test_a_decision_depends_on_settings_state_and_request_alone(doc: Doc, events: list[Doc], asked: Doc) -> None:
    org = Org(settings_of(doc))
    state = applied(org, events)
    written = None if state is None else state.encode()
    given_request = copy.deepcopy(asked)
    first = words(decide(org, state, asked), 1)
    assert asked == given_request
    assert (None if state is None else state.encode()) == written
    assert words(decide(org, state, asked), 1) == first
    assert words(decide(org, decode_state(written), dict(asked)), 1) == first
    # Settings go through the table as JSON; nothing that was looked up before may matter.
    again = Org(OrgSettings.model_validate_json(org.settings.model_dump_json()))
    assert words(decide(again, decode_state(written), dict(asked)), 1) == first
    # Fields that are recorded but not weighed.
    noted = asked | {"campaign_id": "k", "requested_at": 5, "request_id": "other", "max_wait_ms": 0}
    assert words(decide(org, decode_state(written), noted), 1) == first


@given(orgs(), st.lists(EVENTS, max_size=10), QUESTIONS)
def test_an_erased_or_unknown_customer_is_never_answered_by_old_consent(
    doc: Doc, events: list[Doc], asked: Doc
) -> None:
    org = Org(settings_of(doc))
    state = applied(org, [*events, change("OPTIN", "z", 0) | {"event": "customer.erased"}, *events[:2]])
    later = [event for event in events[:2] if event["event"] == "customer.registered"]
    verdict = decide(org, state, asked)
    if not later:
        assert (verdict.eligible, verdict.reason) == (False, "not_registered")
    back = applied(org, [change("OPTIN", "y", 0) | {"event": "customer.registered"}], State(2))
    assert back is not None
    assert back.cells() == {}


@given(orgs(), st.lists(EVENTS, max_size=10), QUESTIONS, st.lists(st.sampled_from(PROFILES), min_size=1, unique_by=str))
def test_an_opt_out_that_is_the_latest_entry_everywhere_is_only_overruled_by_liberal_not_set(
    doc: Doc, events: list[Doc], asked: Doc, stopped: list[Doc]
) -> None:
    org = Org(settings_of(doc))
    register = change("OPTIN", "r", 0) | {"event": "customer.registered"}
    # Whatever has an entry, or was just stopped, ends with an opt-out later than all the rest.
    state = applied(org, [register, *events, register | {"event_id": "r2"}])
    used = [profile for profile in PROFILES if _has_entry(org, state, profile, asked) or profile in stopped]
    stops = [
        change("OPTOUT", f"stop-{n}", 1000 + n, asked["org_unit_id"], profile, priority=asked["priority"])
        for n, profile in enumerate(used)
    ]
    verdict = decide(org, applied(org, stops, state), asked)
    named = {"source": asked.get("source"), "account_id": asked.get("account_id")}
    if verdict.eligible and verdict.policy == "existing":
        assert named not in used  # this layer looks at one profile alone, and that one has no entry
    elif verdict.eligible:
        assert verdict.reason == "liberal_not_set_allowed"


def _has_entry(org: Org, state: State | None, profile: Doc, asked: Doc) -> bool:
    units = {asked["org_unit_id"], -1}
    found = statuses(org, state)
    return any(
        place[:2] == (profile["source"], profile["account_id"]) and place[3] == asked["priority"] and place[4] in units
        for place in found
    )


# --- history and ids --------------------------------------------------------------------------------

ENTRIES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1)), max_size=80).map(
    lambda pairs: [[at, kind, f"e{n:03}", "API", None] for n, (at, kind) in enumerate(pairs)]
)


def _rank(entry: list[Any]) -> list[Any]:
    return entry[:3]


@given(ENTRIES)
def test_a_cell_keeps_its_newest_entries_in_order_whatever_the_order_of_arrival(entries: list[list[Any]]) -> None:
    cell = new_cell()
    newest: list[Any] | None = None
    for entry in entries:
        won = add_entry(cell, entry)
        assert won == (newest is None or _rank(entry) > _rank(newest))
        newest = entry if won else newest
        add_entry(cell, list(entry))  # the same entry twice is kept once
    assert cell[0] == sorted(entries, key=_rank)[-HISTORY:]
    assert (cell[3] is None) == (len(entries) <= HISTORY)


@given(ENTRIES, st.booleans())
def test_the_summary_dates_a_run_that_arrived_in_order_as_the_whole_history_would(
    entries: list[list[Any]], refresh: bool
) -> None:
    cell, complete = new_cell(), slow.new_cell()
    for entry in sorted(entries, key=_rank):
        add_entry(cell, entry)
        kind = ("OPTIN", "OPTOUT")[entry[1]]
        slow.keep(complete, {"type": kind, "occurred_at": entry[0], "event_id": entry[2], "org_unit_id": 1})
        expected = slow.dating_entry(complete, refresh)
        assert expected is not None
        assert dating(cell, refresh=refresh)[2] == expected["event_id"]


@given(st.lists(st.text('a,"\\', max_size=3), max_size=200))
def test_the_last_128_ids_are_remembered_whatever_is_in_them(ids: list[str]) -> None:
    state, kept = State(1), list[str]()
    for event_id in ids:
        assert state.remember(event_id) == (event_id not in kept)
        kept = kept if event_id in kept else [*kept, event_id][-REMEMBERED_IDS:]
    assert state.ids() == kept
    again = decode_state(state.encode())
    assert again is not None
    assert again.encode() == state.encode()
    for event_id in {*ids, "a", ",", '"', '","'}:
        known = event_id in again.ids()
        assert again.remember(event_id) == (not known)
        assert event_id in again.ids()
