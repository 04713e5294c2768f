"""Which message an event causes: one test for one sentence of domain section 8."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.changes import apply_event
from streams.domain.messages import Message, keyword_of, message_of, notification_id, written
from streams.domain.orgs import MOST_NAME, Org
from streams.domain.state import State, decode_state
from tests.domain.fast import INSTORE, NORTH, NOW, SOUTH, WEB, Doc, an_org, change, verification

DOUBLE = [{"channel": "MOBILE", "type": "DOUBLE"}]
BOTH = [
    {"kind": "confirm_opt_in", "texts": {"en": "Welcome", "de": "Willkommen"}},
    {"kind": "confirm_opt_out", "texts": {"en": "Bye", "pt": "Adeus", "zh-Hant": "再見"}},
]


class Customer:
    """A customer of an org; tells the message that each event causes. Its state is written down after each."""

    def __init__(self, **settings: Any) -> None:
        self.org: Org = an_org(**({"messages": BOTH} | settings))
        self.state: State | None = None

    def send(self, event: Doc) -> Message | None:
        applied = apply_event(self.org, self.state, dict(event), NOW)
        message = message_of(self.org, event, applied)
        self.state = decode_state(None if applied.state is None else applied.state.encode())
        return message

    def told(self, event: Doc) -> str | None:
        message = self.send(event)
        return None if message is None else message.text

    def register(self, language: str | None) -> None:
        event = {"event": "customer.registered", "event_id": "r", "org_id": 100, "customer_id": "c"}
        self.state = apply_event(self.org, self.state, event | {"occurred_at": NOW, "language": language}, NOW).state


# --- confirmations -----------------------------------------------------------------------------------


def test_an_opt_in_and_an_opt_out_are_confirmed_where_the_org_configured_it() -> None:
    customer = Customer()
    assert customer.send(change("OPTIN", "a", 0)) == ("confirm_opt_in", "en", "Welcome")
    assert customer.send(change("OPTOUT", "b", 1)) == ("confirm_opt_out", "en", "Bye")


def test_nothing_is_confirmed_where_the_org_configured_nothing() -> None:
    assert Customer(messages=[]).told(change("OPTIN", "a", 0)) is None
    assert Customer(messages=BOTH[1:]).told(change("OPTIN", "a", 0)) is None


@pytest.mark.parametrize(
    ("field", "value"), [("source", "WEB_ENGAGE"), ("account_id", "02"), ("channel", "EMAIL"), ("org_unit_id", SOUTH)]
)
def test_a_confirmation_of_another_place_is_not_meant(field: str, value: Any) -> None:
    accounts = [INSTORE | {"channels": ["MOBILE", "EMAIL"]}, WEB | {"account_id": "02", "channels": []}]
    customer = Customer(messages=[BOTH[0] | {field: value}], accounts=accounts)
    assert customer.told(change("OPTIN", "a", 0)) is None


def test_the_entry_that_names_most_of_the_place_wins_then_the_first() -> None:
    def entry(text: str, **place: Any) -> Doc:
        return {"kind": "confirm_opt_in", "texts": {"en": text}} | place

    customer = Customer(
        messages=[
            entry("any"),
            entry("unit", org_unit_id=NORTH),
            entry("channel", channel="MOBILE"),
            entry("both", channel="MOBILE", org_unit_id=SOUTH),
            entry("another kind", channel="MOBILE", org_unit_id=NORTH) | {"kind": "confirm_opt_out"},
        ]
    )
    assert customer.told(change("OPTIN", "a", 0)) == "unit"
    assert customer.told(change("OPTIN", "b", 0, unit=SOUTH)) == "both"
    assert customer.told(change("OPTIN", "c", 0, unit=-1)) == "channel"
    assert customer.told(change("OPTIN", "d", 0, channel="EMAIL", unit=-1)) == "any"


def test_transactional_changes_are_never_confirmed() -> None:
    customer = Customer()
    assert customer.told(change("OPTIN", "a", 0, priority="TRANS")) is None
    assert customer.told(change("OPTOUT", "b", 1, priority="TRANS")) is None


@pytest.mark.parametrize("origin", ["API", "IMPORT"])
def test_changes_of_the_api_and_of_an_import_are_never_confirmed(origin: str) -> None:
    customer = Customer()
    assert customer.told(change("OPTIN", "a", 0, origin=origin)) is None
    assert customer.told(change("OPTOUT", "b", 1, origin=origin)) is None


@pytest.mark.parametrize("origin", ["SMS", "MISSED_CALL", "EMAIL_LINK", "CONSOLE", "PRODUCER"])
def test_changes_that_came_any_other_way_are_confirmed(origin: str) -> None:
    assert Customer().told(change("OPTIN", "a", 0, origin=origin)) == "Welcome"


def test_ignored_changes_are_never_confirmed() -> None:
    customer = Customer()
    assert customer.told(change("OPTIN", "a", 0)) == "Welcome"
    assert customer.told(change("OPTIN", "a", 0)) is None, "duplicate"
    assert customer.told(change("OPTIN", "b", 5)) is None, "already opted in"
    assert customer.told(change("OPTOUT", "c", -5)) is None, "superseded"
    strict = Customer(require_registration=True)
    assert strict.told(change("OPTIN", "a", 0)) is None, "not registered"
    assert customer.told(verification("z", "d", 6)) is None, "verification unknown"


def test_what_counts_as_the_most_recent_consent_again_is_confirmed_again() -> None:
    customer = Customer(repeat_opt_in="refresh")
    assert [customer.told(change("OPTIN", name, at)) for at, name in enumerate("ab")] == ["Welcome", "Welcome"]
    assert [customer.told(change("OPTOUT", name, at)) for at, name in enumerate("cd", 2)] == ["Bye", "Bye"]


def test_a_synced_change_is_confirmed_once_for_the_unit_it_was_made_on() -> None:
    messages = [BOTH[0] | {"org_unit_id": SOUTH}]
    synced = Customer(messages=messages, ou_sync={"opt_in": True})
    assert synced.told(change("OPTIN", "a", 0, unit=NORTH)) is None
    own = Customer(messages=messages, ou_sync={"opt_in": True})
    assert own.told(change("OPTIN", "a", 0, unit=SOUTH)) == "Welcome"


def test_a_change_that_lost_its_own_cell_is_not_confirmed_even_where_it_wins_others_by_sync() -> None:
    customer = Customer(ou_sync={"opt_out": "any"})
    customer.send(change("OPTIN", "a", 10, unit=NORTH))
    late = change("OPTOUT", "b", 5, unit=NORTH)
    applied = apply_event(customer.org, customer.state, dict(late), NOW)
    assert (applied.outcome, [cell["synced"] for cell in applied.cells]) == ("applied", [True, True])
    assert message_of(customer.org, late, applied) is None


# --- verifications -----------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["API", "IMPORT", "SMS"])
def test_a_double_opt_in_is_asked_to_be_verified_however_it_came_and_without_any_configuration(origin: str) -> None:
    message = Customer(messages=[], opt_in_types=DOUBLE).send(change("OPTIN", "a", 0, origin=origin, language="de"))
    assert message is not None
    assert (message.kind, message.language) == ("verify", "en")
    assert "{link}" in message.text


def test_the_orgs_own_text_asks_for_the_verification() -> None:
    messages = [{"kind": "verify", "channel": "MOBILE", "texts": {"en": "Reply {keyword}", "de": "Antworte {keyword}"}}]
    customer = Customer(messages=messages, opt_in_types=DOUBLE)
    assert customer.told(change("OPTIN", "a", 0, language="de")) == "Antworte {keyword}"


def test_every_pending_entry_is_asked_for_once() -> None:
    customer = Customer(messages=[], opt_in_types=DOUBLE)
    events = [change("OPTIN", "a", 0), change("OPTIN", "a", 0), change("OPTIN", "b", 5), change("OPTIN", "c", 3)]
    assert [customer.send(event) is not None for event in events] == [True, False, True, False]


def test_a_verified_opt_in_is_confirmed_and_one_on_a_verified_one_is_neither_asked_for_nor_confirmed() -> None:
    customer = Customer(opt_in_types=DOUBLE)
    customer.send(change("OPTIN", "a", 0, origin="SMS"))
    assert customer.send(verification("a", "v", 5)) == ("confirm_opt_in", "en", "Welcome")
    assert customer.told(verification("a", "w", 6)) is None
    assert customer.told(change("OPTIN", "b", 7)) is None


@pytest.mark.parametrize("origin", ["API", "IMPORT"])
def test_the_verified_opt_in_is_confirmed_by_the_origin_of_its_pending_entry(origin: str) -> None:
    customer = Customer(opt_in_types=DOUBLE)
    customer.send(change("OPTIN", "a", 0, origin=origin))
    assert customer.told(verification("a", "v", 5)) is None


def test_a_transactional_opt_in_is_never_pending_so_it_is_never_verified() -> None:
    assert Customer(messages=[], opt_in_types=DOUBLE).told(change("OPTIN", "a", 0, priority="TRANS")) is None


# --- language ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_event", "of_customer", "default", "language"),
    [
        ("pt", "zh-Hant", "en", "pt"),
        (None, "zh-Hant", "pt", "zh-Hant"),
        ("fr", "zh-hant-TW", "pt", "zh-Hant"),
        ("fr", "fr", "pt-BR", "pt"),
        ("PT-br", "en", "en", "pt"),
        ("pt-BR", "en", "en", "pt"),
        ("fr", None, "fr", "en"),
        (None, None, "en", "en"),
    ],
)
def test_the_language_is_the_events_else_the_customers_else_the_orgs_else_english(
    of_event: str | None, of_customer: str | None, default: str, language: str
) -> None:
    customer = Customer(default_language=default)
    customer.register(of_customer)
    message = customer.send(change("OPTOUT", "a", 0, language=of_event))
    assert message is not None
    assert message.language == language


def test_a_verification_has_no_language_of_its_own_so_the_customers_counts() -> None:
    customer = Customer(opt_in_types=DOUBLE)
    customer.register("de")
    customer.send(change("OPTIN", "a", 0, language="en"))
    assert customer.told(verification("a", "v", 5)) == "Willkommen"


# --- words -------------------------------------------------------------------------------------------


def test_the_placeholders_are_the_names_the_channel_the_link_and_the_keyword() -> None:
    org = an_org(name="Shop", org_units=[{"id": NORTH, "name": "North"}, {"id": SOUTH}])
    message = Message("verify", "en", "{org}/{org_unit}/{channel}/{link}/{keyword} {{x}}")
    assert written(message, org, change("OPTIN", "a", 0), "L", "K") == "Shop/North/MOBILE/L/K {x}"
    assert written(message, org, change("OPTIN", "a", 0, unit=SOUTH), "L", "K").startswith("Shop/Shop/")
    assert written(message, org, change("OPTIN", "a", 0, unit=-1), "L", "K").startswith("Shop/Shop/")


def test_an_org_without_a_name_is_called_by_its_number() -> None:
    message = Message("confirm_opt_in", "en", "{org} {org_unit}")
    assert written(message, an_org(), change("OPTIN", "a", 0), None, None) == "100 100"


def test_a_text_full_of_a_long_name_stays_writable() -> None:
    org = an_org(name="n" * 100_000, org_units=[{"id": NORTH, "name": "u" * 100_000}])
    text = written(Message("confirm_opt_in", "en", "{org}{org_unit}" * 130), org, change("OPTIN", "a", 0), None, None)
    assert len(text) == 260 * MOST_NAME


IDS = st.tuples(st.integers(0, 3), st.text("ab:,\"", min_size=1, max_size=3), st.text("ab:,\"", min_size=1, max_size=3))


@given(IDS, IDS)
def test_the_same_entry_has_the_same_keyword_and_id_and_others_have_others(
    one: tuple[int, str, str], other: tuple[int, str, str]
) -> None:
    assert (keyword_of(*one) == keyword_of(*other)) == (one == other)
    assert (notification_id(*one, "verify") == notification_id(*other, "verify")) == (one == other)
    assert notification_id(*one, "verify") != notification_id(*one, "confirm_opt_in")


@given(st.text(max_size=9))
def test_a_keyword_is_six_letters_that_nobody_mistakes(event_id: str) -> None:
    keyword = keyword_of(1, "c", event_id)
    assert len(keyword) == 6
    assert keyword.upper() == keyword
    assert set(keyword).isdisjoint("01AEIOULBGNSZ5")


def test_keywords_and_ids_stay_what_they_are_from_version_to_version() -> None:
    assert keyword_of(100, "565039505", "e-1") == "VKPD64"
    assert notification_id(100, "565039505", "e-1", "verify") == "d3debb4a2ff0aee9f980dda3a49b314d"
