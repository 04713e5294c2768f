"""Imports and their undo (domain section 9): what a batch brought can be taken out as if it had never been there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import EVENTS
from streams.domain.cells import HISTORY
from streams.domain.changes import apply_event
from streams.domain.messages import message_of
from streams.domain.orgs import Org
from streams.domain.state import BATCHES, REMEMBERED_IDS, State, decode_state
from tests.domain.fast import (
    INSTORE,
    NORTH,
    NOW,
    SOUTH,
    an_org,
    applied,
    change,
    settings_of,
    statuses,
    verification,
)
from tests.domain.test_laws import MOMENTS, PROFILES, UNITS, orgs

Doc = dict[str, Any]


def imported(kind: str, event_id: str, at: int, unit: int = NORTH, batch: str = "b1", **more: Any) -> Doc:
    return change(kind, event_id, at, unit, origin="IMPORT", batch_id=batch, **more)


def undo(batch: str = "b1", event_id: str = "undo") -> Doc:
    event = change("OPTIN", event_id, 0) | {"event": "consent.batch_reverted", "batch_id": batch}
    fields = ("event", "event_id", "org_id", "customer_id", "occurred_at", "batch_id")
    return {name: event[name] for name in fields}


def registered() -> Doc:
    return change("OPTIN", "r", 0) | {"event": "customer.registered"}


def written(state: State | None) -> bytes:
    """The state's bytes, without the undo's own id; a state that knows nothing is as good as none."""
    if state is None:
        return State(0).encode()
    return state.encode().replace(b'"undo"', b"").replace(b",]", b"]").replace(b"[,", b"[").replace(b",,", b",")


def cell_of(org: Org, events: list[Doc], unit: int = NORTH) -> Any:
    state = applied(org, events)
    assert state is not None
    return state.cell(org.place("INSTORE", "01", "MOBILE", "BULK", unit).key)


BATCH = st.lists(
    st.builds(
        lambda kind, at, unit, profile: {"type": kind, "occurred_at": NOW + at, "org_unit_id": unit} | profile,
        st.sampled_from(("OPTIN", "OPTOUT")), MOMENTS, st.sampled_from(UNITS), st.sampled_from(PROFILES),
    ),
    min_size=1, max_size=6,
).map(lambda rows: [imported("OPTIN", f"i{n}", 0) | row for n, row in enumerate(rows)])  # fmt: skip
NAMED = st.sampled_from([*(f"e{n}" for n in range(8)), "i0", "i1", "i2"])


@st.composite
def own_events(draw: st.DrawFn) -> list[Doc]:
    """Events without a batch. Each has an id of its own: the duplicate rule is tried elsewhere."""
    kinds = st.sampled_from(("OPTIN", "OPTIN", "OPTOUT", "verified", "verified", "customer.registered"))
    events = []
    for n in range(draw(st.integers(0, 8))):
        kind, at = draw(kinds), draw(MOMENTS)
        unit, profile = draw(st.sampled_from((*UNITS, NORTH))), draw(st.sampled_from((*PROFILES, INSTORE)))
        if kind == "verified":
            events.append(verification(draw(NAMED), f"e{n}", at, unit, profile))
        elif kind == "customer.registered":
            events.append(change("OPTIN", f"e{n}", at) | {"event": kind, "language": "de"})
        else:
            events.append(change(kind, f"e{n}", at, unit, profile))
    return events


OWN = own_events()


@st.composite
def interleaved(draw: st.DrawFn, own: st.SearchStrategy[list[Doc]] = OWN) -> tuple[list[Doc], list[Doc]]:
    """Events of a customer, and the same with a batch among them."""
    events = draw(own)
    mixed = list(events)
    for event in draw(BATCH):
        mixed.insert(draw(st.integers(0, len(mixed))), event)
    return events, mixed


@given(orgs(), OWN, BATCH, OWN)
def test_an_import_undone_at_once_leaves_the_bytes_of_a_customer_who_never_had_it(
    doc: Doc, before: list[Doc], batch: list[Doc], after: list[Doc]
) -> None:
    org = Org(settings_of(doc))
    after = [event | {"event_id": f"{event['event_id']}-later"} for event in after]
    assert written(applied(org, [*before, *batch, undo(), *after])) == written(applied(org, [*before, *after]))


CHANGES = OWN.map(lambda events: [event for event in events if event["event"] != "consent.verified"])
UNVERIFIED = orgs().filter(lambda doc: all(rule["type"] != "DOUBLE" for rule in doc["opt_in_types"]))


@given(UNVERIFIED, interleaved(CHANGES))
def test_without_unit_sync_and_double_opt_in_it_does_not_matter_what_came_since(
    doc: Doc, events: tuple[list[Doc], list[Doc]]
) -> None:
    org = Org(settings_of(doc | {"ou_sync": {"opt_in": False, "opt_out": "none"}}))
    without, mixed = events
    assert written(applied(org, [*mixed, undo()])) == written(applied(org, without))


@given(orgs(), interleaved())
def test_whatever_the_settings_it_does_not_matter_what_came_since_and_did_the_same_without_the_batch(
    doc: Doc, events: tuple[list[Doc], list[Doc]]
) -> None:
    org = Org(settings_of(doc))
    without, mixed = events
    states: list[bytes | None] = [None, None]
    alike = True
    for event in mixed:
        outcomes = []
        for n in range(1 if event.get("batch_id") else 2):
            found = apply_event(org, decode_state(states[n]), dict(event), NOW)
            states[n] = None if found.state is None else found.state.encode()
            places = [(cell["org_unit_id"], cell["synced"]) for cell in found.cells]
            outcomes.append((found.outcome, found.reason, places))
        alike = alike and outcomes[0] == outcomes[-1]
    if alike:
        reverted = applied(org, [undo()], decode_state(states[0]))
        assert written(reverted) == written(decode_state(states[1]))
    assert written(applied(org, without)) == written(decode_state(states[1]))


@given(orgs(), interleaved())
def test_an_undo_twice_is_an_undo_once_and_says_that_there_was_nothing_left(
    doc: Doc, events: tuple[list[Doc], list[Doc]]
) -> None:
    org = Org(settings_of(doc))
    once = applied(org, [registered(), *events[1], undo()])
    assert once is not None
    bytes_once = once.encode()
    again = apply_event(org, once, undo(event_id="undo"), NOW)
    assert again.reason in {"duplicate", "batch_unknown"}  # the second where the customer was erased
    assert once.encode() == bytes_once
    assert apply_event(org, once, undo(event_id="undo-2"), NOW)[:3] == ("ignored", "batch_unknown", [])


@given(orgs(), interleaved())
def test_no_undo_leaves_an_opt_in_that_the_customer_did_not_give(
    doc: Doc, events: tuple[list[Doc], list[Doc]]
) -> None:
    """Every entry left is of an event without a batch, whose id the customer's own run knows too."""
    org = Org(settings_of(doc))
    state = applied(org, [*events[1], undo()])
    for cell in {} if state is None else state.cells().values():
        assert len(cell) == 4
        assert all(len(entry) == 5 and not entry[2].startswith("i") for entry in cell[0])
        assert cell[1] is None or len(cell[1]) == 3
        assert all(isinstance(name, str) for name in cell[2])


