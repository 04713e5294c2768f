"""Imports from end to end: a file, its dry run, a running worker, and the undo."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from tests.cli.world import invoke
from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import AUDIT, CHANGELOG, CHANGES, Doc, Worker, World, wait_for
from tests.integration.orgs import BASE_MS, CELL, INSTORE, NORTH, SOUTH, WEB, Org, dump
from tests.model.wire import time_text

pytestmark = pytest.mark.kafka

PROFILE = ("source", "account_id", "channel", "priority")
MOBILE = [part for name in PROFILE for part in ("--set", f"{name}={CELL[name]}")]
DOUBLE = [{"source": "WEB_ENGAGE", "channel": "MOBILE", "type": "DOUBLE"}]


@pytest.fixture(scope="module", autouse=True)
def running(world: World, worker: Worker) -> Iterator[None]:
    """The one worker of this module; afterwards all that it did is compared with the slow model."""
    yield
    world.settle()
    Comparison(world).check()
    assert worker.running


def command(worker: Worker, world: World, tmp_path: Path, *arguments: str) -> Result:
    port = {"CONSENT_HTTP_PORT": worker.url.rpartition(":")[2], "CONSENT_DATADIR": str(tmp_path / "data")}
    return invoke("import", *arguments, env=world.env | port)


def write(folder: Path, rows: list[tuple[str, int, str, int]]) -> str:
    """A file of customer, moment, type and unit."""
    lines = [f"{customer};{time_text(BASE_MS + at)};{kind};{unit}" for customer, at, kind, unit in rows]
    file = folder / "crm.csv"
    file.write_text("\n".join(["customer_id;occurred_at;type;org_unit_id", *lines]) + "\n")
    return str(file)


def document(worker: Worker, org: Org, customer: str) -> Doc:
    """A customer as HTTP shows it, without what names the org and the position."""
    found: Doc = httpx.get(f"{worker.url}/v1/customers/{org.id}/{customer}").raise_for_status().json()
    return {name: part for name, part in found.items() if name not in {"org_id", "as_of"}}


def stored(world: World, org: Org, customer: str) -> bytes:
    """A customer's state in the changelog, once all is worked off, without the id of an undo."""
    world.settle()
    values = [record.value for record in world.read(CHANGELOG) if record.key == org.key(customer)]
    lines = (values[-1] or b"").split(b"\n")
    lines[-1] = dump([event_id for event_id in json.loads(lines[-1]) if not event_id.startswith("undo-")])
    return b"\n".join(lines)


def test_an_import_undone_leaves_the_bytes_of_customers_who_never_had_it(
    world: World, worker: Worker, tmp_path: Path
) -> None:
    """Two orgs with the same customers and events; one has an import in between."""
    texts = [{"kind": kind, "texts": {"en": "So it is."}} for kind in ("confirm_opt_in", "confirm_opt_out")]
    settings: Doc = {"opt_in_types": DOUBLE, "ou_sync": {"opt_in": True, "opt_out": "any"}, "messages": texts}
    imported, never = Org(world, **settings), Org(world, **settings)
    customers = ["yes", "no", "waiting", "new"]

    def both(event: Doc) -> None:
        for org in (imported, never):
            org.send(event | {"org_id": org.id})

    for customer in customers:
        both(imported.event("customer.registered", customer_id=customer))
    both(imported.opt_in_event(0, customer_id="yes"))
    both(imported.opt_in_event(0, customer_id="no", type="OPTOUT"))
    both(imported.opt_in_event(0, customer_id="waiting", **WEB))
    rows = [("yes", 9, "OPTOUT", NORTH), ("no", 9, "optin", NORTH), ("no", -9, "OPTIN", SOUTH), ("new", 0, "OPTIN", -1)]
    file = write(tmp_path, rows)
    arguments = ["--org", str(imported.id), "--batch-id", "crm", *MOBILE]
    assert command(worker, world, tmp_path, file, *arguments).exit_code == 0
    web = write(tmp_path, [("waiting", 5, "OPTOUT", NORTH)])
    assert command(worker, world, tmp_path, web, *arguments[:4], *MOBILE[4:], "--set", "source=WEB_ENGAGE",
                   "--set", "account_id=01").exit_code == 0  # fmt: skip
    assert document(worker, imported, "new")["cells"][0]["batch_id"] == "crm"
    assert document(worker, imported, "yes")["cells"] != document(worker, never, "yes")["cells"]
    # What comes since, elsewhere and in the cells of the import.
    both(imported.opt_in_event(3, customer_id="new", channel="EMAIL"))
    both(imported.opt_in_event(20, customer_id="yes", type="OPTOUT", priority="TRANS"))
    both(imported.opt_in_event(2, customer_id="waiting", org_unit_id=SOUTH, **INSTORE))

    undone = command(worker, world, tmp_path, "--undo", "crm", "--org", str(imported.id))
    assert (undone.exit_code, undone.stderr) == (0, "batch crm is taken out for 4 customers\n")
    for customer in customers:
        assert document(worker, imported, customer) == document(worker, never, customer), customer
        assert stored(world, imported, customer) == stored(world, never, customer), customer


