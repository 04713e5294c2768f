"""Links over real HTTP, and what they do to decisions."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from streams.links import Link, Links
from tests.cli.world import invoke
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import CHANGES, PARTITIONS, SHORT_SESSION, Doc, Record, Worker, World, wait_for
from tests.integration.orgs import CELL, NORTH, Org, all_types

pytestmark = pytest.mark.kafka

SECRET = "a secret of the tests"  # noqa: S105
HOUR_MS = 3_600_000
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture(scope="module")
def worker(world: World, make_worker: MakeWorker) -> Worker:
    """Reachable from outside and asking everybody else for a token."""
    env = {"CONSENT_LINK_SECRET": SECRET, "CONSENT_HTTP_TOKEN": "s3cret", "CONSENT_HTTP_HOST": "0.0.0.0"}  # noqa: S104
    return make_worker(world, **env).start().ready()


def token(org: Org, action: str = "OPTOUT", expires_in: int = HOUR_MS, **fields: Any) -> str:
    """A token for the cell that the tests' changes go to unless they say otherwise."""
    expires_at = int(time.time() * 1000) + expires_in
    link = {"org_id": org.id, "customer_id": "c", **CELL, "action": action, "expires_at": expires_at}
    return Links(SECRET).token(Link(**(link | fields)))


def url(worker: Worker, token: str) -> str:
    return f"{worker.url.replace('0.0.0.0', '127.0.0.1')}/u/{token}"  # noqa: S104


def events(org: Org) -> list[Record]:
    """What links wrote for the org."""
    return [
        record
        for record in org.world.read(CHANGES)
        if record.body["org_id"] == org.id and record.body["event_id"].startswith("link-")
    ]


def pressed(worker: Worker, token: str, **request: Any) -> Doc:
    """The page's own form, sent as a browser would; what the log has of it."""
    answer = httpx.post(url(worker, token), **request)
    assert answer.status_code == 200, answer.text
    assert answer.history == []
    return {"text": answer.text, "cookies": dict(answer.cookies)}


def test_looking_at_a_link_writes_nothing(world: World, worker: Worker) -> None:
    org = Org(world)
    org.opt_in()
    ends = world.ends(CHANGES)
    for action in ("OPTOUT", "OPTIN"):
        for method in ("GET", "HEAD", "GET"):
            answer = httpx.request(method, url(worker, token(org, action)), headers={"Accept-Language": "en"})
            assert answer.status_code == 200
            assert (answer.text == "") == (method == "HEAD")
    assert world.ends(CHANGES) == ends
    assert org.verdict() == (True, "opted_in")


def test_the_button_opts_out_and_the_next_decision_is_no(world: World, worker: Worker) -> None:
    org = Org(world, name="Example Retail")
    org.opt_in()
    answer = pressed(worker, token(org), data={"shown_in": "en"})
    assert "You have unsubscribed" in answer["text"]
    assert "Example Retail" in answer["text"]
    assert org.verdict() == (False, "opted_out")
    (event,) = events(org)
    assert org.said(event.place) == ("applied", None)
    assert event.body["origin"] == "EMAIL_LINK"
    assert world.home(org.key()) == event.partition


def test_one_click_opts_out(world: World, worker: Worker) -> None:
    org = Org(world)
    org.opt_in()
    assert pressed(worker, token(org), data=ONE_CLICK) == {"text": "You have unsubscribed.\n", "cookies": {}}
    assert org.verdict() == (False, "opted_out")


def test_an_old_opt_in_link_pressed_again_does_not_undo_an_opt_out(world: World, worker: Worker) -> None:
    org = Org(world)
    opt_in, opt_out = token(org, "OPTIN"), token(org, "OPTOUT")
    pressed(worker, opt_in)
    assert org.verdict() == (True, "opted_in")
    pressed(worker, opt_out)
    pressed(worker, opt_in)
    assert org.verdict() == (False, "opted_out")
    assert [org.said(event.place)[1] for event in events(org)] == [None, None, "duplicate"]


def test_an_opt_out_link_pressed_again_undoes_a_new_opt_in(world: World, worker: Worker) -> None:
    org = Org(world)
    opt_out = token(org, "OPTOUT")
    pressed(worker, opt_out)
    pressed(worker, token(org, "OPTIN"))
    assert org.verdict() == (True, "opted_in")
    pressed(worker, opt_out)
    assert org.verdict() == (False, "opted_out")


