"""The rules against the independent slow model: the same records, the same words, at every step."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.base import format_instant
from tests.domain.fast import INSTORE, NORTH, NOW, SOUTH, WEB, FastModel, document
from tests.domain.test_laws import orgs
from tests.model.generate import BASE_MS, UNITS, scenario
from tests.model.slow import SlowModel

Doc = dict[str, Any]
REJECTED = {
    "unknown_org", "unknown_account", "unknown_org_unit", "channel_not_mapped", "occurred_in_future",
}  # fmt: skip


class Both:
    """The two models side by side."""

    def __init__(self) -> None:
        self.slow = SlowModel(0, 1)
        self.fast = FastModel()
        self.seen: set[str] = set()

    def apply(self, record: Doc, key: bytes, value: bytes) -> None:
        expected = self.slow.apply(self.slow.position, NOW, key, value)
        assert expected is not None
        if expected["kind"] != "audit" and expected["code"] not in REJECTED:
            return  # unreadable: the agents' business, see tests/agents
        assert self.fast.apply(NOW, record) == expected
        self.seen.add(expected["outcome_reason"] or expected["outcome"] if "outcome" in expected else expected["code"])

    def send(self, record: Doc) -> None:
        customer = record.get("customer_id", "")
        self.apply(record, f"{record['org_id']}:{customer}".encode(), json.dumps(record).encode())

    def ask(self, request: Doc) -> None:
        expected, found = self.slow.decide(request), self.fast.decide(request)
        assert found == expected
        self.seen.add(expected["reason"])


def _every_question(customer: str) -> list[Doc]:
    asked = itertools.product((100, 200), ("MOBILE", "EMAIL", "LINE", "WHATSAPP"), ("BULK", "TRANS"), (0, 1, -1, 9))
    profiles = (("INSTORE", "01"), ("WEB_ENGAGE", "01"), ("LINE", "shop"), ("WEBSITE", "old"), None)
    found = []
    for (org_id, channel, priority, unit), profile in itertools.product(asked, profiles):
        request = {"request_id": "r", "org_id": org_id, "customer_id": customer, "channel": channel} | (
            {"source": profile[0], "account_id": profile[1]} if profile else {}
        )
        request |= {"priority": priority, "org_unit_id": UNITS[org_id][unit] if unit in {0, 1} else unit}
        found.append(request)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_scenarios_have_the_same_outcomes_and_decisions_in_both(seed: int) -> None:
    both = Both()
    for kind, key, value, _ in scenario(seed, customers=5, events=700, base_ms=BASE_MS, partitions=1):
        try:
            record = json.loads(value or b"")
        except ValueError:
            continue
        if kind == "change" and key is not None and value is not None:
            both.apply(record, key, value)
        elif kind == "request" and isinstance(record, dict) and "min_position" not in record:
            expected = both.slow.answer(key, value)
            if expected.get("reason", "invalid_request") != "invalid_request":
                both.ask(record)
    for org_id, customer in sorted(both.slow.customers):
        for request in _every_question(customer):
            if request["org_id"] == org_id:
                both.ask(request)
    assert {"applied", "duplicate", "superseded", "already_opted_in", "pending", "erased"} <= both.seen
    assert {"recent_opt_in", "opted_out", "not_set_allowed"} <= both.seen or len(both.seen) > 20


# --- dense little worlds: everything happens at the same few places and moments -----------------------

IDS = st.sampled_from([f"{a}{b}" for a in "abc" for b in range(4)])
TIMES = st.one_of(st.integers(0, 3), st.integers(0, 3), st.integers(-5, 8), st.just(400_000)).map(
    lambda ms: format_instant(NOW + ms)
)
PLACES = st.fixed_dictionaries(
    {
        "profile": st.sampled_from((INSTORE, INSTORE, INSTORE, WEB, WEB, {"source": "TMALL", "account_id": "x"})),
        "channel": st.sampled_from(("MOBILE",) * 12 + ("EMAIL", "WECHAT")),
        "priority": st.sampled_from(("BULK",) * 6 + ("TRANS",)),
        "org_unit_id": st.sampled_from((NORTH,) * 4 + (SOUTH, SOUTH, -1, -1, 9)),
    }
).map(lambda place: {name: part for name, part in place.items() if name != "profile"} | place["profile"])
HEADS = st.fixed_dictionaries(
    {"event_id": IDS, "org_id": st.just(100), "customer_id": st.just("c"), "occurred_at": TIMES}
)


def _joined(*parts: Doc) -> Doc:
    return {name: value for part in parts for name, value in part.items()}


CHANGED = st.builds(
    _joined,
    HEADS,
    PLACES,
    st.fixed_dictionaries({"event": st.just("consent.changed"), "type": st.sampled_from(("OPTIN", "OPTIN", "OPTOUT"))}),
)
VERIFIED = st.builds(
    _joined, HEADS, PLACES, st.fixed_dictionaries({"event": st.just("consent.verified"), "verifies": IDS})
)
IMPORTED = st.builds(
    _joined, CHANGED, st.fixed_dictionaries({"batch_id": st.sampled_from(("b1", "b2"))})
)
UNDONE = st.builds(
    _joined, HEADS, st.fixed_dictionaries({"event": st.just("consent.batch_reverted"), "batch_id": st.just("b1")})
)
OTHERS = st.builds(
    _joined, HEADS, st.sampled_from(("customer.registered",) * 3 + ("customer.erased",)).map(lambda e: {"event": e})
)
STEPS = st.lists(st.one_of(CHANGED, CHANGED, IMPORTED, IMPORTED, VERIFIED, UNDONE, OTHERS, orgs()), max_size=25)
ASKED = [
    {"request_id": "r", "org_id": 100, "customer_id": "c", "channel": "MOBILE", "priority": priority}
    | {"org_unit_id": unit} | profile
    for priority in ("BULK", "TRANS") for unit in (NORTH, SOUTH, -1) for profile in (INSTORE, WEB, {})
]  # fmt: skip


@settings(max_examples=150)
@given(orgs(), STEPS)
def test_any_sequence_of_events_and_settings_is_weighed_alike_by_both(first: Doc, steps: list[Doc]) -> None:
    both = Both()
    version = itertools.count(1)
    for step in [first, {"event": "customer.registered"}, *steps]:
        record = step
        if "accounts" in step:
            record = {"event": "settings.changed", "event_id": "s", "org_id": 100, "occurred_at": format_instant(NOW)}
            record["settings"] = step | {"version": next(version)}
        elif len(step) == 1:
            record = {"event_id": "r", "org_id": 100, "customer_id": "c", "occurred_at": format_instant(NOW)} | step
        both.send(record)
        for request in ASKED[:6]:
            both.ask(request)
    for request in ASKED:
        both.ask(request)


@settings(max_examples=40)
@given(orgs(), st.lists(CHANGED, max_size=30))
def test_one_busy_cell_is_weighed_alike_by_both(first: Doc, changes: list[Doc]) -> None:
    both = Both()
    opening = document(**{name: first[name] for name in ("repeat_opt_in", "ou_sync", "opt_in_types", "unified")})
    head = {"org_id": 100, "occurred_at": format_instant(NOW)}
    both.send({"event": "settings.changed", "event_id": "s", "settings": opening} | head)
    for n, change in enumerate(changes):
        both.send(change | INSTORE | {"event_id": f"{n % 7}-{n}", "channel": "MOBILE", "priority": "BULK"})
        both.ask(ASKED[n % len(ASKED)])
    for request in ASKED:
        both.ask(request)


def test_liberal_denied_names_the_type_of_the_profile_that_was_not_set() -> None:
    both = Both()
    rule = {"source": "WEB_ENGAGE", "type": "RESTRICTED"}
    doc = document(unified={"enabled": True, "policy": "liberal"}, opt_in_types=[rule])
    head = {"org_id": 100, "occurred_at": format_instant(NOW)}
    both.send({"event": "settings.changed", "event_id": "s", "settings": doc} | head)
    stop = {"event": "consent.changed", "event_id": "e", "customer_id": "c", "type": "OPTOUT"} | head | INSTORE
    both.send(stop | {"channel": "MOBILE", "priority": "BULK", "org_unit_id": NORTH})
    request = ASKED[0]
    assert both.fast.decide(request)["reason"] == "liberal_denied"
    assert both.fast.decide(request) == both.slow.decide(request)
