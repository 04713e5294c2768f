"""Bad input ends as a dead letter with its code, unchanged, and the worker goes on (contract section 6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import AUDIT, CHANGES, DEADLETTER, DECISIONS, REQUESTS, Doc, Place, Record, Worker, World
from tests.integration.orgs import BASE_MS, Org, dump
from tests.model.wire import time_text

pytestmark = pytest.mark.kafka

CONNECT = ("topic", "partition", "offset", "stage", "exception.class.name", "exception.message")
OWN_HEADERS = [("ce_id", b"e-1"), ("x-trace", b"\x00\xff"), ("x-trace", b"again"), ("x-empty", b"")]
DEFAULT_LIMIT = 262_144


@pytest.fixture
def org(world: World, worker: Worker) -> Iterator[Org]:
    """An org, whose customer gets an answer afterwards: the worker has gone on."""
    org = Org(world)
    yield org
    assert worker.running, worker.errors
    assert org.verdict(customer_id="someone else") == (True, "not_set_allowed")


def check(org: Org, letter: Record, place: Place, topic: str, key: Any, value: Any) -> str:
    """The letter holds the record as it came, and says where it stood; returns its code and message."""
    assert (letter.partition, letter.key, letter.value) == (place.partition, key, value)
    assert list(letter.headers[: len(OWN_HEADERS)]) == OWN_HEADERS
    told = [letter.header(f"__connect.errors.{name}") for name in CONNECT]
    assert told[:3] == [org.world.config.topic(topic), str(place.partition), str(place.offset)]
    assert all(told)
    code, message = letter.header("consent.error"), told[-1]
    assert "\n" not in f"{message}"
    return f"{code}|{message}"


BadChange = Callable[[Org], tuple[bytes, bytes | None]]


def broken(**fields: Any) -> BadChange:
    """An opt-in with some fields changed, or left out where they are `...`."""

    def make(org: Org) -> tuple[bytes, bytes | None]:
        event = {name: field for name, field in (org.opt_in_event() | fields).items() if field is not ...}
        return org.key(), dump(event)

    return make


def raw(value: bytes | None) -> BadChange:
    return lambda org: (org.key(), value)


def other_org(org: Org) -> tuple[bytes, bytes | None]:
    return b"987654:c", dump(org.opt_in_event() | {"org_id": 987654})


def bad_settings(**fields: Any) -> BadChange:
    def make(org: Org) -> tuple[bytes, bytes | None]:
        event = org.event("settings.changed") | {"settings": org.document | {"version": 2} | fields}
        return f"{org.id}:".encode(), dump(event)

    return make


LONG = time_text(BASE_MS + 30 * 86_400_000)
BAD_CHANGES: list[tuple[str, str, BadChange]] = [
    ("malformed_json", "JSON", raw(b'{"event":')),
    ("malformed_json", "JSON", raw(b"")),
    ("malformed_json", "array", raw(b"[]")),
    ("malformed_json", "null", raw(b"null")),
    ("malformed_json", "JSON", raw(b'{"event":NaN}')),
    ("malformed_json", "JSON", raw(b"[" * 20_000)),
    ("malformed_json", "nested", broken(unknown=json.loads("[" * 300 + "]" * 300), proof={})),
    ("malformed_json", "no value", raw(None)),
    ("not_utf8", "UTF-8", raw(b'{"event":"\xff"}')),
    ("unknown_event", "event", broken(event="consent.revoked")),
    ("invalid_field", "event", broken(event=["consent.changed"])),
    ("invalid_field", "event", broken(event=...)),
    ("invalid_field", "event_id", broken(event_id="")),
    ("invalid_field", "event_id", broken(event_id="e" * 129)),
    ("invalid_field", "occurred_at", broken(occurred_at=...)),
    ("invalid_field", "occurred_at", broken(occurred_at="2026-11-21T10:00:00")),
    ("invalid_field", "occurred_at", broken(occurred_at=1_795_255_200_000)),
    ("invalid_field", "org_id", broken(org_id="100")),
    ("invalid_field", "org_id", broken(org_id=10**30)),
    ("invalid_field", "customer_id", broken(customer_id=None)),
    ("invalid_field", "source", broken(source="FAX")),
    ("invalid_field", "account_id", broken(account_id=1)),
    ("invalid_field", "channel", broken(channel="FAX")),
    ("invalid_field", "priority", broken(priority="URGENT")),
    ("invalid_field", "type", broken(type="MAYBE")),
    ("invalid_field", "org_unit_id", broken(org_unit_id=True)),
    ("invalid_field", "org_unit_id", broken(org_unit_id=1.5)),
    ("invalid_field", "origin", broken(origin="FAX")),
    ("invalid_field", "proof", broken(proof="a text")),
    ("invalid_field", "verifies", broken(event="consent.verified")),
    ("invalid_field", "identifiers", broken(event="customer.registered", identifiers="a text")),
    ("invalid_field", "settings", bad_settings(accounts=[{"source": "INSTORE"}])),
    ("invalid_field", "opt_in_types", bad_settings(opt_in_types=[{"org_unit_id": 4711, "type": "SINGLE"}])),
    ("invalid_field", "org_id", bad_settings(org_id=1)),
    ("key_mismatch", "key", broken(customer_id="d")),
    ("occurred_in_future", "occurred_at", broken(occurred_at=LONG)),
    ("occurred_in_future", "occurred_at", broken(event="customer.registered", occurred_at=LONG)),
    ("unknown_org", "org_id", other_org),
    ("unknown_account", "account_id", broken(account_id="02")),
    ("unknown_org_unit", "org_unit_id", broken(org_unit_id=4711)),
    ("channel_not_mapped", "channel", broken(channel="WHATSAPP")),
    ("too_large", str(DEFAULT_LIMIT), broken(proof={"page": "x" * DEFAULT_LIMIT})),
]


@pytest.mark.parametrize(("code", "names", "make"), BAD_CHANGES)
def test_a_bad_change_is_a_dead_letter(org: Org, code: str, names: str, make: BadChange) -> None:
    key, value = make(org)
    place = org.world.send(CHANGES, key, value, headers=OWN_HEADERS)
    found, message = check(org, org.dead_letter(place), place, CHANGES, key, value).split("|", 1)
    assert found == code
    assert names in message
    assert org.verdict() == (True, "not_set_allowed"), "it was applied"


@pytest.mark.parametrize("key", [None, b""])
def test_a_change_without_a_key_is_a_dead_letter_where_it_stands(org: Org, key: bytes | None) -> None:
    for partition in range(4):
        value = dump(org.opt_in_event())
        place = org.world.send(CHANGES, key, value, partition, OWN_HEADERS)
        assert check(org, org.dead_letter(place), place, CHANGES, key, value).startswith("missing_key|")


def test_a_key_that_is_not_utf8_is_a_mismatch(org: Org) -> None:
    value = dump(org.opt_in_event())
    place = org.world.send(CHANGES, b"\xff\xfe", value, headers=OWN_HEADERS)
    assert check(org, org.dead_letter(place), place, CHANGES, b"\xff\xfe", value).startswith("key_mismatch|")


def test_all_faults_of_a_record_are_named(org: Org) -> None:
    key, value = broken(channel="FAX", priority=1, type=..., occurred_at="now")(org)
    message = org.dead_letter(org.world.send(CHANGES, key, value)).header("__connect.errors.exception.message") or ""
    assert [name for name in ("channel", "priority", "type", "occurred_at") if name not in message] == []


def test_five_minutes_ahead_are_accepted_and_an_org_can_say_otherwise(org: Org) -> None:
    now = org.world.read(CHANGES)[-1].timestamp
    assert org.said(org.opt_in(occurred_at=time_text(now + 290_000))) == ("applied", None)
    org.configure(max_future_ms=0)
    place = org.opt_out(occurred_at=time_text(now + 290_000))
    assert org.dead_letter(place).header("consent.error") == "occurred_in_future"


def test_unknown_fields_are_kept_in_the_audit_and_secrets_are_not(org: Org) -> None:
    event = org.opt_in_event() | {"not_known": {"a": [1, None]}, "proof": {"ip": "192.0.2.1"}, "reason": "é\u2028"}
    assert org.audit(org.send(event))["input"] == {name: event[name] for name in event if name != "proof"}
    event = org.event("customer.registered", identifiers={"mobile": "+4915112345678"}, language="de")
    assert org.audit(org.send(event))["input"] == {name: event[name] for name in event if name != "identifiers"}


def test_a_record_of_exactly_the_limit_is_read(org: Org) -> None:
    key, value = broken(proof={"page": ""})(org)
    assert value is not None
    room = DEFAULT_LIMIT - len(key) - len(value)
    full = value.replace(b'"page":""', b'"page":"%b"' % (b"x" * room))
    assert org.said(org.world.send(CHANGES, key, full)) == ("applied", None)
    more = full.replace(b"xx", b"xxx", 1)
    assert org.dead_letter(org.world.send(CHANGES, key, more)).header("consent.error") == "too_large"


def test_the_largest_record_that_the_broker_takes_is_a_dead_letter_too(org: Org) -> None:
    value = b'{"x":"' + b"y" * 1_000_000
    place = org.world.send(CHANGES, org.key(), value)
    assert org.dead_letter(place).value == value


# --- misrouted ---------------------------------------------------------------------------------------


def metric(worker: Worker, name: str) -> float:
    lines = httpx.get(f"{worker.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def copies(world: World, topic: str, value: bytes) -> list[Record]:
    return [record for record in world.read(topic) if record.value == value]


def test_a_misrouted_change_is_sent_home_once_and_counted(org: Org, worker: Worker) -> None:
    counted = metric(worker, "consent_misrouted_total")
    away = (org.home() + 1) % 4
    value = dump(org.opt_in_event(type="OPTOUT"))
    place = org.world.send(CHANGES, org.key(), value, away, OWN_HEADERS)
    org.world.settle()
    assert org.verdict() == (False, "opted_out")
    stray, home = sorted(copies(org.world, CHANGES, value), key=lambda record: record.partition != away)
    assert (stray.partition, home.partition, home.key) == (away, org.home(), org.key())
    assert list(home.headers[: len(OWN_HEADERS)]) == OWN_HEADERS
    assert org.said(home.place) == ("applied", None)
    assert metric(worker, "consent_misrouted_total") == counted + 1
    audited = [record.body["position"] for record in org.world.read(AUDIT) if record.body["record"] == "change"]
    assert place._asdict() not in audited


def test_a_misrouted_request_is_answered_once_from_home(org: Org) -> None:
    request = org.request()
    away = (org.home() + 2) % 4
    org.world.send(REQUESTS, org.key(), dump(request), away)
    decision = org.decision(request["request_id"])
    org.world.settle()
    found = [r for r in org.world.read(DECISIONS) if r.body["request_id"] == request["request_id"]]
    assert [(r.partition, r.body["as_of"]["partition"]) for r in found] == [(org.home(), org.home())]
    assert decision["eligible"] is True


def test_a_misrouted_bad_record_is_a_dead_letter_of_its_home(org: Org) -> None:
    away = (org.home() + 1) % 4
    value = b"not json " + org.key()
    org.world.send(CHANGES, org.key(), value, away)
    org.world.settle()
    letters = copies(org.world, DEADLETTER, value)
    assert [(letter.partition, letter.header("consent.error")) for letter in letters] == [
        (org.home(), "malformed_json")
    ]


def test_settings_are_at_home_everywhere(org: Org) -> None:
    before = len(org.world.read(CHANGES))
    places = org.configure()
    assert [org.said(place) for place in places] == [("settings_applied", None)] * 4
    assert len(org.world.read(CHANGES)) == before + 4


# --- requests ----------------------------------------------------------------------------------------

BAD_FIELDS: list[Doc] = [
    {"channel": "FAX"},
    {"channel": ...},
    {"priority": 1},
    {"org_unit_id": "north"},
    {"source": "FAX"},
    {"org_id": "100"},
    {"customer_id": ""},
    {"requested_at": "now"},
    {"min_position": 7},
    {"min_position": {"partition": 0, "offset": -1}},
    {"max_wait_ms": -1},
    {"max_wait_ms": "soon"},
]


def bad_request(org: Org, fields: Doc) -> Doc:
    return {name: field for name, field in (org.request() | fields).items() if field is not ...}


def answer(org: Org, request: Doc, key: bytes | None, partition: int | None = None) -> tuple[Doc, str]:
    """The decision on a bad request, and the code and message of its dead letter."""
    value = dump(request)
    place = org.world.send(REQUESTS, key, value, partition, OWN_HEADERS)
    told = check(org, org.dead_letter(place, REQUESTS), place, REQUESTS, key, value)
    return org.decision(request["request_id"]), told


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_a_request_that_can_only_be_identified_is_answered_and_a_dead_letter(org: Org, fields: Doc) -> None:
    decision, told = answer(org, bad_request(org, fields), org.key())
    assert (decision["eligible"], decision["reason"], decision["settings_version"]) == (False, "invalid_request", None)
    assert told.startswith("invalid_field|")
    assert next(iter(fields)) in told


def test_a_request_whose_key_does_not_agree_is_invalid(org: Org) -> None:
    decision, told = answer(org, org.request(customer_id="d"), org.key("c"))
    assert (decision["reason"], told.split("|")[0]) == ("invalid_request", "key_mismatch")


@pytest.mark.parametrize("key", [None, b""])
def test_a_request_without_a_key_is_invalid(org: Org, key: bytes | None) -> None:
    decision, told = answer(org, org.request(), key, 1)
    assert (decision["reason"], told.split("|")[0]) == ("invalid_request", "missing_key")


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("malformed_json", b"{"),
        ("malformed_json", b"[]"),
        ("malformed_json", None),
        ("not_utf8", b'{"request_id":"\xff"}'),
        ("invalid_field", b"{}"),
        ("invalid_field", b'{"request_id":5}'),
        ("invalid_field", b'{"request_id":""}'),
        ("too_large", b'{"x":"' + b"y" * DEFAULT_LIMIT + b'"}'),
    ],
)
def test_a_request_that_nobody_could_match_an_answer_to_is_only_a_dead_letter(
    org: Org, code: str, value: bytes | None
) -> None:
    decided = len(org.world.read(DECISIONS))
    place = org.world.send(REQUESTS, org.key(), value, headers=OWN_HEADERS)
    assert check(org, org.dead_letter(place, REQUESTS), place, REQUESTS, org.key(), value).startswith(f"{code}|")
    org.world.settle()
    assert len(org.world.read(DECISIONS)) == decided


# --- another limit -----------------------------------------------------------------------------------


def test_the_limit_of_a_record_can_be_set(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    worker = make_worker(world, CONSENT_MAX_RECORD_BYTES="2048").start().ready()
    org = Org(world)
    key, value = broken(proof={"page": "x" * 2048})(org)
    assert org.dead_letter(world.send(CHANGES, key, value)).header("consent.error") == "too_large"
    assert org.verdict() == (True, "not_set_allowed")
    assert worker.stop() == 0