def test_a_dry_run_says_what_the_import_then_does(world: World, worker: Worker, tmp_path: Path) -> None:
    org = Org(world, require_registration=True)
    for customer in ("a", "b", "c"):
        org.register(customer_id=customer)
    org.opt_out(10, customer_id="a")
    org.opt_out(10, customer_id="b", org_unit_id=-1)
    org.opt_in(1, customer_id="c")
    rows = [
        ("a", 5, "OPTIN", NORTH),  # superseded by the newer opt-out
        ("a", 15, "OPTIN", NORTH),
        ("a", 15, "OPTIN", NORTH),
        ("b", 5, "OPTIN", NORTH),  # enters, but the whole org's opt-out is newer
        ("c", 5, "OPTIN", NORTH),
        ("stranger", 5, "OPTIN", NORTH),
        ("c", 5, "OPTIN", 4711),
        ("c", 5, "PERHAPS", NORTH),
    ]
    arguments = [write(tmp_path, rows), "--org", str(org.id), "--batch-id", "crm", *MOBILE, "--json"]
    before = len(world.read(CHANGES))
    asked = command(worker, world, tmp_path, *arguments, "--dry-run")
    outcomes = {"already_opted_in": 1, "applied": 2, "duplicate": 1, "not_registered": 1, "superseded": 1}
    assert json.loads(asked.stdout) == {
        "rows": 8, "outcomes": outcomes, "dead_letters": {"unknown_org_unit": 1}, "contradicts_newer_opt_out": 2,
        "rejected": 1,
    }  # fmt: skip
    assert (asked.exit_code, "1 row of 8 rejected" in asked.stderr) == (1, True)
    assert len(world.read(CHANGES)) == before

    assert command(worker, world, tmp_path, *arguments).exit_code == 1
    world.settle()
    done = Counter(
        body["outcome_reason"] or body["outcome"]
        for body in (record.body for record in world.read(AUDIT))
        if body["record"] == "change" and body["input"]["org_id"] == org.id and body["input"].get("batch_id") == "crm"
    )
    assert done == outcomes
    readable = command(worker, world, tmp_path, *arguments[:-1], "--dry-run")
    assert "         5 duplicate\n" in readable.stdout
    assert "contradict a newer opt-out, which stands" in readable.stdout


# --- the preview's HTTP -----------------------------------------------------------------------------


def preview(worker: Worker, org: Org, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else dump(body)
    return httpx.post(f"{worker.url}/v1/orgs/{org.id}/preview", content=content)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "the body is not JSON"),
        ({}, "the body must be a list of events"),
        ([1], "[0]: not an object"),
        ([{"org_id": 0, "customer_id": "c"}], "[0]: org_id must be"),
        ([{}] * 1001, "1001 events are too many at once: at most 1000"),
    ],
)
def test_a_preview_that_cannot_be_weighed_says_why(world: World, worker: Worker, body: Any, fault: str) -> None:
    answer = preview(worker, Org(world), body)
    assert answer.status_code == 422
    assert fault in answer.json()["detail"]


def test_a_preview_takes_customers_of_one_partition_at_once(world: World, worker: Worker) -> None:
    org = Org(world)
    names = [f"c-{n}" for n in range(50)]
    near = [name for name in names if org.home(name) == org.home()]
    far = next(name for name in names if org.home(name) != org.home())
    answer = preview(worker, org, [org.opt_in_event(customer_id=name) for name in near])
    assert [found["outcome"] for found in answer.json()["outcomes"]] == ["applied"] * len(near)
    answer = preview(worker, org, [org.opt_in_event(customer_id=name) for name in ("c", far)])
    assert (answer.status_code, "different partitions" in answer.json()["detail"]) == (422, True)
    assert preview(worker, org, []).json() == {"outcomes": []}


def test_a_preview_weighs_each_event_after_those_before_it_and_keeps_nothing(world: World, worker: Worker) -> None:
    org = Org(world)
    first, second = org.opt_in_event(0), org.opt_in_event(5, type="OPTOUT")
    bad = first | {"channel": "FAX", "event_id": "bad"}
    answer = preview(worker, org, [first, first, second, bad, first | {"event": "consent.revoked"}])
    assert [(found["outcome"], found["outcome_reason"]) for found in answer.json()["outcomes"]] == [
        ("applied", None), ("ignored", "duplicate"), ("applied", None), ("dead_letter", "invalid_field"),
        ("dead_letter", "unknown_event"),
    ]  # fmt: skip
    assert httpx.get(f"{worker.url}/v1/customers/{org.id}/c").status_code == 404


def test_a_preview_is_passed_on_to_the_partition_s_owner(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    workers = [make_worker(world).start().ready() for _ in range(2)]
    org = Org(world)
    events = [org.opt_in_event(customer_id=f"c-{n}") for n in range(12)]
    assert {org.home(event["customer_id"]) for event in events} == set(range(world.config.partitions))

    def outcome(worker: Worker, event: Doc) -> Any:
        """None while the partitions are being shared out: then the answer is to ask again."""
        answer = preview(worker, org, [event])
        return None if answer.status_code == 503 else answer.json()["outcomes"][0]["outcome"]

    for event in events:
        for worker in workers:
            what = f"the outcome of {event} at {worker.url}"
            assert wait_for(what, partial(outcome, worker, event)) == "applied"
