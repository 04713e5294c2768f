"""Starting, stopping, failing and restoring: what a worker does at its edges."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.broker import ChosenBroker, EmbeddedBroker
from streams.engine.outputs import Writer
from streams.kafka.connection import stop_consumer
from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import (
    AUDIT,
    CHANGELOG,
    CHANGES,
    DECISIONS,
    PARTITIONS,
    REQUESTS,
    SHORT_SESSION,
    Loop,
    Worker,
    World,
    refused,
    wait_for,
)
from tests.integration.load import Load
from tests.integration.orgs import Org, dump
from tests.integration.test_random import PATIENT, agree, start_two, steps_of

pytestmark = pytest.mark.kafka

#: Contract of issue 3: SIGTERM ends a worker within ten seconds.
STOP_S = 10.0
META_KEY = b"\0partition"


def positions(world: World) -> dict[int, int]:
    """How far each partition's state is, by the changelog."""
    metas = [record for record in world.read(CHANGELOG) if record.key == META_KEY]
    return {record.partition: record.body["next"] for record in metas}


def committed_changes(world: World) -> dict[int, int]:
    return {number: offset for (topic, number), offset in world.committed().items() if topic == CHANGES}


# --- stopping ----------------------------------------------------------------------------------------


def test_a_stop_under_load_commits_what_is_done_and_the_next_start_repeats_nothing(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    worker = make_worker(world, **PATIENT, CONSENT_BATCH_RECORDS="50").start().ready()
    load = Load(world, steps_of(5)).start()
    load.reaches(0.5)
    started = time.monotonic()
    assert worker.stop() == 0, worker.errors
    assert time.monotonic() - started < STOP_S
    assert committed_changes(world) == positions(world)
    worker.start()
    load.join()
    world.settle()
    agree(world, load)
    assert worker.stop() == 0
    assert "Traceback" not in worker.errors


def test_a_stop_while_a_request_waits_leaves_it_to_the_next_start(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    org = Org(world)
    place = org.opt_in(0)
    ahead = {"partition": place.partition, "offset": place.offset + 1}
    waiting = org.send_request(org.request(min_position=ahead, max_wait_ms=60_000))
    assert org.verdict() == (True, "opted_in")
    started = time.monotonic()
    assert worker.stop() == 0, worker.errors
    assert time.monotonic() - started < STOP_S
    org.opt_out(1)
    worker.start().ready()
    assert org.decision(waiting)["reason"] == "opted_out"
    world.settle()
    Comparison(world).check()


def test_a_stop_while_a_silent_broker_is_asked_ends_the_worker_at_once(world: World, make_worker: MakeWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        worker = make_worker(world, CONSENT_BOOTSTRAP_SERVERS=f"127.0.0.1:{silent.getsockname()[1]}").start()
        silent.accept()
        assert worker.stop() == 0, worker.errors
    assert "Traceback" not in worker.errors


# --- starts that are refused -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def idle(world: World, worker: Worker) -> Worker:
    """A worker that has its folder and its port."""
    return worker


def test_a_taken_port_is_one_clear_line(world: World, make_worker: MakeWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        line = refused(make_worker(world, CONSENT_HTTP_PORT=port))
    assert port in line
    assert "CONSENT_HTTP_PORT" in line


def test_a_taken_data_folder_is_one_clear_line(world: World, idle: Worker, make_worker: MakeWorker) -> None:
    line = refused(make_worker(world, CONSENT_DATADIR=str(idle.datadir)))
    assert str(idle.datadir) in line
    assert str(idle.pid) in line


def test_missing_topics_are_one_clear_line(kafka: ChosenBroker, loop: Loop, make_worker: MakeWorker) -> None:
    world = World(kafka.bootstrap, loop)
    line = refused(make_worker(world))
    assert world.config.topic(CHANGES) in line
    assert "topics create" in line


def test_another_partition_count_is_one_clear_line(world: World, make_worker: MakeWorker) -> None:
    line = refused(make_worker(world, CONSENT_PARTITIONS="3"))
    assert "4 partitions" in line
    assert "CONSENT_PARTITIONS" in line


def test_a_broker_that_is_not_there_is_one_clear_line(world: World, make_worker: MakeWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    line = refused(make_worker(world, CONSENT_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}"))
    assert f"127.0.0.1:{port}" in line


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    world: World, make_worker: MakeWorker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path) in refused(make_worker(world, CONSENT_DATADIR=str(tmp_path / "file" / "data")))


@pytest.mark.parametrize("partitions", [PARTITIONS, 3])
def test_the_data_folder_of_other_topics_is_one_clear_line(
    world: World, make_world: MakeWorld, make_worker: MakeWorker, partitions: int
) -> None:
    used = make_worker(world, **SHORT_SESSION).start().ready()
    assert used.stop() == 0
    line = refused(make_worker(make_world(partitions), CONSENT_DATADIR=str(used.datadir)))
    assert "belongs to another" in line
    assert "CONSENT_DATADIR" in line


# --- a broker that refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [AUDIT, DECISIONS, CHANGELOG])
def test_an_output_that_the_broker_refuses_ends_the_worker_before_anything_is_committed(
    make_world: MakeWorld, make_worker: MakeWorker, topic: str
) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    org = Org(world)
    assert org.verdict() == (True, "not_set_allowed")
    world.settle()
    world.configure(topic, **{"max.message.bytes": "100"})
    place = org.opt_out(0)
    asked = org.send_request(org.request())
    assert worker.wait() == 1
    assert worker.last_line.startswith("Error: the worker ends: ")
    assert world.config.topic(topic) in worker.last_line
    committed = world.committed()
    if topic == DECISIONS:
        assert committed[REQUESTS, org.home()] < world.ends(REQUESTS)[org.home()]
    else:
        assert committed[CHANGES, org.home()] <= place.offset
        assert positions(world)[org.home()] <= place.offset
    policy = {"cleanup.policy": "compact"} if topic == CHANGELOG else {"retention.ms": "-1"}
    world.configure(topic, **{"max.message.bytes": str(20 << 20)} | policy)
    worker.start().ready()
    assert org.decision(asked)["reason"] == "opted_out"
    world.settle()
    Comparison(world).check()


def test_a_decision_that_was_published_without_its_audit_gets_it_as_of_then(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    org = Org(world)
    org.opt_in(-1000)
    assert org.verdict() == (True, "opted_in")
    world.settle()
    # Decisions and their audit travel in one request, of which the broker takes one half only.
    world.configure(AUDIT, **{"max.message.bytes": "100"})
    asked = org.send_request(org.request())
    told = org.decision(asked)
    assert worker.wait() == 1
    assert world.config.topic(AUDIT) in worker.last_line
    world.configure(AUDIT, **{"max.message.bytes": str(20 << 20), "retention.ms": "-1"})
    # What comes after it must not show in its explanation.
    org.opt_out(0)
    worker.start().ready()
    audit = world.log(AUDIT).wait(
        "the audit of the decision", lambda r: r.body.get("decision", {}).get("request_id") == asked
    )
    assert audit.body["decision"] == told
    assert [one["status"] for one in audit.body["inputs"]] == ["OPTIN"]
    assert org.verdict() == (False, "opted_out")
    world.settle()
    Comparison(world).check()


# --- a broker that goes away -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_broker(kafka_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker that may be hurt."""
    with EmbeddedBroker(tmp_path_factory.mktemp("own"), version=kafka_version) as broker:
        yield broker


def test_a_broker_that_hangs_or_is_restarted_is_waited_for(
    own_broker: EmbeddedBroker, make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world(bootstrap=own_broker.bootstrap)
    worker = make_worker(world, **PATIENT, CONSENT_BATCH_RECORDS="50").start().ready()
    pid = worker.pid
    load = Load(world, steps_of(6), pause_s=0.002).start()
    load.reaches(0.3)
    own_broker.suspend()
    time.sleep(5)  # not to wait for anything: this is how long it hangs
    own_broker.resume()
    load.reaches(0.6)
    own_broker.stop()
    assert worker.running, worker.errors
    own_broker.start()
    load.join()
    world.settle()
    assert (worker.running, worker.pid) == (True, pid), worker.errors
    agree(world, load)
    wait_for("the worker to be ready again", lambda: httpx.get(f"{worker.url}/readyz").status_code == 200)
    assert worker.stop() == 0, worker.errors


def test_a_consumer_whose_fetch_waits_to_be_tried_again_stops_like_any_other(
    own_broker: EmbeddedBroker, make_world: MakeWorld
) -> None:
    world = make_world(bootstrap=own_broker.bootstrap)
    tp = TopicPartition(world.config.topic(CHANGES), 0)

    async def fetching() -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(bootstrap_servers=own_broker.bootstrap, retry_backoff_ms=10_000)
        await consumer.start()
        consumer.assign([tp])
        consumer.seek(tp, 0)
        await consumer.getmany(tp, timeout_ms=100)
        return consumer

    async def stop(consumer: AIOKafkaConsumer) -> bool:
        """Once its fetch has failed, and waits; whether nothing is left of it then."""
        (fetch,) = consumer._fetcher._pending_tasks
        while fetch.get_coro().cr_await.__qualname__ != asyncio.sleep.__qualname__:
            assert not fetch.done()
            await asyncio.sleep(0)
        await stop_consumer(consumer)
        return consumer._client._sync_task is None

    consumer = world.loop.run(fetching())
    own_broker.stop()
    try:
        assert world.loop.run(asyncio.wait_for(stop(consumer), 30))
    finally:
        own_broker.start()


def test_a_broker_that_is_away_is_waited_for_with_more_to_write_and_without_haste(
    own_broker: EmbeddedBroker, make_world: MakeWorld
) -> None:
    world = make_world(bootstrap=own_broker.bootstrap)
    values = [b"%d" % number for number in range(6)]

    async def write() -> int:
        """How often metadata were asked for while the broker was away."""
        writer = Writer(world.config)
        await writer.start()
        client, asked = writer._producer._client, 0
        await writer.append(world.config.topic(AUDIT), 0, b"k", values[0])

        def counting(real: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
            async def count(*args: Any) -> bool:
                nonlocal asked
                asked += 1
                return await real(*args)

            return count

        client._metadata_update = counting(client._metadata_update)
        await asyncio.to_thread(own_broker.stop)
        # To a topic that it has not written to yet, and, more than one batch, to one that has no leader any more.
        writing = [writer.append(world.config.topic(AUDIT), 0, b"k", value) for value in values[1:]]
        writing.append(writer.append(world.config.topic(DECISIONS), 0, b"k", b"another"))
        waiting = asyncio.gather(*writing)
        done, _ = await asyncio.wait([waiting], timeout=2)  # not to wait for anything: this is how long it is away
        assert not done
        asked_in_vain = asked
        await asyncio.to_thread(own_broker.start)
        await asyncio.wait_for(waiting, 60)
        await writer.stop()
        return asked_in_vain

    assert 5 < world.loop.run(write()) < 40
    assert sorted(record.value or b"" for record in world.read(AUDIT)) == values
    assert [record.value for record in world.read(DECISIONS)] == [b"another"]


def test_a_worker_of_which_a_part_was_cancelled_by_nobody_ends_and_says_so(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    fault = {"CHAOS_AT": "take.after:1", "CHAOS_DO": "cancel"}
    worker = Worker(make_world().env | fault, tmp_path, "tests.chaos.launcher").start()
    try:
        assert worker.wait() == 1
    finally:
        worker.end()
    assert worker.last_line == "Error: the worker ends: an inner task has ended unasked: Recovery._restart_recovery"


def test_a_stop_while_the_broker_is_away_still_ends_in_time(
    own_broker: EmbeddedBroker, make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world(bootstrap=own_broker.bootstrap)
    worker = make_worker(world).start().ready()
    own_broker.suspend()
    started = time.monotonic()
    try:
        code = worker.stop()
    finally:
        own_broker.resume()
    assert time.monotonic() - started < STOP_S
    assert code in (0, 1)
    assert "Traceback" not in worker.errors


def test_the_data_folder_of_another_cluster_is_one_clear_line(
    own_broker: EmbeddedBroker, world: World, make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    used = make_worker(make_world(bootstrap=own_broker.bootstrap)).start().ready()
    assert used.stop() == 0
    assert "belongs to another cluster" in refused(make_worker(world, CONSENT_DATADIR=str(used.datadir)))


# --- restoring ---------------------------------------------------------------------------------------


def customers_of(world: World, worker: Worker) -> dict[str, Any]:
    """Every customer as the worker tells it."""
    keys = {record.key.decode() for record in world.read(CHANGELOG) if record.key and record.key[0]}
    found = {}
    for key in sorted(keys):
        org_id, customer = key.split(":", 1)
        if customer:
            found[key] = wait_for(f"an owner of {key}", lambda at=f"{org_id}/{customer}": _customer(worker, at))
    return found


def _customer(worker: Worker, at: str) -> Any | None:
    """The customer; None while its partition is being moved, as one is for a moment when a worker joins."""
    answer = httpx.get(f"{worker.url}/v1/customers/{at}")
    return None if answer.status_code == 503 else answer.json()


def test_an_empty_data_folder_is_restored_to_the_same_state(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    first = make_worker(world, **PATIENT).start().ready()
    load = Load(world, steps_of(7)).start()
    load.join()
    world.settle()
    before = customers_of(world, first)
    assert len(before) > 20
    assert first.stop() == 0
    second = make_worker(world, **PATIENT).start().ready()
    assert customers_of(world, second) == before
    more = Load(world, [step for step in steps_of(9) if step[0] == "change"]).start()
    more.join()
    world.settle()
    Comparison(world).check()


def test_standbys_take_over(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    first, second = start_two(make_worker, world, CONSENT_STANDBY_REPLICAS="1", CONSENT_BATCH_RECORDS="50")
    load = Load(world, steps_of(8)).start()
    load.reaches(0.4)
    first.kill()
    load.join()
    world.settle()
    agree(world, load)
    first.start().ready()
    assert customers_of(world, first) == customers_of(world, second)


# --- HTTP --------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_worker_is_ready_only_when_its_partitions_are_restored(
    make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world()
    port = free_port()
    worker = make_worker(world, CONSENT_HTTP_PORT=str(port)).start()
    answers: list[tuple[int, str]] = []

    def probe() -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz")
            answers.append((answer.status_code, answer.text))
        except httpx.TransportError:
            assert not answers, "it answered before"
        return bool(answers) and answers[-1][0] == 200

    wait_for("the worker to be ready", probe)
    assert answers[0][0] == 503, "never unready"
    assert {code for code, _ in answers} == {200, 503}
    assert all("partitions" in text for code, text in answers if code == 503)
    assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
    assert worker.ready().first_partitions == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def pair(make_world: MakeWorld, make_worker: MakeWorker) -> tuple[World, list[Worker]]:
    """Two workers that listen off loopback and share a token."""
    world = make_world()
    env = {"CONSENT_HTTP_TOKEN": "s3cret", "CONSENT_HTTP_HOST": "0.0.0.0"}  # noqa: S104 - this is what is tested
    workers = [make_worker(world, **SHORT_SESSION, **env).start() for _ in range(2)]
    for worker in workers:
        worker.ready()
    with_token = {"Authorization": "Bearer s3cret"}

    def shared() -> bool:
        texts = [httpx.get(f"{worker.url}/metrics", headers=with_token).text for worker in workers]
        return all("consent_partitions_open 2.0" in text for text in texts)

    wait_for("both to have two partitions", shared)
    return world, workers


def test_every_worker_answers_about_every_customer(pair: tuple[World, list[Worker]]) -> None:
    world, workers = pair
    org = Org(world)
    # One customer in each partition, and one with a name that is hard to write.
    at_home = {org.home(str(number)): str(number) for number in range(100)}
    assert set(at_home) == set(range(PARTITIONS))
    names = [*at_home.values(), "ü/%2F ?&#x"]
    for name in names:
        org.opt_out(0, customer_id=name)
    token = {"Authorization": "Bearer s3cret"}
    for worker in workers:
        with httpx.Client(base_url=worker.url, headers=token, timeout=20) as client:
            for name in names:
                path = f"/v1/customers/{org.id}/{quote(name, safe='')}"
                found = client.get(path)
                assert found.status_code == 200, found.text
                assert (found.json()["customer_id"], len(found.json()["cells"])) == (name, 1)
                asked = client.post("/v1/eligibility", content=dump(org.request(customer_id=name)))
                assert asked.status_code == 200, asked.text
                assert (asked.json()["customer_id"], asked.json()["reason"]) == (name, "opted_out")
            assert client.get(f"/v1/customers/{org.id}/nobody").status_code == 404
            bad = client.post("/v1/eligibility", content=dump(org.request(channel="FAX")))
            assert (bad.status_code, "channel" in bad.text) == (422, True)
            assert client.post("/v1/eligibility", content=b"{").status_code == 422
            assert client.post("/v1/eligibility", content=b'{"x":"' + b"y" * 300_000).status_code == 413


def test_off_loopback_only_the_probes_answer_without_the_token(pair: tuple[World, list[Worker]]) -> None:
    _, (worker, _) = pair
    for path in ("/livez", "/readyz"):
        assert httpx.get(worker.url + path).status_code == 200
    for path in ("/metrics", "/v1/customers/1/c", "/openapi.json", "/nothing"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            assert httpx.get(worker.url + path, headers=headers).status_code == 401, path
    assert httpx.post(f"{worker.url}/v1/eligibility", content=b"{}").status_code == 401


def test_off_loopback_without_a_token_nobody_is_let_in(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    worker = make_worker(make_world(), CONSENT_HTTP_HOST="0.0.0.0").start().ready()  # noqa: S104
    assert httpx.get(f"{worker.url}/readyz").status_code == 200
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer None"}):
        assert httpx.get(f"{worker.url}/metrics", headers=headers).status_code == 401


def test_on_loopback_no_token_is_needed(idle: Worker) -> None:
    assert "consent_partitions_open" in httpx.get(f"{idle.url}/metrics").text
    assert json.loads(httpx.get(f"{idle.url}/v1/customers/1/c").text)["detail"]