# --- examples ---------------------------------------------------------------------------------------

DOUBLE = {"opt_in_types": [{"source": "INSTORE", "channel": "MOBILE", "type": "DOUBLE"}]}


def outcome(org: Org, events: list[Doc], event: Doc) -> tuple[str, str | None]:
    return apply_event(org, applied(org, events), dict(event), NOW)[:2]


def test_an_undo_says_which_statuses_changed_and_which_of_them_by_sync() -> None:
    org = an_org(ou_sync={"opt_in": True, "opt_out": "none"})
    state = applied(org, [change("OPTOUT", "e", 0, SOUTH), imported("OPTIN", "i", 1)])
    found = apply_event(org, state, undo(), NOW)
    assert found[:2] == ("applied", None)
    assert sorted((cell["org_unit_id"], cell["before"], cell["after"], cell["synced"]) for cell in found.cells) == [
        (NORTH, "OPTIN", "NOT_SET", False), (SOUTH, "OPTIN", "OPTOUT", True), (3, "OPTIN", "NOT_SET", True),
    ]  # fmt: skip


def test_an_undo_sends_no_message() -> None:
    org = an_org()
    found = apply_event(org, applied(org, [imported("OPTOUT", "i", 0)]), undo(), NOW)
    assert found.cells != []
    assert message_of(org, undo(), found) is None


def test_a_batch_that_changed_no_status_is_taken_out_without_a_change_of_status() -> None:
    org = an_org()
    events = [change("OPTIN", "e", 5), imported("OPTIN", "i", 1)]
    assert outcome(org, events[:1], events[1]) == ("ignored", "already_opted_in")
    state = applied(org, events)
    assert apply_event(org, state, undo(), NOW)[:3] == ("applied", None, [])
    assert written(state) == written(applied(org, events[:1]))