def test_a_link_verifies_a_pending_double_opt_in_once(world: World, worker: Worker) -> None:
    org = Org(world, opt_in_types=all_types("DOUBLE"))
    pending = org.opt_in_event(event_id="waits")
    org.send(pending)
    assert org.verdict() == (False, "verification_pending")
    verify = token(org, "VERIFY", verifies="waits")
    assert "You have confirmed" in pressed(worker, verify, headers={"Accept-Language": "en"})["text"]
    assert org.verdict() == (True, "opted_in")
    pressed(worker, verify)
    assert org.verdict() == (True, "opted_in")
    assert [org.said(event.place)[1] for event in events(org)] == [None, "duplicate"]


def test_expired_and_forged_links_write_nothing(world: World, worker: Worker) -> None:
    org = Org(world)
    ends = world.ends(CHANGES)
    expired = token(org, expires_in=-1)
    forged = Links(SECRET + "!").token(Links(SECRET).read(token(org), 0))
    for method in ("GET", "POST"):
        assert httpx.request(method, url(worker, expired)).status_code == 410
        assert httpx.request(method, url(worker, forged)).status_code == 404
    assert world.ends(CHANGES) == ends


def test_links_are_open_and_what_stands_beside_them_is_not(world: World, worker: Worker) -> None:
    base = worker.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    for path in ("/metrics", "/u", f"/v1/customers/{Org(world).id}/c", "/u/../metrics", "/u/x/../../metrics"):
        answer = httpx.Client().send(httpx.Request("GET", httpx.URL(base).copy_with(raw_path=path.encode())))
        assert answer.status_code in {401, 404}, path
        assert "consent_" not in answer.text
    sly = httpx.get(f"{base}/metrics", headers={"Host": "x/u/"})
    assert sly.status_code in {400, 401}


def test_the_page_of_a_registered_customer_is_in_the_customer_s_language(world: World, worker: Worker) -> None:
    org = Org(world, default_language="nl")
    org.register(language="pt-BR")
    assert '<html lang="pt"' in httpx.get(url(worker, token(org))).text
    assert '<html lang="nl"' in httpx.get(url(worker, token(org, customer_id="nobody"))).text
    org.erase(at=1)
    assert '<html lang="nl"' in httpx.get(url(worker, token(org))).text


def test_every_worker_has_every_customer_s_page_and_button(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    workers = [make_worker(world, **SHORT_SESSION, CONSENT_LINK_SECRET=SECRET).start() for _ in range(2)]
    for worker in workers:
        worker.ready()

    def shared() -> bool:
        texts = [httpx.get(f"{worker.url}/metrics").text for worker in workers]
        return all("consent_partitions_open 2.0" in text for text in texts)

    wait_for("both to have two partitions", shared)
    org = Org(world)
    customers = {org.home(str(number)): str(number) for number in range(100)}
    assert set(customers) == set(range(PARTITIONS))
    for customer in customers.values():
        org.register(customer_id=customer, language="de")
        for worker in workers:
            page = httpx.get(url(worker, token(org, customer_id=customer)), timeout=20)
            assert (page.status_code, '<html lang="de"' in page.text) == (200, True)
            assert page.headers["cache-control"] == "no-store"
            assert "style-src" in page.headers["content-security-policy"]
            pressed(worker, token(org, customer_id=customer), data=ONE_CLICK)
        assert org.verdict(customer_id=customer) == (False, "opted_out")
    assert len(events(org)) == len(workers) * PARTITIONS


def test_the_command_s_link_works_at_the_worker_with_the_same_folder(world: World, make_worker: MakeWorker) -> None:
    org = Org(world)
    worker = make_worker(world).start().ready()
    env = {"CONSENT_DATADIR": str(worker.datadir), "CONSENT_PUBLIC_URL": worker.url}
    where = ["--source", "INSTORE", "--account", "01", "--channel", "MOBILE", "--org-unit", str(NORTH)]
    made = invoke("link", str(org.id), "c", *where, env=env)
    assert made.exit_code == 0, made.stderr
    assert httpx.post(made.stdout.strip()).status_code == 200
    assert org.verdict() == (False, "opted_out")


def test_a_secret_that_is_too_short_stops_the_start_with_one_clear_line(world: World, make_worker: MakeWorker) -> None:
    worker = make_worker(world, CONSENT_LINK_SECRET="short").start()  # noqa: S106
    assert worker.wait() == 1
    assert [line for line in worker.errors.splitlines() if line.strip()] == [worker.last_line]
    assert worker.last_line.startswith("Error: CONSENT_LINK_SECRET: ")
