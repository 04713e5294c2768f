"""SMS and missed calls, from `consent.inbound` to the customers who have the number."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from streams import topics
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import AUDIT, CHANGES, SHORT_SESSION, Doc, Place, Worker, World
from tests.integration.orgs import BASE_MS, INSTORE, NORTH, SOUTH, WEB, Org, dump
from tests.model.wire import time_text

pytestmark = pytest.mark.kafka

INBOUND = topics.INBOUND.name
SHORT_CODE, CALL_IN, CALL_OUT = "1234", "+49 30 1001", "+49 30 1002"
_numbers = count(1)


def mobile(**changes: Any) -> list[Doc]:
    """SMS for NORTH, missed calls for SOUTH."""
    sms = {"mode": "SMS", "number": SHORT_CODE, "commands": {"OPTIN": "START", "OPTOUT": "Stop"}}
    calls = {"mode": "MISSED_CALL", "numbers": {"OPTIN": CALL_IN, "OPTOUT": CALL_OUT}}
    return [
        INSTORE | {"org_unit_id": NORTH, "priority": "BULK"} | sms | changes,
        WEB | {"org_unit_id": SOUTH, "priority": "BULK"} | calls,
    ]


@pytest.fixture(scope="module", autouse=True)
def running(world: World, worker: Worker) -> Worker:
    """The one worker of this module."""
    return worker


class Phone(Org):
    """An org with numbers, and a phone that texts and calls it."""

    def __init__(self, world: World, **settings: Any) -> None:
        super().__init__(world, mobile=mobile(), default_region="DE", require_registration=True, **settings)
        #: Nobody else's.
        self.number = f"+4917012{next(_numbers):05d}"

    def has(self, *customers: str) -> None:
        for customer in customers:
            self.register(customer_id=customer, identifiers={"mobile": self.number})

    def sms(self, said_text: str, at: int = 0, **fields: Any) -> Place:
        said = {"event": "sms.received", "text": said_text, "message_id": f"m-{next(_numbers)}", "to": SHORT_CODE}
        return self.inbound(at, **said | fields)

    def call(self, to: str, at: int = 0, **fields: Any) -> Place:
        return self.inbound(at, **{"event": "call.missed", "call_id": f"k-{next(_numbers)}", "to": to} | fields)

    def inbound(self, at: int, **fields: Any) -> Place:
        body = {"org_id": self.id, "from": self.number, "received_at": time_text(BASE_MS + at)} | fields
        key = fields.pop("key", f"{self.id}:mobile:{body['from']}")
        return self.world.send(INBOUND, key.encode(), dump({n: v for n, v in body.items() if n != "key"}))

    def became(self, place: Place) -> tuple[str, str | None, int]:
        """Outcome, reason and number of events of the inbound record at this place, when it is audited."""
        found = self.world.log(AUDIT).wait(
            f"the audit of {place}",
            lambda r: r.body["record"] == "inbound" and r.body["position"] == place._asdict(),
        ).body
        return found["outcome"], found["outcome_reason"], len(found["events"])

    def status(self, customer: str, **cell: Any) -> bool:
        """Whether the customer may get a message."""
        return bool(self.ask(customer_id=customer, **cell)["eligible"])


TAKEN_BY_ONE = ("taken", None, 1)


def test_stop_from_a_number_that_two_customers_share_opts_both_out(world: World) -> None:
    org = Phone(world)
    org.has("a", "b")
    place = org.sms("STOP")  # right behind the registrations
    assert org.became(place) == ("taken", None, 2)
    assert [org.ask(customer_id=customer)["reason"] for customer in "ab"] == ["opted_out", "opted_out"]


def test_commands_match_without_regard_to_case_and_space_and_start_opts_in(world: World) -> None:
    org = Phone(world, opt_in_types=[{"channel": "MOBILE", "type": "RESTRICTED"}])
    org.has("a")
    assert not org.status("a")
    assert org.became(org.sms("  start\n", 1)) == TAKEN_BY_ONE
    assert org.status("a")
    assert org.became(org.sms("sToP", 2)) == TAKEN_BY_ONE
    assert not org.status("a")


def test_a_missed_call_is_one_number_for_each_action(world: World) -> None:
    org = Phone(world)
    org.has("a")
    assert org.became(org.call("030 1002")) == TAKEN_BY_ONE
    assert org.ask(customer_id="a", **WEB | {"org_unit_id": SOUTH})["reason"] == "opted_out"
    assert org.became(org.call(CALL_IN, 1)) == TAKEN_BY_ONE
    assert org.ask(customer_id="a", **WEB | {"org_unit_id": SOUTH})["reason"] == "opted_in"


def test_a_reply_with_the_word_of_the_message_verifies_a_double_opt_in(world: World) -> None:
    org = Phone(world, opt_in_types=[{"channel": "MOBILE", "type": "DOUBLE"}])
    org.has("a", "b")
    first = org.opt_in_event(customer_id="a")
    org.send(first)
    assert org.ask(customer_id="a")["reason"] == "verification_pending"
    notice = world.log(topics.NOTIFICATIONS.name).wait("the message", lambda r: r.body["event_id"] == first["event_id"])
    word = notice.body["keyword"]
    assert org.became(org.sms(word, 5, **{"from": "+4915550000009"})) == ("ignored", "unknown_command", 0)
    assert org.became(org.sms(f" {word.lower()} ", 6)) == TAKEN_BY_ONE
    assert org.verdict(customer_id="a") == (True, "opted_in")
    assert org.verdict(customer_id="b") == (False, "not_set_denied")


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda org: org.sms("What is this?"), "unknown_command"),
        (lambda org: org.sms(""), "unknown_command"),
        (lambda org: org.sms("STOP", to="999"), "unknown_number"),
        (lambda org: org.call(SHORT_CODE), "unknown_command"),
        (lambda org: org.sms("STOP", to=CALL_OUT), "unknown_command"),
        (lambda org: org.sms("STOP", **{"from": "+4915550000001"}), "unknown_identifier"),
    ],
)
def test_what_means_nothing_is_audited_and_silent(world: World, say: Any, why: str) -> None:
    org = Phone(world)
    org.has("a")
    before = sum(world.ends(CHANGES))
    assert org.became(say(org)) == ("ignored", why, 0)
    assert sum(world.ends(CHANGES)) == before


def test_the_audit_has_neither_the_callers_number_nor_the_text(world: World) -> None:
    org = Phone(world)
    org.has("a")
    place = org.sms("something private", note="kept")
    org.became(place)
    audit = next(r for r in world.log(AUDIT).records if r.key == org.key("") and r.body["record"] == "inbound")
    assert audit.body["input"]["note"] == "kept"
    assert org.number.encode() not in (audit.value or b"") + (audit.key or b"")
    assert b"private" not in (audit.value or b"")


def test_the_same_message_twice_counts_once(world: World) -> None:
    org = Phone(world)
    org.has("a")
    for _ in range(2):
        assert org.became(org.sms("STOP", message_id="the-same")) == TAKEN_BY_ONE
    outcomes = [
        (r.body["outcome"], r.body["outcome_reason"])
        for r in world.read(AUDIT)
        if r.key == org.key("a") and r.body["record"] == "change" and r.body["input"]["event"] == "consent.changed"
    ]
    assert outcomes == [("applied", None), ("ignored", "duplicate")]


def test_a_number_that_was_given_up_or_erased_means_nobody(world: World) -> None:
    org = Phone(world)
    org.has("a", "b")
    org.register(customer_id="a", identifiers={"mobile": "+4915559999999"})
    assert org.became(org.sms("STOP", 1)) == TAKEN_BY_ONE
    org.erase(customer_id="b")
    assert org.became(org.sms("STOP", 2)) == ("ignored", "unknown_identifier", 0)
    org.has("b")
    assert org.became(org.sms("STOP", 3)) == TAKEN_BY_ONE


def test_a_number_is_the_same_however_it_is_written(world: World) -> None:
    org = Phone(world)
    national = "0" + org.number[3:]
    org.register(customer_id="a", identifiers={"mobile": f"{national[:4]} {national[4:7]}-{national[7:]}"})
    assert org.became(org.sms("STOP")) == TAKEN_BY_ONE
    # Under a key of its own writing it goes to the number's home first.
    sent = org.sms("START", 1, **{"from": national, "message_id": "by-another-key"})
    home = world.home(f"{org.id}:mobile:{org.number}".encode())
    found = world.log(AUDIT).wait(
        "the audit of the record at its home",
        lambda r: r.body["record"] == "inbound" and r.body["input"].get("message_id") == "by-another-key",
    )
    assert found.partition == home
    assert found.body["outcome"] == "taken"
    assert sent.partition == home or found.body["position"] != sent._asdict()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"received_at": "yesterday"}, "invalid_field"),
        ({"text": 5}, "invalid_field"),
        ({"event": "fax.received"}, "unknown_event"),
        ({"org_id": 1}, "key_mismatch"),
        ({"key": "1:mobile:+4917012345678"}, "key_mismatch"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter(world: World, change: Doc, code: str) -> None:
    org = Phone(world)
    if "org_id" in change:
        change = {"org_id": Phone(world).id}  # another org that exists
    place = org.sms("STOP", **change)
    assert org.dead_letter(place, INBOUND).header("consent.error") == code


def test_an_org_without_settings_is_a_dead_letter(world: World) -> None:
    org = Phone(world)
    place = org.sms("STOP", org_id=999_999, key="999999:mobile:+49170")
    assert org.dead_letter(place, INBOUND).header("consent.error") == "unknown_org"


def test_no_word_is_lost_when_workers_are_killed_and_each_counts_once(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    """Texts come in while the two workers are killed in turn; the customers registered in between."""
    world = make_world()
    workers = [make_worker(world, **SHORT_SESSION, CONSENT_INSTANCE_ID=name).start() for name in ("a", "b")]
    for worker in workers:
        worker.ready()
    org = Phone(world)
    phones = [f"+4917013{n:05d}" for n in range(60)]
    said = {}
    for n, number in enumerate(phones):
        org.register(customer_id=f"c-{n}", identifiers={"mobile": number})
        org.register(customer_id=f"d-{n}", identifiers={"mobile": number})
        said[number] = org.sms("STOP", **{"from": number, "key": f"{org.id}:mobile:{number}"})
        if n % 20 == 10:
            workers[n // 20 % 2].kill()
            workers[n // 20 % 2].start()
    for place in said.values():
        assert org.became(place) == ("taken", None, 2)
    world.settle()
    applied = [
        r.key
        for r in world.read(AUDIT)
        if r.body["record"] == "change" and r.body["outcome"] == "applied"
    ]
    assert sorted(applied) == sorted(org.key(f"{c}-{n}") for c in "cd" for n in range(60))
    inbound = [r.header("ce_id") for r in world.read(AUDIT) if r.body["record"] == "inbound"]
    assert len(inbound) == len(set(inbound)) == len(phones)