def test_an_undo_of_nothing_is_ignored_as_batch_unknown() -> None:
    org = an_org()
    assert apply_event(org, None, undo(), NOW) == ("ignored", "batch_unknown", [], None)
    assert outcome(org, [imported("OPTIN", "i", 0, batch="other")], undo()) == ("ignored", "batch_unknown")
    erased = registered() | {"event": "customer.erased"}
    assert outcome(org, [imported("OPTIN", "i", 0), erased], undo()) == ("ignored", "batch_unknown")


def test_an_undo_needs_neither_the_registration_nor_the_place_that_the_import_needed() -> None:
    state = applied(an_org(), [imported("OPTIN", "i", 0)])
    strict = an_org(require_registration=True, accounts=[], org_units=[])
    found = apply_event(strict, state, undo(), NOW)
    assert found.outcome == "applied"
    assert written(state) == State(0).encode()


def test_an_imported_event_that_comes_again_counts_once_until_the_undo_and_once_more_after_it() -> None:
    org, event = an_org(), imported("OPTIN", "i", 0)
    assert outcome(org, [event], event) == ("ignored", "duplicate")
    assert outcome(org, [event, undo()], event) == ("applied", None)
    assert outcome(org, [event, undo(), event], undo(event_id="undo-2")) == ("applied", None)
    assert outcome(org, [event, undo(), event], undo()) == ("ignored", "duplicate")


def test_ids_of_batches_are_bounded_and_push_out_no_others() -> None:
    org = an_org()
    own = [change("OPTIN", f"e{n}", n) for n in range(REMEMBERED_IDS)]
    rows = [imported("OPTIN", f"i{n}", 0) for n in range(REMEMBERED_IDS + 1)]
    others = [imported("OPTIN", "i", 0, batch=f"o{n}") for n in range(BATCHES)]
    assert outcome(org, [*own, *rows], own[0]) == ("ignored", "duplicate")
    assert outcome(org, [*own, *rows], rows[1]) == ("ignored", "duplicate")
    state = applied(org, rows)
    assert state is not None
    assert not state.remember_of("b1", "i1")
    assert state.remember_of("b1", "i0")  # the oldest was forgotten
    state = applied(org, [*rows, *others])
    assert state is not None
    assert list(state.about["b"]) == [f"o{n}" for n in range(BATCHES)]
    # A batch whose ids are forgotten is taken out all the same.
    assert apply_event(org, state, undo(), NOW).outcome == "applied"


def test_an_event_without_a_batch_is_not_taken_for_the_batch_s_event_of_the_same_id() -> None:
    org = an_org()
    events = [imported("OPTOUT", "e", 0), change("OPTOUT", "e", 0)]
    assert outcome(org, events[:1], events[1]) == ("ignored", "superseded")
    assert written(applied(org, [*events, undo()])) == written(applied(org, events[1:]))


@pytest.mark.parametrize("repeat", ["ignore", "refresh"])
def test_a_large_batch_pushes_no_other_entry_out_of_the_history(repeat: str) -> None:
    org = an_org(repeat_opt_in=repeat)
    own = [change("OPTIN", f"e{n:03}", 10 * n) for n in range(HISTORY + 5)]
    rows = [imported("OPTIN", f"i{n:03}", 10 * n + 5) for n in range(2 * HISTORY)]
    mixed = [event for pair in zip(own, rows, strict=False) for event in pair] + rows[len(own) :]
    cell = cell_of(org, mixed)
    assert [entry[2] for entry in cell[0] if len(entry) == 5] == [f"e{n:03}" for n in range(5, HISTORY + 5)]
    assert [entry[2] for entry in cell[0] if len(entry) == 6] == [f"i{n:03}" for n in range(HISTORY, 2 * HISTORY)]
    assert written(applied(org, [*mixed, undo()])) == written(applied(org, own))


def test_a_batch_s_entry_older_than_all_that_the_history_holds_is_dropped() -> None:
    org = an_org()
    own = [change("OPTIN", f"e{n:03}", 10 * n) for n in range(HISTORY)]
    cell = cell_of(org, [imported("OPTOUT", "i", 5), *own, change("OPTIN", "f", 1000), change("OPTIN", "g", 1001)])
    assert [len(entry) for entry in cell[0]] == [5] * HISTORY


@pytest.mark.parametrize("kind", ["OPTIN", "OPTOUT"])
def test_a_pending_opt_in_that_the_batch_replaced_or_cancelled_waits_again(kind: str) -> None:
    org = an_org(**DOUBLE)
    events = [change("OPTIN", "e", 0), imported(kind, "i", 5)]
    assert outcome(org, events, verification("e", "v", 9)) == ("ignored", "verification_superseded")
    assert outcome(org, [*events, undo()], verification("e", "v", 9)) == ("applied", None)
    assert outcome(org, [*events, undo()], verification("i", "v", 9)) == ("ignored", "verification_unknown")


