"""Random scenarios on two workers, one of them killed and restarted: everything equals the slow model."""

from __future__ import annotations

import random
import time

import httpx
import pytest

from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import AUDIT, PARTITIONS, SHORT_SESSION, Doc, Worker, World, wait_for
from tests.integration.load import Load
from tests.integration.orgs import Org, dump
from tests.model.generate import Step, scenario

pytestmark = pytest.mark.kafka

#: The fence must not run out of time while partitions move: what is tested is what it says, not how soon.
PATIENT = {"CONSENT_MAX_WAIT_MS": "60000"}


def steps_of(seed: int, events: int = 1500) -> list[Step]:
    return scenario(seed, events=events, base_ms=int(time.time() * 1000), partitions=PARTITIONS)


def start_two(make_worker: MakeWorker, world: World, **env: str) -> list[Worker]:
    """Two workers that are ready and share the partitions."""
    workers = [make_worker(world, **PATIENT, **SHORT_SESSION, **env).start() for _ in range(2)]
    for worker in workers:
        worker.ready()
    wait_for("both to have partitions", lambda: all(open_partitions(worker) for worker in workers))
    return workers


def open_partitions(worker: Worker) -> int:
    found = [line for line in httpx.get(f"{worker.url}/metrics").text.splitlines() if line.startswith("consent_part")]
    return int(float(found[0].split()[1]))


def agree(world: World, load: Load) -> None:
    """Everything equals the model, and there was something to compare."""
    comparison = Comparison(world, load.ends)
    comparison.check()
    assert len(comparison.seen) > 25, comparison.seen


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_scenario_survives_a_kill_of_one_of_two_workers(
    make_world: MakeWorld, make_worker: MakeWorker, seed: int
) -> None:
    world, rng = make_world(), random.Random(seed)
    first, second = start_two(make_worker, world, CONSENT_BATCH_RECORDS="50")
    load = Load(world, steps_of(seed)).start()
    load.reaches(rng.uniform(0.2, 0.6))
    first.kill()
    load.reaches(rng.uniform(0.6, 0.9))
    first.start()
    load.join()
    first.ready()
    world.settle()
    agree(world, load)
    told_alike(world, [first, second])


@pytest.mark.parametrize(("batch_records", "written"), [("1000", 1), ("100000", 2_100)])
def test_a_kill_in_the_midst_of_a_large_checkpoint_repeats_nothing(
    make_world: MakeWorld, make_worker: MakeWorker, batch_records: str, written: int
) -> None:
    world = make_world()
    org = Org(world)
    names = [name for name in map(str, range(2000)) if org.home(name) == 0][:400]
    events = [org.opt_in_event(at, customer_id=names[at % len(names)]) for at in range(15_000)]
    load = Load(world, [("change", org.key(event["customer_id"]), dump(event), None) for event in events]).start()
    load.join()
    worker = make_worker(world, **SHORT_SESSION, CONSENT_BATCH_RECORDS=batch_records).start()
    wait_for("the first outputs", lambda: world.ends(AUDIT)[0] > written)
    worker.kill()
    assert world.ends(AUDIT)[0] < len(events), "it was too fast to be killed in the midst"
    worker.start().ready()
    world.settle(patience_s=20)
    Comparison(world).check()


def told_alike(world: World, workers: list[Worker]) -> None:
    """Every worker tells every customer's cells as the changelog has them, wherever the partition lives."""
    comparison = Comparison(world)
    comparison.faults()
    for model in comparison.models:
        for org_id, customer in list(model.customers)[:3]:
            answers = [httpx.get(f"{worker.url}/v1/customers/{org_id}/{customer}").json() for worker in workers]
            assert answers[0] == answers[1]
            wanted = model.state(org_id, customer)
            assert wanted is not None
            assert shown(answers[0]) == {
                place: (cell["status"], cell["pending"])
                for place, cell in wanted["cells"].items()
                if cell["entries"] or cell["pending"]
            }


def shown(document: Doc) -> Doc:
    """The cells of `/v1/customers` by place, those without anything left out."""
    names = ("source", "account_id", "channel", "priority", "org_unit_id")
    return {
        tuple(cell[name] for name in names): (cell["status"], cell["pending"] and cell["pending"]["event_id"])
        for cell in document["cells"]
        if cell["event_id"] or cell["pending"]
    }


def test_workers_that_are_suspended_while_their_partitions_move_do_no_harm(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    first, second = start_two(make_worker, world)
    load = Load(world, steps_of(4, events=4000)).start()
    for share, sleeper, other in ((0.2, first, second), (0.5, second, first), (0.8, first, second)):
        load.reaches(share)
        sleeper.suspend()
        wait_for("the other worker to have all partitions", lambda w=other: open_partitions(w) == PARTITIONS)
        sleeper.resume()
        wait_for("both to have partitions", lambda w=sleeper: not w.running or open_partitions(w))
        if not sleeper.running:  # to end is as good an answer as to join again
            assert sleeper.last_line.startswith("Error: the worker ends: ")
            sleeper.start().ready()
    load.join()
    world.settle()
    agree(world, load)
