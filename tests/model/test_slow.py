"""The slow model, held against the rows and rules of the specification itself."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from typing import Any

import pytest

from . import settings as org
from .generate import BASE_MS, scenario
from .slow import SlowModel, replay
from .wire import Bad, is_settings_key, murmur2, parse_time, partition_of, read_change, time_text

Doc = dict[str, Any]

NORTH, SOUTH, WEST = 1, 2, 3
INSTORE: Doc = {"source": "INSTORE", "account_id": "01"}
WEB: Doc = {"source": "WEB_ENGAGE", "account_id": "01"}


def settings(**changes: Any) -> Doc:
    doc: Doc = {
        "org_id": 100,
        "version": 1,
        "require_registration": False,
        "org_units": [{"id": NORTH}, {"id": SOUTH}, {"id": WEST}],
        "accounts": [INSTORE | {"channels": ["MOBILE", "EMAIL"]}, WEB | {"channels": ["EMAIL", "MOBILE"]}],
    }
    return doc | changes


def all_types(name: str) -> list[Doc]:
    """A type for every profile; MOBILE is used in these tests because DOUBLE is not offered for INSTORE EMAIL."""
    return [{"channel": "MOBILE", "type": name}]


class World:
    """One partition with one org and one customer, and short words for what happens to them."""

    def __init__(self, **changes: Any) -> None:
        self.model = SlowModel(0, 1)
        self.ids = itertools.count(1)
        self.doc = settings(**changes)
        assert self.configure()["outcome"] == "settings_applied"

    def configure(self, **changes: Any) -> Doc:
        self.doc = self.doc | changes
        return self.send(event="settings.changed", settings=self.doc, key=b"100:")

    def send(self, key: bytes | None = b"100:c", at: int = 0, **fields: Any) -> Doc:
        event = {"event_id": f"e{next(self.ids)}", "org_id": 100, "occurred_at": time_text(BASE_MS + at)} | fields
        if event["event"] != "settings.changed":
            event.setdefault("customer_id", "c")
        return self.raw(key, json.dumps(event).encode())

    def raw(self, key: bytes | None, value: bytes | None) -> Doc:
        told = self.model.apply(self.model.position, BASE_MS, key, value)
        assert told is not None
        return told

    def change(self, kind: str, at: int = 0, **fields: Any) -> Doc:
        return self.send(event="consent.changed", at=at, **(_place() | {"type": kind} | fields))

    def opt_in(self, at: int = 0, **fields: Any) -> Doc:
        return self.change("OPTIN", at, **fields)

    def opt_out(self, at: int = 0, **fields: Any) -> Doc:
        return self.change("OPTOUT", at, **fields)

    def verify(self, verifies: str, at: int = 0, **fields: Any) -> Doc:
        return self.send(event="consent.verified", at=at, **(_place() | {"verifies": verifies} | fields))

    def register(self, **fields: Any) -> Doc:
        return self.send(event="customer.registered", **fields)

    def erase(self, **fields: Any) -> Doc:
        return self.send(event="customer.erased", **fields)

    def ask(self, **fields: Any) -> Doc:
        asked = {"request_id": "r", "org_id": 100, "customer_id": "c"} | _place() | fields
        return self.model.decide(asked)

    def cell(self, unit: int = NORTH, priority: str = "BULK", **account: Any) -> Doc:
        account = account or INSTORE
        state = self.model.state(100, "c") or {"cells": {}}
        place = (account["source"], account["account_id"], "MOBILE", priority, unit)
        found: Doc = state["cells"].get(place, {"status": "NOT_SET", "since": None, "pending": None})
        return found

    def statuses(self, **account: Any) -> list[str]:
        return [self.cell(unit, **account)["status"] for unit in (NORTH, SOUTH, WEST)]


def _place() -> Doc:
    return INSTORE | {"channel": "MOBILE", "priority": "BULK", "org_unit_id": NORTH}


def said(told: Doc) -> tuple[Any, ...]:
    """An audit as (outcome, reason), a dead letter as (code,)."""
    return (told["outcome"], told["outcome_reason"]) if told["kind"] == "audit" else (told["code"],)


def verdict(decision: Doc) -> tuple[bool, str]:
    return decision["eligible"], decision["reason"]


APPLIED = ("applied", None)
PENDING = ("pending", None)
REPEATED = ("ignored", "already_opted_in")
SUPERSEDED = ("ignored", "superseded")
DUPLICATE = ("ignored", "duplicate")
NOT_REGISTERED = ("ignored", "not_registered")


# --- wire -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_has_the_values_of_kafkas_own_tests(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected & 0xFFFFFFFF


def test_the_sign_is_masked_not_negated() -> None:
    assert partition_of(b"21", 8) == ((-973932308) & 0x7FFFFFFF) % 8


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00.000Z"),
        ("2026-11-21T15:30:00.123+05:30", "2026-11-21T10:00:00.123Z"),
        ("2026-11-21T07:00:00-03:00", "2026-11-21T10:00:00.000Z"),
        ("2026-11-21T10:00:00.1239999Z", "2026-11-21T10:00:00.123Z"),
        ("2026-11-21T10:00:00.1Z", "2026-11-21T10:00:00.100Z"),
    ],
)
def test_times_of_any_offset_at_millisecond_precision(text: str, same_as: str) -> None:
    ms = parse_time(text)
    assert ms is not None
    assert time_text(ms) == same_as


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-11-21", "2026-11-21T10:00:00", "2026-02-30T10:00:00Z", "2026-11-21T24:00:00Z", 5, None,
     "2026-11-21T10:00:00Z\n", "2026-11-21T10:00:00+24:00", "2026-11-21T10:00:00.Z", "٢٠٢٦-11-21T10:00:00Z"],
)  # fmt: skip
def test_what_is_no_time(text: Any) -> None:
    assert parse_time(text) is None


def test_settings_keys() -> None:
    assert is_settings_key(b"100:")
    assert not is_settings_key(b"100:c")
    assert not is_settings_key(b":")


# --- dead letters -----------------------------------------------------------------------------------

GOOD: Doc = {
    "event": "consent.changed", "event_id": "e", "org_id": 100, "customer_id": "c", "type": "OPTIN",
    "occurred_at": "2026-11-21T10:00:00Z",
} | _place()  # fmt: skip


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "malformed_json"),
        (b"", "malformed_json"),
        (b'{"a":', "malformed_json"),
        (b"[]", "malformed_json"),
        (b"null", "malformed_json"),
        (b'{"event":NaN}', "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"event":"\xff"}', "not_utf8"),
        (b"{}", "invalid_field"),
        (b'{"event":"consent.revoked"}', "unknown_event"),
    ],
)
def test_unreadable_values(value: bytes | None, code: str) -> None:
    with pytest.raises(Bad) as caught:
        read_change(value)
    assert caught.value.code == code
    assert World().raw(b"100:c", value) == {"kind": "deadletter", "code": code}


@pytest.mark.parametrize("field", [name for name in GOOD if name != "event"])
def test_every_field_of_a_change_is_mandatory(field: str) -> None:
    value = {name: given for name, given in GOOD.items() if name != field}
    assert World().raw(b"100:c", json.dumps(value).encode()) == {"kind": "deadletter", "code": "invalid_field"}


@pytest.mark.parametrize(
    "bad",
    [{"type": "MAYBE"}, {"source": "SHOP"}, {"channel": "FAX"}, {"priority": "bulk"}, {"org_unit_id": "1"},
     {"org_unit_id": True}, {"event_id": ""}, {"event_id": "e" * 129}, {"customer_id": 5}, {"occurred_at": "now"},
     {"proof": "text"}, {"origin": "FAX"}],
)  # fmt: skip
def test_ill_typed_and_ill_valued_fields(bad: Doc) -> None:
    assert said(World().raw(b"100:c", json.dumps(GOOD | bad).encode())) == ("invalid_field",)


def test_unknown_fields_are_ignored() -> None:
    assert said(World().raw(b"100:c", json.dumps(GOOD | {"colour": "red"}).encode())) == APPLIED


def test_the_key_must_agree() -> None:
    world = World()
    assert said(world.opt_in(key=b"100:d")) == ("key_mismatch",)
    assert said(world.opt_in(key=b"0100:c")) == ("key_mismatch",)
    assert said(world.opt_in(key=None)) == ("missing_key",)
    assert said(world.opt_in(key=b"100:")) == ("key_mismatch",)


def test_the_order_of_the_checks() -> None:
    """One record with every fault; take them away one by one."""
    world = World(require_registration=True)
    later = 10 * 60_000
    fields: Doc = {"source": "JD", "channel": "WECHAT", "org_unit_id": 77, "at": later, "event_id": "again"}
    assert said(world.opt_in(**fields, type="?", org_id=9, key=b"9:x")) == ("invalid_field",)
    assert said(world.opt_in(**fields, org_id=9, key=b"9:x")) == ("key_mismatch",)
    assert said(world.opt_in(**fields, org_id=9, key=b"9:c")) == ("unknown_org",)
    assert said(world.opt_in(**fields)) == NOT_REGISTERED
    world.register()
    world.opt_in(event_id="again")
    assert said(world.opt_in(**fields)) == ("unknown_account",)
    fields |= {"source": "INSTORE"}
    assert said(world.opt_in(**fields)) == ("channel_not_mapped",)
    fields |= {"channel": "MOBILE"}
    assert said(world.opt_in(**fields)) == ("unknown_org_unit",)
    fields |= {"org_unit_id": NORTH}
    assert said(world.opt_in(**fields)) == ("occurred_in_future",)
    fields |= {"at": 0}
    assert said(world.opt_in(**fields)) == DUPLICATE
    fields |= {"event_id": "new"}
    assert said(world.opt_in(**fields)) == REPEATED


def test_an_inactive_account_is_unknown() -> None:
    world = World(accounts=[INSTORE | {"channels": ["MOBILE"], "active": False}])
    assert said(world.opt_in()) == ("unknown_account",)
    assert verdict(world.ask()) == (False, "unknown_account")


def test_the_future_begins_after_five_minutes() -> None:
    world = World()
    assert said(world.opt_in(at=300_000)) == APPLIED
    assert said(world.opt_in(at=300_001)) == ("occurred_in_future",)
    assert said(world.register(at=300_001)) == ("occurred_in_future",)
    assert said(world.erase(at=300_001)) == ("occurred_in_future",)
    assert said(world.configure(version=2, max_future_ms=0)) == ("settings_applied", None)
    assert said(world.opt_out(at=1)) == ("occurred_in_future",)


def test_a_misrouted_record_is_forwarded_by_its_key_alone() -> None:
    home = partition_of(b"100:c", 8)
    other = SlowModel((home + 1) % 8, 8)
    assert other.apply(0, BASE_MS, b"100:c", b"whatever") == {"kind": "forward", "to": home}
    assert other.apply(1, BASE_MS, b"100:", b"whatever") == {"kind": "deadletter", "code": "malformed_json"}
    assert other.apply(2, BASE_MS, None, b"whatever") == {"kind": "deadletter", "code": "missing_key"}
    assert other.customers == {}


def test_a_size_limit_where_one_is_given() -> None:
    model = SlowModel(0, 1, max_value_bytes=100)
    assert model.apply(0, BASE_MS, b"100:c", b"x" * 101) == {"kind": "deadletter", "code": "too_large"}


# --- section 1: types and DOUBLE --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "opted_in", "not_set", "opted_out"),
    [("SINGLE", True, True, False), ("RESTRICTED", True, False, False), ("DOUBLE", True, False, False)],
)
def test_the_type_table(name: str, opted_in: bool, not_set: bool, opted_out: bool) -> None:
    world = World(opt_in_types=all_types(name))
    decision = world.ask()
    assert verdict(decision) == (not_set, "not_set_allowed" if not_set else "not_set_denied")
    assert (decision["policy"], decision["opt_in_type"]) == ("existing", name)
    world.opt_out()
    assert verdict(world.ask()) == (opted_out, "opted_out")
    told = world.opt_in(1)
    if told["outcome"] == "pending":
        world.verify(told["event_id"], 2)
    assert verdict(world.ask()) == (opted_in, "opted_in")
    assert world.ask()["opt_in_type"] is None


def test_trans_is_always_single() -> None:
    world = World(opt_in_types=all_types("DOUBLE"))
    assert verdict(world.ask(priority="TRANS")) == (True, "not_set_allowed")
    assert said(world.opt_in(priority="TRANS")) == APPLIED
    assert said(world.verify("e9", priority="TRANS")) == ("ignored", "verification_unknown")


def test_the_most_specific_type_wins_then_the_first() -> None:
    doc = settings(
        opt_in_types=[
            {"channel": "MOBILE", "type": "RESTRICTED"},
            {"source": "INSTORE", "type": "SINGLE"},
            {"source": "INSTORE", "channel": "MOBILE", "org_unit_id": SOUTH, "type": "DOUBLE"},
            {"org_unit_id": -1, "source": "WEB_ENGAGE", "type": "DOUBLE"},
        ]
    )
    assert org.faults(doc) == []
    assert org.opt_in_type(doc, "INSTORE", "01", "MOBILE", "BULK", NORTH) == "RESTRICTED"
    assert org.opt_in_type(doc, "INSTORE", "01", "MOBILE", "BULK", SOUTH) == "DOUBLE"
    assert org.opt_in_type(doc, "INSTORE", "01", "MOBILE", "TRANS", SOUTH) == "SINGLE"
    assert org.opt_in_type(doc, "INSTORE", "01", "EMAIL", "BULK", SOUTH) == "SINGLE"
    assert org.opt_in_type(doc, "WEB_ENGAGE", "01", "EMAIL", "BULK", -1) == "DOUBLE"
    assert org.opt_in_type(doc, "WEB_ENGAGE", "01", "EMAIL", "BULK", NORTH) == "SINGLE"


def double(**changes: Any) -> World:
    return World(opt_in_types=all_types("DOUBLE"), **changes)


def test_double_waits_for_its_verification() -> None:
    world = double()
    assert said(world.opt_in(10, event_id="p")) == PENDING
    assert (world.cell()["status"], world.cell()["pending"]) == ("NOT_SET", "p")
    assert verdict(world.ask()) == (False, "verification_pending")
    assert said(world.verify("q", 20)) == ("ignored", "verification_unknown")
    assert said(world.verify("p", 20, org_unit_id=SOUTH)) == ("ignored", "verification_unknown")
    told = world.verify("p", 20, event_id="v")
    assert said(told) == APPLIED
    assert (told["cells"][0]["before"], told["cells"][0]["after"]) == ("NOT_SET", "OPTIN")
    # The entry is the verification's, not the opt-in's.
    assert world.ask()["inputs"][0]["since"] == time_text(BASE_MS + 20)
    assert world.ask()["inputs"][0]["event_id"] == "v"
    assert said(world.verify("p", 30)) == ("ignored", "verification_superseded")
    assert said(world.opt_in(40)) == REPEATED  # no second verification


def test_a_pending_cell_keeps_its_former_status_in_force() -> None:
    world = double()
    world.opt_out(0)
    assert said(world.opt_in(10)) == PENDING
    assert world.cell()["status"] == "OPTOUT"
    assert verdict(world.ask()) == (False, "verification_pending")
    assert world.ask()["opt_in_type"] is None


@pytest.mark.parametrize(("at", "cancelled"), [(9, False), (10, True), (11, True)])
def test_an_opt_out_dated_at_or_after_cancels(at: int, cancelled: bool) -> None:
    world = double()
    world.opt_in(10, event_id="p")
    assert said(world.opt_out(at)) == APPLIED
    assert (world.cell()["pending"] is None) == cancelled
    expected = ("ignored", "verification_superseded") if cancelled else APPLIED
    assert said(world.verify("p", 20)) == expected


def test_a_synced_opt_out_cancels_too() -> None:
    world = double(ou_sync={"opt_out": "any"})
    world.opt_in(10, event_id="p", org_unit_id=SOUTH)
    world.opt_out(10)
    assert said(world.verify("p", 20, org_unit_id=SOUTH)) == ("ignored", "verification_superseded")


def test_of_two_pending_the_newer_stays() -> None:
    world = double()
    assert said(world.opt_in(10, event_id="p")) == PENDING
    assert said(world.opt_in(5, event_id="old")) == SUPERSEDED
    assert said(world.opt_in(10, event_id="a")) == SUPERSEDED  # same millisecond: the greater id
    assert said(world.opt_in(10, event_id="q")) == PENDING
    assert said(world.verify("p", 20)) == ("ignored", "verification_superseded")
    assert said(world.verify("old", 20)) == ("ignored", "verification_unknown")
    assert said(world.verify("q", 20)) == APPLIED


def test_a_double_opt_in_not_newer_than_the_opt_out_is_superseded() -> None:
    world = double(ou_sync={"opt_in": True})
    world.opt_out(10)
    assert said(world.opt_in(10)) == SUPERSEDED
    assert said(world.opt_in(9)) == SUPERSEDED
    assert world.statuses() == ["OPTOUT", "NOT_SET", "NOT_SET"]  # and it does not sync
    assert said(world.opt_in(11)) == PENDING


def test_a_verification_dated_before_a_later_opt_out_loses() -> None:
    world = double()
    world.opt_in(10, event_id="p")
    world.opt_out(9)
    assert said(world.verify("p", 8)) == SUPERSEDED
    assert said(world.verify("p", 20)) == ("ignored", "verification_superseded")  # the first one consumed it


def test_a_later_change_of_type_changes_no_entry() -> None:
    world = World()
    world.opt_in(0)
    world.configure(version=2, opt_in_types=all_types("DOUBLE"))
    assert verdict(world.ask()) == (True, "opted_in")
    world.opt_in(0, org_unit_id=SOUTH, event_id="p")
    world.configure(version=3, opt_in_types=[])
    assert verdict(world.ask(org_unit_id=SOUTH)) == (True, "not_set_allowed")
    assert world.cell(SOUTH)["pending"] == "p"
    assert said(world.verify("p", 5, org_unit_id=SOUTH)) == APPLIED


def test_a_pending_cell_that_became_opted_in_is_verified_as_a_repeat() -> None:
    world = double()
    world.opt_in(10, event_id="p")
    world.configure(version=2, opt_in_types=[])
    assert said(world.opt_in(20)) == APPLIED
    assert said(world.verify("p", 30)) == REPEATED


def test_verification_pending_also_for_the_cell_of_the_whole_org() -> None:
    world = double()
    world.opt_in(0, org_unit_id=-1)
    assert verdict(world.ask()) == (False, "verification_pending")
    assert verdict(world.ask(source="WEB_ENGAGE")) == (False, "not_set_denied")


# --- section 2: rules -------------------------------------------------------------------------------


def test_only_registered_customers() -> None:
    world = World(require_registration=True)
    assert said(world.opt_in()) == NOT_REGISTERED
    assert verdict(world.ask()) == (False, "not_registered")
    assert said(world.register(identifiers={"mobile": "+491701234567"}, language="de")) == ("registered", None)
    assert said(world.register(identifiers={"email": "a@example.org"})) == ("registered", None)
    state = world.model.state(100, "c")
    assert state is not None
    assert state["identifiers"] == {"mobile": "+491701234567", "email": "a@example.org"}
    assert state["language"] == "de"
    assert said(world.opt_in()) == APPLIED


def test_an_ignored_change_of_an_unknown_customer_leaves_no_id_behind() -> None:
    world = World(require_registration=True)
    world.opt_in(event_id="x")
    world.register()
    assert said(world.opt_in(event_id="x")) == APPLIED


def test_a_repeated_opt_in_protects_from_a_late_opt_out_and_keeps_its_date() -> None:
    world = World()
    world.opt_in(0)
    told = world.opt_in(20)
    assert said(told) == REPEATED
    assert told["cells"] == []
    assert said(world.opt_out(10)) == SUPERSEDED
    assert world.cell()["status"] == "OPTIN"
    assert world.cell()["since"] == time_text(BASE_MS + 20)  # the opt-out broke the run
    assert said(world.opt_in(15)) == REPEATED
    assert world.cell()["since"] == time_text(BASE_MS + 15)


def test_refresh_makes_a_repeat_the_most_recent_consent() -> None:
    world = World(repeat_opt_in="refresh", ou_sync={"opt_in": True})
    world.opt_in(0)
    told = world.opt_in(20)
    assert said(told) == APPLIED
    assert [cell["synced"] for cell in told["cells"]] == [False, True, True]
    assert world.cell()["since"] == time_text(BASE_MS + 20)
    assert said(world.opt_in(10)) == SUPERSEDED


def test_a_repeated_opt_out_is_the_most_recent_consent() -> None:
    world = World()
    world.opt_out(0)
    assert said(world.opt_out(10)) == APPLIED
    assert world.cell()["since"] == time_text(BASE_MS + 10)


def test_the_competition() -> None:
    world = World()
    world.opt_in(10, event_id="m")
    assert said(world.opt_out(9)) == SUPERSEDED
    assert said(world.opt_out(10, event_id="a")) == APPLIED  # same millisecond: the opt-out, whatever its id
    assert said(world.opt_in(10, event_id="z")) == SUPERSEDED
    assert said(world.opt_out(10, event_id="b")) == APPLIED
    assert said(world.opt_out(10, event_id="aa")) == SUPERSEDED


def test_duplicates_among_the_last_128_ids() -> None:
    world = World(opt_in_types=[{"source": "WEB_ENGAGE", "type": "DOUBLE"}])
    world.opt_out(0, event_id="first")
    assert said(world.opt_in(5, event_id="first")) == DUPLICATE
    world.opt_in(0, event_id="p", **WEB)
    assert said(world.opt_in(0, event_id="p", **WEB)) == DUPLICATE
    world.verify("nothing", event_id="v")
    assert said(world.verify("nothing", event_id="v")) == DUPLICATE
    for number in range(125):
        world.opt_out(0, event_id=f"fill-{number}", org_unit_id=SOUTH)
    assert said(world.opt_in(5, event_id="first")) == DUPLICATE  # 128 ids, and a duplicate adds none
    world.opt_out(0, event_id="one-more", org_unit_id=SOUTH)
    assert said(world.opt_in(5, event_id="first")) == APPLIED


def _cells_after(world: World, order: list[Doc]) -> Doc:
    for fields in order:
        world.send(event="consent.changed", **fields)
    state = world.model.state(100, "c")
    assert state is not None
    cells: Doc = state["cells"]
    return cells


def _changes(rng: random.Random, how_many: int) -> list[Doc]:
    return [
        _place()
        | {"event_id": f"{rng.choice('ab')}{number}", "type": rng.choice(("OPTIN", "OPTOUT")), "at": rng.randrange(4),
           "org_unit_id": rng.choice((NORTH, NORTH, SOUTH, -1))}
        for number in range(how_many)
    ]  # fmt: skip


@pytest.mark.parametrize("repeat", ["ignore", "refresh"])
def test_order_does_not_matter_without_sync(repeat: str) -> None:
    rng = random.Random(7)
    for _ in range(30):
        changes = _changes(rng, 8)
        seen = []
        for _ in range(6):
            rng.shuffle(changes)
            again = changes + rng.sample(changes, 3)  # however often they repeat
            seen.append(_cells_after(World(repeat_opt_in=repeat), again))
        # Not only the status: with the complete history `since` does not depend on the order either.
        assert all(cells == seen[0] for cells in seen)


def test_order_does_not_matter_with_refresh_and_sync() -> None:
    rng = random.Random(8)
    for _ in range(30):
        changes = _changes(rng, 8)
        sync = {"opt_in": rng.random() < 0.5, "opt_out": rng.choice(("none", "any"))}
        seen = []
        for _ in range(6):
            rng.shuffle(changes)
            seen.append(_cells_after(World(repeat_opt_in="refresh", ou_sync=sync), changes))
        assert all(cells == seen[0] for cells in seen)


# --- section 3: org units ---------------------------------------------------------------------------


def test_without_switches_nothing_is_synced() -> None:
    world = World()
    world.opt_in(0)
    world.opt_out(0, org_unit_id=SOUTH)
    assert world.statuses() == ["OPTIN", "OPTOUT", "NOT_SET"]


def test_opt_in_sync() -> None:
    world = World(ou_sync={"opt_in": True})
    told = world.opt_in(10, event_id="x")
    assert [(cell["org_unit_id"], cell["synced"]) for cell in told["cells"]] == [
        (NORTH, False),
        (SOUTH, True),
        (WEST, True),
    ]
    assert world.statuses() == ["OPTIN"] * 3
    world.opt_out(20)
    assert world.statuses() == ["OPTOUT", "OPTIN", "OPTIN"]
    found = world.ask(org_unit_id=SOUTH)["inputs"][0]
    assert (found["event_id"], found["org_unit_id"], found["since"]) == ("x", NORTH, time_text(BASE_MS + 10))


def test_sync_stays_within_account_channel_and_priority() -> None:
    world = World(ou_sync={"opt_in": True})
    world.opt_in(0)
    assert world.statuses(**WEB) == ["NOT_SET"] * 3
    assert world.cell(SOUTH, priority="TRANS")["status"] == "NOT_SET"


def test_opt_out_sync_any() -> None:
    world = World(ou_sync={"opt_out": "any"})
    world.opt_in(0, org_unit_id=SOUTH)
    world.opt_in(20, org_unit_id=WEST)
    world.opt_out(10)
    assert world.statuses() == ["OPTOUT", "OPTOUT", "OPTIN"]  # WEST has a later entry of its own


def test_opt_out_sync_first() -> None:
    world = World(ou_sync={"opt_out": "first"})
    world.opt_out(0)
    assert world.statuses() == ["OPTOUT"] * 3
    world.opt_in(10)
    world.opt_in(10, org_unit_id=SOUTH)
    world.opt_out(20)
    assert world.statuses() == ["OPTOUT", "OPTIN", "OPTOUT"]
    world.opt_in(0, **WEB)
    world.opt_out(5, **WEB)
    assert world.statuses(**WEB) == ["OPTOUT", "NOT_SET", "NOT_SET"]  # not the first there


def test_first_counts_the_whole_org_but_no_pending_opt_in() -> None:
    world = World(ou_sync={"opt_out": "first"}, opt_in_types=[WEB | {"type": "DOUBLE"}])
    world.opt_in(0, org_unit_id=-1)
    world.opt_out(5)
    assert world.statuses() == ["OPTOUT", "NOT_SET", "NOT_SET"]
    world.opt_in(0, **WEB)
    world.opt_out(5, **WEB)
    assert world.statuses(**WEB) == ["OPTOUT"] * 3


def test_a_late_entry_still_takes_part_in_sync() -> None:
    world = World(ou_sync={"opt_in": True})
    world.opt_out(10)
    told = world.opt_in(5)
    assert said(told) == APPLIED
    assert [(cell["org_unit_id"], cell["synced"]) for cell in told["cells"]] == [(SOUTH, True), (WEST, True)]
    assert world.statuses() == ["OPTOUT", "OPTIN", "OPTIN"]


def test_a_repeat_is_not_synced() -> None:
    world = World()
    world.opt_in(0)
    world.configure(version=2, ou_sync={"opt_in": True})
    assert said(world.opt_in(10)) == REPEATED
    assert world.statuses() == ["OPTIN", "NOT_SET", "NOT_SET"]


def test_a_pending_opt_in_is_synced_when_verified() -> None:
    world = double(ou_sync={"opt_in": True})
    world.opt_in(0, event_id="p")
    assert world.statuses() == ["NOT_SET"] * 3
    world.verify("p", 10)
    assert world.statuses() == ["OPTIN"] * 3


def test_sync_is_materialized() -> None:
    world = World(ou_sync={"opt_in": True})
    world.opt_in(0)
    world.configure(version=2, ou_sync={}, org_units=[{"id": NORTH}, {"id": SOUTH}, {"id": WEST}, {"id": 4}])
    assert world.statuses() == ["OPTIN"] * 3
    assert world.cell(4)["status"] == "NOT_SET"


def test_the_whole_org_is_weighed_with_every_unit() -> None:
    world = World(ou_sync={"opt_in": True, "opt_out": "any"})
    told = world.opt_out(10, org_unit_id=-1)
    assert [cell["org_unit_id"] for cell in told["cells"]] == [-1]
    assert verdict(world.ask(org_unit_id=SOUTH)) == (False, "opted_out")
    world.opt_in(20)
    assert verdict(world.ask()) == (True, "opted_in")
    assert verdict(world.ask(org_unit_id=-1)) == (False, "opted_out")  # sync goes to OUs, not to the org itself
    world.opt_out(30, org_unit_id=-1)
    assert verdict(world.ask()) == (False, "opted_out")
    assert verdict(world.ask(org_unit_id=None)) == (False, "opted_out")


# --- section 4: the unified layer -------------------------------------------------------------------

NOT_SET, IN, OUT, OUT_LATER = "not set", "opt-in", "opt-out", "opt-out later"

PLATFORM_ROWS = [
    ("recent", NOT_SET, NOT_SET, "SINGLE", True, "not_set_allowed"),
    ("recent", NOT_SET, NOT_SET, "RESTRICTED", False, "not_set_denied"),
    ("recent", NOT_SET, OUT, "SINGLE", False, "recent_opt_out"),
    ("recent", IN, OUT_LATER, "SINGLE", False, "recent_opt_out"),
    ("recent", IN, OUT, "SINGLE", False, "recent_opt_out"),  # the same row, "or same instant"
    ("liberal", NOT_SET, NOT_SET, "SINGLE", True, "not_set_allowed"),
    ("liberal", NOT_SET, NOT_SET, "RESTRICTED", False, "not_set_denied"),
    ("liberal", NOT_SET, OUT, "SINGLE", True, "liberal_not_set_allowed"),
    ("liberal", IN, OUT, "SINGLE", True, "liberal_opt_in"),
    ("strict", NOT_SET, NOT_SET, "SINGLE", True, "not_set_allowed"),
    ("strict", NOT_SET, NOT_SET, "RESTRICTED", False, "not_set_denied"),
    ("strict", NOT_SET, OUT, "SINGLE", False, "strict_opt_out"),
    ("strict", IN, OUT, "SINGLE", False, "strict_opt_out"),
]


def unified(policy: str, **changes: Any) -> World:
    return World(unified={"enabled": True, "policy": policy}, **changes)


def put(world: World, account: Doc, what: str) -> None:
    if what == IN:
        world.opt_in(0, **account)
    elif what != NOT_SET:
        world.opt_out(1 if what == OUT_LATER else 0, **account)


@pytest.mark.parametrize(("policy", "instore", "web", "kind", "send", "reason"), PLATFORM_ROWS)
def test_the_platforms_own_rows(policy: str, instore: str, web: str, kind: str, send: bool, reason: str) -> None:
    world = unified(policy, opt_in_types=all_types(kind))
    put(world, INSTORE, instore)
    put(world, WEB, web)
    decision = world.ask()
    assert verdict(decision) == (send, reason)
    assert decision["policy"] == policy
    assert decision["opt_in_type"] == (kind if "not_set" in reason else None)
    assert [found["source"] for found in decision["inputs"]] == ["INSTORE", "WEB_ENGAGE"]


@pytest.mark.parametrize(
    ("policy", "send", "kind"),
    [("recent", False, "RESTRICTED"), ("liberal", True, "SINGLE"), ("strict", False, "RESTRICTED")],
)
def test_all_not_set_with_different_types(policy: str, send: bool, kind: str) -> None:
    world = unified(policy, opt_in_types=[{"source": "WEB_ENGAGE", "type": "RESTRICTED"}])
    assert verdict(world.ask()) == (send, "not_set_allowed" if send else "not_set_denied")
    assert world.ask()["opt_in_type"] == kind
    assert verdict(world.ask(priority="TRANS")) == (True, "not_set_allowed")


def test_the_first_denying_type_is_named_in_settings_order() -> None:
    types = [{"source": "INSTORE", "type": "RESTRICTED"}, {"source": "WEB_ENGAGE", "type": "DOUBLE"}]
    assert unified("strict", opt_in_types=types).ask()["opt_in_type"] == "RESTRICTED"


def test_recent_dates_an_opt_in_from_the_first_of_its_run() -> None:
    world = unified("recent")
    world.opt_in(0)
    world.opt_out(10, **WEB)
    assert said(world.opt_in(20)) == REPEATED
    assert verdict(world.ask()) == (False, "recent_opt_out")
    world.configure(version=2, repeat_opt_in="refresh")
    world.opt_in(30)
    assert verdict(world.ask()) == (True, "recent_opt_in")


def test_recent_ignores_the_type() -> None:
    world = unified("recent", opt_in_types=[WEB | {"type": "RESTRICTED"}])
    world.opt_in(0)
    assert verdict(world.ask()) == (True, "recent_opt_in")


def test_liberal_denied() -> None:
    world = unified("liberal", opt_in_types=[WEB | {"type": "RESTRICTED"}])
    world.opt_out(0)
    assert verdict(world.ask()) == (False, "liberal_denied")
    assert world.ask()["opt_in_type"] == "RESTRICTED"
    world.opt_out(0, **WEB)
    assert verdict(world.ask()) == (False, "liberal_denied")
    assert world.ask()["opt_in_type"] is None


def test_strict_needs_an_opt_in_everywhere() -> None:
    world = unified("strict")
    world.opt_in(0)
    assert verdict(world.ask()) == (False, "strict_missing_opt_in")
    world.opt_in(0, **WEB)
    assert verdict(world.ask()) == (True, "strict_opt_in")


def test_a_pending_opt_in_counts_for_nothing_in_the_unified_layer() -> None:
    world = unified("liberal", opt_in_types=all_types("DOUBLE"))
    world.opt_in(0)
    assert verdict(world.ask()) == (False, "not_set_denied")


def test_the_unified_layer_weighs_the_effective_statuses() -> None:
    world = unified("strict")
    world.opt_in(0, org_unit_id=-1)
    world.opt_in(0, org_unit_id=-1, **WEB)
    assert verdict(world.ask()) == (True, "strict_opt_in")
    world.opt_out(1)
    assert verdict(world.ask()) == (False, "strict_opt_out")
    assert verdict(world.ask(org_unit_id=SOUTH)) == (True, "strict_opt_in")


def test_only_active_profiles_with_the_channel_are_weighed() -> None:
    accounts = [
        INSTORE | {"channels": ["MOBILE"]},
        WEB | {"channels": ["EMAIL"]},
        {"source": "LINE", "account_id": "x", "channels": ["MOBILE", "LINE"], "active": False},
    ]
    world = unified("strict", accounts=accounts)
    world.opt_in(0)
    assert verdict(world.ask()) == (True, "strict_opt_in")
    assert verdict(world.ask(channel="LINE")) == (False, "channel_not_mapped")


def test_a_unit_inherits_what_it_does_not_give() -> None:
    doc = settings(
        unified={
            "enabled": True,
            "policy": "strict",
            "org_units": {"1": {"enabled": False}, "2": {"policy": "liberal"}},
        }
    )
    assert [org.policy_for(doc, unit) for unit in (NORTH, SOUTH, WEST, -1)] == [
        "existing",
        "liberal",
        "strict",
        "strict",
    ]
    doc = settings(unified={"org_units": {"1": {"enabled": True}}})
    assert [org.policy_for(doc, unit) for unit in (NORTH, SOUTH, -1)] == ["recent", "existing", "existing"]
    assert org.policy_for(settings(), NORTH) == "existing"


# --- section 5: decisions ---------------------------------------------------------------------------


def test_the_order_of_the_refusals() -> None:
    world = World(require_registration=True)
    asked: Doc = {"org_unit_id": 77, "source": None, "channel": "WECHAT"}
    assert verdict(world.ask(**asked, org_id=9)) == (False, "unknown_org")
    assert verdict(world.ask(**asked)) == (False, "unknown_org_unit")
    asked |= {"org_unit_id": NORTH}
    assert verdict(world.ask(**asked)) == (False, "not_registered")
    world.register()
    assert verdict(world.ask(**asked)) == (False, "source_required")
    asked |= {"source": "JD"}
    assert verdict(world.ask(**asked)) == (False, "unknown_account")
    asked |= {"source": "INSTORE"}
    assert verdict(world.ask(**asked)) == (False, "channel_not_mapped")
    asked |= {"channel": "MOBILE"}
    assert verdict(world.ask(**asked)) == (True, "not_set_allowed")


def test_unified_does_not_need_nor_weigh_a_source() -> None:
    world = unified("strict")
    assert verdict(world.ask(source=None, account_id=None)) == (True, "not_set_allowed")
    assert verdict(world.ask(source="JD")) == (True, "not_set_allowed")


def test_positions_not_reached() -> None:
    world = World()
    here = world.model.position
    assert verdict(world.ask(min_position={"partition": 0, "offset": here - 1})) == (True, "not_set_allowed")
    assert verdict(world.ask(min_position={"partition": 0, "offset": here})) == (False, "state_behind")
    assert verdict(world.ask(min_position={"partition": 1, "offset": 0})) == (False, "state_behind")


def test_requests_on_the_wire() -> None:
    world = World()
    good = {"request_id": "r", "org_id": 100, "customer_id": "c"} | _place()

    def answer(value: Any, key: bytes | None = b"100:c") -> Doc:
        return world.model.answer(key, value if isinstance(value, bytes) else json.dumps(value).encode())

    assert answer(good)["reason"] == "not_set_allowed"
    assert answer(good | {"channel": "FAX"})["reason"] == "invalid_request"
    assert answer({"request_id": "r"})["reason"] == "invalid_request"
    assert answer({"org_id": 100}) == {"kind": "deadletter", "code": "invalid_field"}
    assert answer(b"x") == {"kind": "deadletter", "code": "malformed_json"}
    assert answer(good, None) == {"kind": "deadletter", "code": "missing_key"}
    assert SlowModel(1 - partition_of(b"100:c", 2), 2).answer(b"100:c", b"")["kind"] == "forward"


def test_a_decision_changes_nothing() -> None:
    world = World()
    world.opt_in()
    before = repr(world.model.customers)
    world.ask(org_unit_id=SOUTH)
    world.ask(customer_id="nobody")
    assert repr(world.model.customers) == before


# --- sections 5 and 6: settings, registration, erasure ----------------------------------------------


def test_settings_versions() -> None:
    world = World()
    assert said(world.configure()) == ("ignored", "stale_settings")
    assert said(world.configure(version=7)) == ("settings_applied", None)
    told = world.configure(version=6, org_units=[])
    assert said(told) == ("ignored", "stale_settings")
    assert told["settings_version"] == 7
    assert world.opt_in()["settings_version"] == 7


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"org_units": [{"id": NORTH}, {"id": NORTH}]}, "org_units.1.id"),
        ({"org_units": [{"id": -1}]}, "org_units.0.id"),
        ({"accounts": [INSTORE | {"channels": []}, INSTORE | {"channels": []}]}, "accounts.1"),
        ({"opt_in_types": [{"org_unit_id": 77, "type": "SINGLE"}]}, "opt_in_types.0.org_unit_id"),
        ({"opt_in_types": [{"account_id": "77", "type": "SINGLE"}]}, "opt_in_types.0.account_id"),
        ({"opt_in_types": [{"source": "JD", "account_id": "01", "type": "SINGLE"}]}, "opt_in_types.0.account_id"),
        ({"opt_in_types": [{"type": "SINGLE"}, {"type": "RESTRICTED"}]}, "opt_in_types.1"),
        ({"opt_in_types": [{"source": "INSTORE", "channel": "EMAIL", "type": "DOUBLE"}]}, "opt_in_types.0.type"),
        ({"opt_in_types": [{"type": "DOUBLE"}]}, "opt_in_types"),
        ({"unified": {"org_units": {"77": {}}}}, "unified.org_units.77"),
        ({"unified": {"policy": "often"}}, "unified.policy"),
        ({"ou_sync": {"opt_out": True}}, "ou_sync.opt_out"),
        ({"version": "1"}, "version"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused_whole(changes: Doc, path: str) -> None:
    assert path in org.faults(settings(**changes))
    world = World()
    before = world.model.settings[100]
    assert said(world.configure(**({"version": 2} | changes))) == ("invalid_field",)
    assert world.model.settings[100] == before


def test_settings_are_for_the_org_of_their_record() -> None:
    world = World()
    assert said(world.configure(version=2, org_id=101)) == ("invalid_field",)
    world.doc["org_id"] = 100
    assert said(world.send(event="settings.changed", settings=settings(version=2), key=b"101:")) == ("key_mismatch",)


def test_wildcard_double_is_fine_where_instore_has_no_email() -> None:
    doc = settings(accounts=[INSTORE | {"channels": ["MOBILE"]}], opt_in_types=[{"type": "DOUBLE"}])
    assert org.faults(doc) == []


@pytest.mark.parametrize("required", [True, False])
def test_erasure(required: bool) -> None:
    world = World(require_registration=required)
    world.register(language="de")
    world.opt_in(0, event_id="x")
    assert said(world.erase()) == ("erased", None)
    assert said(world.opt_in(1)) == NOT_REGISTERED
    assert verdict(world.ask()) == (False, "not_registered")
    state = world.model.state(100, "c")
    assert state == {"registered": False, "erased": True, "identifiers": {}, "language": None, "cells": {}}
    assert said(world.register()) == ("registered", None)
    assert verdict(world.ask()) == (True, "not_set_allowed")  # nothing of the old consent comes back
    assert said(world.opt_in(0, event_id="x")) == APPLIED  # nor the ids
    assert said(world.erase()) == ("erased", None)


# --- replay and scenarios ---------------------------------------------------------------------------


def test_replay_is_the_model_below_an_offset() -> None:
    records = []
    for offset, kind in enumerate(("OPTIN", "OPTOUT", "OPTIN")):
        event = GOOD | {"event_id": f"e{offset}", "type": kind, "occurred_at": time_text(BASE_MS + offset)}
        records.append((offset + 1, BASE_MS, b"100:c", json.dumps(event).encode(), ()))
    doc = {"event": "settings.changed", "event_id": "s", "org_id": 100, "occurred_at": "2026-11-21T10:00:00Z"}
    records.insert(0, (0, BASE_MS, b"100:", json.dumps(doc | {"settings": settings()}).encode(), ()))
    asked = {"request_id": "r", "org_id": 100, "customer_id": "c"} | _place()
    reasons = [replay(records, upto).decide(asked)["reason"] for upto in range(5)]
    assert reasons == ["unknown_org", "not_set_allowed", "opted_in", "opted_out", "opted_in"]


PARTITIONS = 4


def run(seed: int, **how: Any) -> list[tuple[str, Doc]]:
    """A scenario through one model per partition, misrouted records forwarded home as the worker would."""
    models = [SlowModel(number, PARTITIONS) for number in range(PARTITIONS)]
    told: list[tuple[str, Doc]] = []
    for kind, key, value, explicit in scenario(seed, partitions=PARTITIONS, **how):
        assert key is not None or explicit is not None
        number = partition_of(key or b"", PARTITIONS) if explicit is None else explicit
        for _ in range(2):
            model = models[number]
            if kind == "change":
                result = model.apply(model.position, BASE_MS, key, value) or {}
            else:
                result = model.answer(key, value)
            told.append((kind, result))
            if result["kind"] != "forward":
                break
            number = result["to"]
    return told


def test_scenarios_are_reproducible() -> None:
    assert scenario(3) == scenario(3)
    assert scenario(3) != scenario(4)
    assert len(scenario(3, customers=1, events=50, partitions=1)) >= 50


def test_scenarios_reach_every_outcome_reason_and_code() -> None:
    seen: Counter[Any] = Counter()
    for seed in range(20):
        for kind, result in run(seed, events=400):
            seen[kind, result["kind"]] += 1
            seen[result.get("outcome"), result.get("outcome_reason")] += 1
            seen[kind, result.get("code") or result.get("reason")] += 1
            seen.update("synced" for cell in result.get("cells", ()) if cell["synced"])
    outcomes = [
        APPLIED, PENDING, REPEATED, SUPERSEDED, DUPLICATE, NOT_REGISTERED, ("registered", None), ("erased", None),
        ("settings_applied", None), ("ignored", "stale_settings"), ("ignored", "verification_superseded"),
        ("ignored", "verification_unknown"), ("change", "forward"), ("request", "forward"), "synced",
    ]  # fmt: skip
    codes = [
        "malformed_json", "not_utf8", "invalid_field", "unknown_event", "key_mismatch", "missing_key",
        "occurred_in_future", "unknown_org", "unknown_account", "unknown_org_unit", "channel_not_mapped",
    ]  # fmt: skip
    reasons = [
        "opted_in", "opted_out", "not_set_allowed", "not_set_denied", "verification_pending", "recent_opt_in",
        "recent_opt_out", "liberal_opt_in", "liberal_not_set_allowed", "liberal_denied", "strict_opt_in",
        "strict_opt_out", "strict_missing_opt_in", "not_registered", "unknown_org", "unknown_org_unit",
        "unknown_account", "channel_not_mapped", "source_required", "state_behind", "invalid_request",
    ]  # fmt: skip
    wanted = [*outcomes, *(("change", code) for code in codes), *(("request", reason) for reason in reasons)]
    assert [what for what in wanted if not seen[what]] == []


def test_edges_are_survived_and_every_decision_has_an_answer() -> None:
    for seed in range(10):
        for kind, result in run(seed, edges=True):
            assert result["kind"] in ("audit", "deadletter", "forward", "decision")
            if result["kind"] == "decision":
                assert kind == "request"
                assert isinstance(result["eligible"], bool)
                assert result["eligible"] == (result["reason"] in YES)


YES = (
    "opted_in", "not_set_allowed", "recent_opt_in", "liberal_opt_in", "liberal_not_set_allowed", "strict_opt_in",
)  # fmt: skip


# --- readings that hurt: the model follows them, and these tests keep them in sight ------------------


def test_order_matters_for_double_when_an_unverified_repeat_outlives_an_opt_out() -> None:
    """Rule 3 keeps an unverified DOUBLE repeat in the history, where it beats a late opt-out from before it."""
    first, second = double(), double()
    for world in (first, second):
        world.opt_in(0, event_id="p")
        world.verify("p", 10)
    first.opt_in(20)
    first.opt_out(15)
    second.opt_out(15)
    second.opt_in(20)
    assert (first.cell()["status"], second.cell()["status"]) == ("OPTIN", "OPTOUT")


def test_order_matters_for_double_when_the_opt_out_comes_after_the_verification() -> None:
    first, second = double(), double()
    for world in (first, second):
        world.opt_in(10, event_id="p")
    first.verify("p", 20)
    first.opt_out(15)
    second.opt_out(15)
    second.verify("p", 20)
    assert (first.cell()["status"], second.cell()["status"]) == ("OPTIN", "OPTOUT")


def test_an_ignored_repeat_can_change_the_effective_status() -> None:
    """The cell is OPTIN, so rule 3 ignores the repeat; but it is newer than the opt-out of the whole org."""
    world = World()
    world.opt_in(0)
    world.opt_out(10, org_unit_id=-1)
    assert verdict(world.ask()) == (False, "opted_out")
    assert said(world.opt_in(20)) == REPEATED
    assert verdict(world.ask()) == (True, "opted_in")
    assert world.ask()["inputs"][0]["since"] == time_text(BASE_MS)


def test_an_opt_out_of_the_whole_org_does_not_cancel_a_pending_opt_in() -> None:
    world = double()
    world.opt_in(10, event_id="p")
    world.opt_out(15, org_unit_id=-1)
    assert said(world.verify("p", 20)) == APPLIED
    assert verdict(world.ask()) == (True, "opted_in")


def test_a_synced_opt_in_enters_a_double_unit_unverified() -> None:
    world = World(
        ou_sync={"opt_in": True}, opt_in_types=[{"channel": "MOBILE", "org_unit_id": SOUTH, "type": "DOUBLE"}]
    )
    world.opt_in(0)
    assert verdict(world.ask(org_unit_id=SOUTH)) == (True, "opted_in")


def test_an_erasure_sent_twice_erases_what_came_between() -> None:
    world = World()
    world.erase(event_id="gone")
    world.register()
    world.opt_in()
    assert said(world.erase(event_id="gone")) == ("erased", None)
    assert verdict(world.ask()) == (False, "not_registered")