@pytest.mark.parametrize(
    ("since", "waits"),
    [
        (change("OPTOUT", "x", 1), False),
        (change("OPTOUT", "x", 1, SOUTH), False),  # by sync
        (change("OPTOUT", "x", -1), True),
        (change("OPTIN", "x", 9), False),
        (verification("e", "x", 9), True),  # it came too late then: not run again
    ],
    ids=["opt-out", "synced opt-out", "earlier opt-out", "newer opt-in", "late verification"],
)
def test_it_does_not_wait_again_if_something_else_ended_it_since(since: Doc, waits: bool) -> None:
    org = an_org(**DOUBLE, ou_sync={"opt_in": False, "opt_out": "any"})
    events = [change("OPTIN", "e", 0), imported("OPTIN", "i", 5), since, undo()]
    expected = ("applied", None) if waits else ("ignored", "verification_superseded")
    assert outcome(org, events, verification("e", "v", 20)) == expected


def test_a_pending_opt_in_of_the_batch_goes_and_so_does_what_verified_it() -> None:
    org = an_org(**DOUBLE)
    row = imported("OPTIN", "i", 0)
    assert outcome(org, [], row) == ("pending", None)
    assert written(applied(org, [row, undo()])) == State(0).encode()
    verified = [row, verification("i", "v", 5)]
    assert [entry[5] for entry in cell_of(org, verified)[0]] == ["b1"]
    assert statuses(org, applied(org, [*verified, undo()])) == {}


def test_an_opt_in_that_only_repeated_the_batch_s_verified_one_has_to_be_verified_itself() -> None:
    org = an_org(**DOUBLE)
    events = [imported("OPTIN", "i", 0), verification("i", "v", 5)]
    repeat = change("OPTIN", "e", 9)
    assert outcome(org, events, repeat) == ("ignored", "already_opted_in")
    state = applied(org, [*events, repeat, undo()])
    assert statuses(org, state) == {}
    assert written(state) == written(applied(org, [verification("i", "v", 5), repeat]))


def test_two_batches_are_taken_out_apart_in_either_order() -> None:
    org = an_org()
    events = [imported("OPTOUT", "i1", 1), imported("OPTIN", "i2", 2, batch="b2"), change("OPTOUT", "e", 0)]
    one, other = undo(), undo("b2", "undo-2")
    place = ("INSTORE", "01", "MOBILE", "BULK", NORTH)
    assert statuses(org, applied(org, [*events, one])) == {place: "OPTIN"}
    assert statuses(org, applied(org, [*events, other])) == {place: "OPTOUT"}
    both = applied(org, [*events, one, other])
    again = applied(org, [*events, other, one])
    assert both is not None
    assert again is not None
    assert both.cells() == again.cells() == {next(iter(both.cells())): cell_of(org, events[2:])}


def test_repeats_that_the_batch_caused_to_be_ignored_are_not_run_again() -> None:
    """What is not restored: the sync of an opt-in that only repeated the batch's."""
    org = an_org(ou_sync={"opt_in": True, "opt_out": "none"})
    events = [imported("OPTIN", "i", 0), change("OPTIN", "e", 5)]
    assert outcome(org, events[:1], events[1]) == ("ignored", "already_opted_in")
    assert statuses(org, applied(org, [*events, undo()])) == {("INSTORE", "01", "MOBILE", "BULK", NORTH): "OPTIN"}


def test_the_undo_is_an_event_of_the_wire() -> None:
    event = undo() | {"occurred_at": "2026-11-21T10:00:00.000Z"}
    assert EVENTS["consent.batch_reverted"].validate_python(event)["batch_id"] == "b1"


def test_undoing_a_batch_that_is_not_in_a_cell_leaves_what_another_batch_put_aside_there() -> None:
    """An own double opt-in on a batch's OPTIN is a repetition as long as that batch stands."""
    double = an_org(version=2, opt_in_types=[{"channel": "MOBILE", "type": "DOUBLE"}])
    state = applied(an_org(), [imported("OPTIN", "i", 0, batch="b2")])
    state = applied(double, [change("OPTIN", "own", 10)], state)
    assert state is not None
    before = state.cells()
    after = applied(double, [imported("OPTIN", "far", 0, SOUTH, batch="b1"), undo("b1")], state)
    assert after is not None
    key = double.place("INSTORE", "01", "MOBILE", "BULK", NORTH).key
    assert after.cell(key) == before[key]
    # Without the batch that made it a repetition, it asks.
    alone = applied(double, [undo("b2", "undo 2")], after)
    assert alone is not None
    assert alone.cell(key)[1][1] == "own"
