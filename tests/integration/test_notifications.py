"""Messages to customers, from a real worker on a real broker (domain section 8)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from schemas.notifications import NOTIFICATION
from streams.domain.messages import keyword_of
from streams.links import SECRET_FILE, Link, Links
from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import (
    AUDIT,
    CHANGELOG,
    NOTIFICATIONS,
    SHORT_SESSION,
    Doc,
    Place,
    Worker,
    World,
    wait_for,
)
from tests.integration.load import Load
from tests.integration.orgs import CELL, NORTH, SOUTH, WEB, Org, all_types, dump
from tests.integration.test_random import agree, start_two, steps_of

pytestmark = pytest.mark.kafka

WELCOME: Doc = {"kind": "confirm_opt_in", "texts": {"en": "Welcome to {org}", "de": "Willkommen bei {org}"}}
BYE: Doc = {"kind": "confirm_opt_out", "texts": {"en": "Bye", "de": "Tschüß", "pt": "Adeus"}}
VERIFY: Doc = {"kind": "verify", "channel": "MOBILE", "texts": {"en": "Reply {keyword} or see {link}"}}


def confirming(world: World, **settings: Any) -> Org:
    return Org(world, **({"name": "Shop", "messages": [WELCOME, BYE, VERIFY]} | settings))


def notes(org: Org) -> list[Doc]:
    """Everything that the org's customers were told, once all is worked off, in the order of its records."""
    org.world.settle()
    found = [record for record in org.world.read(NOTIFICATIONS) if record.body["org_id"] == org.id]
    for record in found:
        NOTIFICATION.validate_python(record.body)
        assert record.key == org.key(record.body["customer_id"])
        assert record.partition == record.body["position"]["partition"]
        position = record.body["position"]
        assert record.header("ce_id") == f"consent.changes/{position['partition']}/{position['offset']}"
    return [record.body for record in found]


def told(org: Org) -> list[tuple[str, str]]:
    return [(note["event_id"], note["text"]) for note in notes(org)]


@pytest.fixture(scope="module")
def links(worker: Worker) -> Links:
    """Reads the tokens of a worker that made its secret itself."""
    return Links((worker.datadir / SECRET_FILE).read_text().strip())


def test_a_double_opt_in_causes_one_verification_whose_token_makes_it_an_opt_in(
    world: World, worker: Worker, links: Links
) -> None:
    org = confirming(world, opt_in_types=all_types("DOUBLE"))
    event = org.opt_in_event(0, language="de")
    place = org.send(event)
    assert org.send(event).offset > place.offset
    assert org.said(place) == ("pending", None)
    assert org.verdict() == (False, "verification_pending")
    (note,) = notes(org)
    change = world.read("consent.changes")[-1]
    assert note["position"] == place._asdict()
    assert (note["kind"], note["event_id"], note["keyword"]) == (
        "verify",
        event["event_id"],
        keyword_of(org.id, "c", event["event_id"]),
    )
    assert note["link"] == f"{worker.url}/u/{note['token']}"
    assert note["text"] == f"Reply {note['keyword']} or see {note['link']}"
    link = links.read(note["token"], change.timestamp)
    expires = NOTIFICATION.validate_python(note)["expires_at"]
    assert link == Link(
        org_id=org.id, customer_id="c", action="VERIFY", verifies=event["event_id"], language="de",
        expires_at=expires, **CELL,
    )  # fmt: skip
    org.verify(event["event_id"], 1)
    assert org.verdict() == (True, "opted_in")
    assert [note["kind"] for note in notes(org)] == ["verify", "confirm_opt_in"]


def test_a_verification_is_asked_for_by_an_org_without_messages_and_of_the_api(world: World, worker: Worker) -> None:
    org = Org(world, name="Shop", opt_in_types=all_types("DOUBLE"))
    org.opt_in(0, origin="API", language="de")
    (note,) = notes(org)
    assert (note["kind"], note["language"]) == ("verify", "en")
    assert note["text"] == f"Shop: please confirm that you want to receive our messages: {note['link']}"


def test_confirmations_speak_the_right_language(world: World, worker: Worker) -> None:
    org = confirming(world, default_language="pt-BR", messages=[WELCOME | {"org_unit_id": NORTH}, BYE])
    org.register(customer_id="d", language="DE")
    org.opt_in(0, event_id="default")
    org.opt_out(1, event_id="of the org")
    org.opt_in(0, event_id="of the customer", customer_id="d")
    org.opt_out(1, event_id="of the request", customer_id="d", language="en-GB")
    org.opt_out(2, event_id="none of the request", customer_id="d", language="fr")
    assert sorted(told(org)) == [
        ("default", "Welcome to Shop"),
        ("none of the request", "Tschüß"),
        ("of the customer", "Willkommen bei Shop"),
        ("of the org", "Adeus"),
        ("of the request", "Bye"),
    ]


