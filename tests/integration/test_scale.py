"""More workers, fewer workers, other workers: who owns what, and how long nobody does."""

from __future__ import annotations

import re
import time
from collections import Counter

import httpx
import pytest

from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import CHANGELOG, PATIENCE_S, SHORT_SESSION, Worker, wait_for
from tests.integration.orgs import Org, dump
from tests.integration.test_lifecycle import free_port

pytestmark = pytest.mark.kafka

PARTITIONS = 8
LAG = re.compile(r'^consent_lag_records\{partition="(\d+)",topic="consent\.changes"\}', re.MULTILINE)
RESTORED = re.compile(r'^consent_restored_records_total\{partition="(\d+)"\} (\S+)', re.MULTILINE)


def metrics(worker: Worker) -> str:
    return httpx.get(f"{worker.url}/metrics", timeout=20).text


def owned(worker: Worker) -> set[int]:
    """The partitions that a worker has open."""
    return {int(number) for number in LAG.findall(metrics(worker))}


def restored(worker: Worker) -> dict[int, int]:
    """Changelog records that a worker has restored, by partition."""
    return {int(number): int(float(count)) for number, count in RESTORED.findall(metrics(worker))}


def share(workers: list[Worker]) -> list[set[int]]:
    """What each of them owns, once all of them together own all partitions in equal parts."""
    each = PARTITIONS // len(workers)

    def shared() -> list[set[int]]:
        found = [owned(worker) for worker in workers]
        return found if [len(one) for one in found] == [each] * len(workers) else []

    found = wait_for(f"{len(workers)} workers to have {each} partitions each", shared)
    assert set().union(*found) == set(range(PARTITIONS))
    return found


def one_each(org: Org) -> dict[int, str]:
    """A customer of each partition."""
    found = {org.home(str(number)): str(number) for number in range(200)}
    assert len(found) == PARTITIONS
    return found


@pytest.mark.long
def test_one_two_and_four_workers_share_eight_partitions_and_every_one_answers_about_all(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world(PARTITIONS)
    org = Org(world)
    customers = one_each(org)
    workers: list[Worker] = []
    for count in (1, 2, 4):
        more = [make_worker(world, **SHORT_SESSION).start() for _ in range(count - len(workers))]
        workers += [worker.ready() for worker in more]
        share(workers)
        reason = "opted_out" if count == 2 else "opted_in"
        for name in customers.values():
            org.opt_in(count, customer_id=name, type="OPTOUT" if count == 2 else "OPTIN")
        asked = [org.send_request(org.request(customer_id=name)) for name in customers.values()]
        assert [org.decision(one)["reason"] for one in asked] == [reason] * PARTITIONS
        for worker in workers:
            with httpx.Client(base_url=worker.url, timeout=20) as client:
                for name in customers.values():
                    answer = client.post("/v1/eligibility", content=dump(org.request(customer_id=name)))
                    assert (answer.status_code, answer.json()["reason"]) == (200, reason)
    assert all(worker.stop() == 0 for worker in workers)


@pytest.mark.parametrize(
    ("session", "limit_s"),
    [({}, 15.0), ({"CONSENT_SESSION_TIMEOUT_MS": "2000", "CONSENT_HEARTBEAT_MS": "400"}, 5.0)],
    ids=["default", "short"],
)
def test_a_killed_workers_partitions_are_answered_for_in_time(
    make_world: MakeWorld, make_worker: MakeWorker, session: dict[str, str], limit_s: float
) -> None:
    world = make_world(PARTITIONS)
    first, second = (make_worker(world, **session).start() for _ in range(2))
    first.ready()
    second.ready()
    org = Org(world)
    customers = one_each(org)
    for name in customers.values():
        org.opt_out(customer_id=name)
    theirs, _ = share([first, second])
    first.kill()
    killed = time.monotonic()
    asked = [org.send_request(org.request(customer_id=customers[number])) for number in theirs]
    assert [org.decision(one)["reason"] for one in asked] == ["opted_out"] * len(theirs)
    took_s = time.monotonic() - killed
    assert took_s < limit_s
    second.kill()


@pytest.mark.long
def test_a_rolling_restart_of_static_members_moves_no_partition(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world(PARTITIONS)
    static = {"CONSENT_SESSION_TIMEOUT_MS": str(int(PATIENCE_S * 1000))}
    workers = [
        make_worker(world, **static, CONSENT_INSTANCE_ID=name, CONSENT_HTTP_PORT=str(free_port())).start()
        for name in ("a", "b")
    ]
    for worker in workers:
        worker.ready()
    before = share(workers)
    org = Org(world)
    customers = one_each(org)
    for restarted, stays, its, others in ((0, 1, *before), (1, 0, *reversed(before))):
        worker, other = workers[restarted], workers[stays]
        assert worker.stop() == 0
        worker.start()
        waiting = org.send_request(org.request(customer_id=customers[min(its)]))

        def is_back(worker: Worker = worker, other: Worker = other, others: set[int] = others) -> bool:
            """And until then, nothing changes for the other one."""
            assert worker.running, worker.errors
            assert owned(other) == others
            assert org.ask(customer_id=customers[min(others)])["reason"] == "not_set_allowed"
            return worker._said_ready() is not None

        wait_for("the restarted worker", is_back)
        assert org.decision(waiting)["reason"] == "not_set_allowed"
        assert (owned(worker), owned(other)) == (its, others)


def test_a_standby_takes_over_without_restoring(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world(PARTITIONS)
    warm = SHORT_SESSION | {"CONSENT_STANDBY_REPLICAS": "1"}
    first, second = (make_worker(world, **warm).start() for _ in range(2))
    first.ready()
    second.ready()
    org = Org(world)
    customers = one_each(org)
    theirs, _ = share([first, second])
    cold, before = restored(second), Counter(record.partition for record in world.read(CHANGELOG))
    for at in range(40):
        for number in theirs:
            org.opt_in(at, customer_id=customers[number], type=("OPTIN", "OPTOUT")[at % 2])
    world.settle()
    written = Counter(record.partition for record in world.read(CHANGELOG)) - before
    assert all(written[number] for number in theirs)

    def warmed_up() -> dict[int, int]:
        seen = restored(second)
        return seen if all(seen.get(n, 0) - cold.get(n, 0) >= written[n] for n in theirs) else {}

    warm_copy = wait_for(f"a warm copy of partitions {theirs}", warmed_up)
    first.kill()
    asked = [org.send_request(org.request(customer_id=customers[number])) for number in theirs]
    assert [org.decision(one)["reason"] for one in asked] == ["opted_out"] * len(theirs)
    after = restored(second)
    assert {number: after[number] - warm_copy[number] for number in theirs} == dict.fromkeys(theirs, 0)
