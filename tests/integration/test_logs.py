"""What a worker logs, at its most talkative, while customers register, text, press links and mistype passwords."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from streams import topics
from streams.http.users import changing, make_account
from streams.links import Link, Links
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import CHANGES, DEADLETTER, Worker, World, wait_for
from tests.integration.orgs import CELL, INSTORE, NORTH, Org, dump
from tests.model.wire import time_text

pytestmark = pytest.mark.kafka

SECRET, TOKEN, USER, PASSWORD, WRONG = "a secret of links", "0perator-t0ken", "shop-user", "right-pass", "wr0ng-pass"
NUMBER, LOCAL, MAIL, EXTERNAL = "+491701234567", "0170 7654321", "anna.ott@mail.example", "LOYALTY-778899"
TEXT, NOTE = "Hallo, hier ist Anna Ott", "Anna Ott, Hauptstr. 5"
MOBILE = {
    "mode": "SMS", "number": "1234", "org_unit_id": NORTH, "priority": "BULK",
    "commands": {"OPTIN": "START", "OPTOUT": "STOP"},
}  # fmt: skip


def use_everything(worker: Worker, org: Org, token: str) -> None:
    """Register, text, look up, press, mistype: in each way in, with what is private of it."""
    org.register(identifiers={"mobile": NUMBER, "email": MAIL, "external_id": EXTERNAL})
    org.opt_in(proof={"signed_by": NOTE}, reason=NOTE)
    for text in ("STOP", TEXT):
        for number in (NUMBER, LOCAL):
            sms = {"org_id": org.id, "to": "1234", "from": number, "text": text, "received_at": time_text(0)}
            answer = httpx.post(
                f"{worker.url}/v1/inbound/sms", json=sms | {"message_id": f"{text}{number}"}, auth=(USER, PASSWORD)
            )
            assert answer.status_code == 202, answer.text
    entry = {"channel": "MOBILE", "accountId": "01", "priority": "BULK", "type": "OPTOUT", "orgUnitId": NORTH}
    for value in (NUMBER, MAIL):
        answer = httpx.post(
            f"{worker.url}/v2/customers/lookup/subscriptions",
            params={"source": "INSTORE", "accountId": "01", "identifierName": "mobile", "identifierValue": value},
            json={"subscriptions": [entry | {"sourceName": "INSTORE"}], "reason": NOTE}, auth=(USER, PASSWORD),
        )  # fmt: skip
        assert answer.status_code != 401, answer.text
    httpx.post(
        f"{worker.url}/v1.1/customer/subscriptions", auth=(USER, PASSWORD),
        json={"root": {"subscription": [{"email": MAIL, "channel": "email", "is_subscribed": 0}]}},
    )  # fmt: skip
    for method in ("GET", "POST"):
        assert httpx.request(method, f"{worker.url}/u/{token}").status_code == 200
    assert httpx.get(f"{worker.url}/v2/nothing", auth=(USER, WRONG)).status_code == 401
    assert httpx.get(f"{worker.url}/v2/nothing", headers={"Authorization": f"Bearer {WRONG}"}).status_code == 401


def send_bad_records(org: Org) -> int:
    """Records that become dead letters, full of private values; how many."""
    bad = [
        dump(org.event("customer.registered", identifiers={"mobile": [NUMBER], "email": MAIL})),
        dump(org.opt_in_event(source=MAIL)),
        f'{{"event": "{NUMBER}'.encode(),
    ]
    for value in bad:
        org.world.send(CHANGES, org.key(), value)
    org.world.send(topics.INBOUND.name, f"{org.id}:mobile:{NUMBER}".encode(), dump({"from": NUMBER, "text": TEXT}))
    return len(bad) + 1


def test_the_most_talkative_log_is_json_that_names_places_and_nothing_private(
    make_world: MakeWorld, make_worker: MakeWorker, tmp_path: Path
) -> None:
    world = make_world()
    org = Org(world, mobile=[INSTORE | MOBILE], default_region="DE", require_registration=True)
    with changing(tmp_path / "users.jsonl") as accounts:
        accounts[USER] = make_account(USER, [org.id], PASSWORD)
    env = {"CONSENT_USERS_FILE": str(tmp_path / "users.jsonl"), "CONSENT_LINK_SECRET": SECRET,
           "CONSENT_HTTP_TOKEN": TOKEN, "CONSENT_LOG_LEVEL": "debug", "CONSENT_LOG_FORMAT": "json"}  # fmt: skip
    # Two, so that questions are passed on by HTTP from one to the other.
    workers = [make_worker(world, **env).start() for _ in range(2)]
    for worker in workers:
        worker.ready()
    expires = int(time.time() * 1000) + 3_600_000
    tokens = [
        Links(SECRET).token(Link(org.id, "c", *(CELL[name] for name in (
            "source", "account_id", "channel", "priority", "org_unit_id")), "OPTOUT", expires + number))
        for number, _ in enumerate(workers)
    ]  # fmt: skip
    for worker, token in zip(workers, tokens, strict=True):
        use_everything(worker, org, token)
    bad = send_bad_records(org)
    world.settle()
    wait_for("the dead letters", lambda: len(world.read(DEADLETTER)) >= bad)
    assert [worker.stop() for worker in workers] == [0, 0]
    _check(workers, world, [*tokens, SECRET, TOKEN, PASSWORD, WRONG])


def _check(workers: list[Worker], world: World, secrets: list[str]) -> None:
    private = [*secrets, NUMBER, NUMBER[1:], LOCAL, LOCAL.replace(" ", ""), MAIL, EXTERNAL, TEXT, NOTE, "Anna", "Ott"]
    private += [record.body["keyword"] for record in world.read(topics.NOTIFICATIONS.name) if "keyword" in record.body]
    lines = [line for worker in workers for line in worker.errors.splitlines()]
    for value in private:
        assert [line for line in lines if value.lower() in line.lower()] == []
    assert not any(re.search(r"(?i)authorization|basic |bearer ", line) for line in lines)
    documents = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= document.keys() for document in documents)
    letters = {tuple(document[name] for name in ("topic", "partition", "offset"))
               for document in documents if document["message"].startswith("dead letter: ")}  # fmt: skip
    expected = {
        tuple(record.header(f"__connect.errors.{name}") for name in ("topic", "partition", "offset"))
        for record in world.read(DEADLETTER)
    }
    prefix = world.config.topic_prefix
    assert {(prefix + topic, str(partition), str(offset)) for topic, partition, offset in letters} == expected


def test_a_worker_that_cannot_start_says_why_in_its_last_line_of_json(
    world: World, make_worker: MakeWorker
) -> None:
    worker = make_worker(world, CONSENT_LOG_FORMAT="json", CONSENT_PARTITIONS="7").start()
    assert worker.wait() == 1
    assert "has 4 partitions, but CONSENT_PARTITIONS says 7" in json.loads(worker.last_line)["message"]