def test_what_must_not_be_confirmed_is_not(world: World, worker: Worker) -> None:
    org = confirming(world, ou_sync={"opt_in": True, "opt_out": "any"})
    quiet: list[Place] = [
        org.opt_in(0, origin="API", customer_id="api"),
        org.opt_out(0, origin="IMPORT", customer_id="import"),
        org.opt_in(0, priority="TRANS", customer_id="trans"),
        org.register(customer_id="registered"),
    ]
    assert [org.said(place)[0] for place in quiet] == ["applied", "applied", "applied", "registered"]
    first = org.opt_in(10, event_id="heard")
    assert [cell["synced"] for cell in org.audit(first)["cells"]] == [False, True, True]
    assert org.said(org.opt_in(10, event_id="heard")) == ("ignored", "duplicate")
    assert org.said(org.opt_in(11)) == ("ignored", "already_opted_in")
    assert org.said(org.opt_in(12, org_unit_id=SOUTH)) == ("ignored", "already_opted_in")
    assert org.said(org.opt_out(5)) == ("ignored", "superseded")
    assert told(org) == [("heard", "Welcome to Shop")]


def test_new_settings_hold_from_their_place_in_the_log_on(world: World, worker: Worker) -> None:
    org = confirming(world)
    org.opt_in(0, event_id="before")
    org.configure(messages=[])
    org.opt_out(1, event_id="without")
    org.configure(messages=[BYE | {"source": "WEB_ENGAGE"}])
    org.opt_in(2, event_id="elsewhere")
    org.opt_out(3, event_id="there", **WEB)
    assert told(org) == [("before", "Welcome to Shop"), ("there", "Bye")]


def test_settings_with_a_faulty_message_are_a_dead_letter_that_names_the_fault(world: World, worker: Worker) -> None:
    org = confirming(world)
    places = org.configure(messages=[WELCOME, BYE | {"texts": {"en": "{link}"}}])
    message = org.dead_letter(places[0]).header("__connect.errors.exception.message")
    assert message is not None
    assert message.startswith("settings.messages[1].texts.en: {link} is none of {org}, {org_unit}, {channel}")


def test_links_lead_to_the_address_that_customers_know_and_every_worker_signs_alike(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    env = {"CONSENT_PUBLIC_URL": "https://consent.example/", "CONSENT_LINK_SECRET": "a secret of the test"}
    worker = make_worker(world, **env).start().ready()
    org = confirming(world, opt_in_types=all_types("DOUBLE"))
    org.opt_in(0)
    (note,) = notes(org)
    assert note["link"] == f"https://consent.example/u/{note['token']}"
    assert Links("a secret of the test").read(note["token"], 0).org_id == org.id
    assert not (worker.datadir / SECRET_FILE).exists()
    assert 'consent_notifications_total{kind="verify"} 1.0' in httpx.get(f"{worker.url}/metrics").text


# --- nothing twice, nothing lost ---------------------------------------------------------------------


def test_a_scenario_with_a_killed_worker_tells_every_customer_what_it_should_once(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    first, _ = start_two(make_worker, world, CONSENT_BATCH_RECORDS="50")
    load = Load(world, steps_of(12)).start()
    load.reaches(0.4)
    first.kill()
    load.reaches(0.7)
    first.start()
    load.join()
    first.ready()
    world.settle()
    agree(world, load)
    comparison = Comparison(world, load.ends)
    comparison.check()
    assert {kind for what, kind in comparison.seen if what == "message"} == {
        "verify",
        "confirm_opt_in",
        "confirm_opt_out",
    }


def test_a_kill_in_the_midst_of_a_checkpoint_repeats_no_message_and_loses_none(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    org = confirming(world, opt_in_types=all_types("DOUBLE"))
    names = [name for name in map(str, range(16_000)) if org.home(name) == 0][:3000]
    events = [org.opt_in_event(0, customer_id=name) for name in names]
    events += [org.opt_in_event(1, type="OPTOUT", customer_id=name) for name in names]
    load = Load(world, [("change", org.key(event["customer_id"]), dump(event), None) for event in events]).start()
    load.join()
    worker = make_worker(world, **SHORT_SESSION).start()
    wait_for("the first messages", lambda: world.ends(NOTIFICATIONS)[0] > 1)
    worker.kill()
    assert world.ends(NOTIFICATIONS)[0] < len(events), "it was too fast to be killed in the midst"
    worker.start().ready()
    found = notes(org)
    assert [note["event_id"] for note in found] == [event["event_id"] for event in events]
    assert [note["kind"] for note in found] == ["verify"] * len(names) + ["confirm_opt_out"] * len(names)
    assert len({note["notification_id"] for note in found}) == len(events)
    Comparison(world).check()


@pytest.mark.parametrize(
    ("topic", "policy"),
    [
        (NOTIFICATIONS, {}),
        (AUDIT, {"retention.ms": "-1"}),
        (CHANGELOG, {"cleanup.policy": "compact"}),
    ],
)
def test_what_a_checkpoint_left_unwritten_when_the_broker_refused_a_part_is_written_by_the_next_start_and_no_more(
    make_world: MakeWorld, make_worker: MakeWorker, topic: str, policy: dict[str, str]
) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    org = confirming(world)
    world.settle()
    world.configure(topic, **{"max.message.bytes": "100"})
    place = org.opt_in(0)
    assert worker.wait() == 1
    assert world.config.topic(topic) in worker.last_line
    world.configure(topic, **{"max.message.bytes": str(20 << 20)} | policy)
    worker.start().ready()
    assert [note["position"] for note in notes(org)] == [place._asdict()]
    audits = [record.body for record in world.read(AUDIT) if record.body["position"] == place._asdict()]
    assert [audit["outcome"] for audit in audits] == ["applied"]
    Comparison(world).check()
