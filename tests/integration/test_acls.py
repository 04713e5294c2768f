"""The rights that `topics acls` lists: with exactly these every role can do its work, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from streams import topics
from streams.cli import sample
from streams.config import Config, from_environment
from streams.kafka.client import Producer, Reader
from streams.kafka.connection import connection
from streams.kafka.everywhere import send_settings
from streams.kafka.faults import KafkaFault
from tests.cli.world import invoke
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import (
    AUDIT,
    CHANGES,
    DEADLETTER,
    DECISIONS,
    NOTIFICATIONS,
    REQUESTS,
    SHORT_SESSION,
    Loop,
    Worker,
    World,
    refused,
)
from tests.integration.orgs import Org
from tests.integration.secured import ROLES, SecuredKafka

pytestmark = pytest.mark.kafka

INBOUND = topics.INBOUND.name
EVERYTHING = {spec.name for spec in topics.ALL}
#: Contract section 1, and what the commands do.
WRITES = {
    "worker": EVERYTHING,
    "producer": {CHANGES},
    "campaigns": {REQUESTS},
    "gateway": {INBOUND},
    "sender": set(),
    "analyst": set(),
    "operator": {CHANGES, REQUESTS, INBOUND},
}
READS = {
    "worker": EVERYTHING,
    "producer": set(),
    "campaigns": {DECISIONS},
    "gateway": set(),
    "sender": {NOTIFICATIONS},
    "analyst": {AUDIT},
    "operator": {CHANGES, DECISIONS, AUDIT, DEADLETTER},
}
GROUPS = {"worker": "consent-streams"} | {role: f"consent-{role}" for role in ("campaigns", "sender", "analyst")}
PREFIXED = " --resource-pattern-type prefixed"
#: A denial comes at once; what is not denied by then hangs.
PATIENCE_S = 15.0


def own(world: World, secured: SecuredKafka, role: str) -> dict[str, str]:
    """The options of this role's own user."""
    return world.env | secured.login(f"consent-{role}")


@pytest.fixture(scope="module")
def world(secured: SecuredKafka, make_world: MakeWorld) -> World:
    """Topics with exactly the listed rights, and nobody working on them."""
    world = make_world(bootstrap=secured.bootstrap)
    secured.allow(invoke("topics", "acls", env=world.env).stdout)
    return world


# --- what works --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_work(secured: SecuredKafka, loop: Loop, make_worker: MakeWorker) -> tuple[World, Worker]:
    """A world that was begun without a topic, by its operator, and the worker in it."""
    world = World(secured.bootstrap, loop)
    secured.allow(invoke("topics", "acls", env=world.env).stdout)
    created = invoke("topics", "create", env=own(world, secured, "operator"))
    assert created.exit_code == 0, created.stderr
    return world, make_worker(world, **own(world, secured, "worker")).start().ready()


def test_every_role_can_do_its_work(at_work: tuple[World, Worker], secured: SecuredKafka, tmp_path: Any) -> None:
    world, worker = at_work
    port = {"CONSENT_HTTP_PORT": worker.url.rpartition(":")[2]}

    def run(role: str, *words: str, text: str = "") -> str:
        result = invoke(*words, text=text, env=own(world, secured, role) | port)
        assert result.exit_code == 0, (role, words, result.stderr)
        return result.output

    file = tmp_path / "settings.json"
    file.write_text(json.dumps(sample.settings()))
    events = "\n".join(json.dumps(event) for event in sample.events())
    question = ["ask", str(sample.ORG_ID), "565039505", "--channel", "EMAIL", "--priority", "BULK",
                "--org-unit", "200031782"]  # fmt: skip
    assert "is in force" in run("operator", "settings", "apply", str(file))
    assert f"{len(sample.events())} events published" in run("producer", "publish", text=events)
    assert "recent_opt_out" in run("campaigns", *question)
    assert "recent_opt_out" in run("operator", *question)
    assert "565039505" in run("analyst", "audit")
    assert "565039505" in run("operator", "audit")
    run("producer", "publish", text=json.dumps(sample.events()[0] | {"org_id": 999}))
    world.log(DEADLETTER).wait("the dead letter", lambda record: record.header("consent.error") == "unknown_org")
    assert "unknown_org" in run("operator", "deadletter", "list")
    run("operator", "deadletter", "replay", "--code", "unknown_org")
    imported = next(event for event in sample.events() if event["event"] == "consent.changed") | {"batch_id": "b-1"}
    run("operator", "publish", text=json.dumps(imported))
    run("operator", "import", "--undo", "b-1", "--org", str(sample.ORG_ID))
    assert "are as they should be" in run("operator", "topics", "check")
    assert worker.running, worker.errors


def test_the_number_of_partitions_is_changed_with_the_rights_for_it_and_those_only(
    secured: SecuredKafka, make_world: MakeWorld, make_worker: MakeWorker, loop: Loop
) -> None:
    old, new = make_world(2, secured.bootstrap), World(secured.bootstrap, loop, 3)
    prefix = new.config.topic_prefix
    secured.allow(invoke("topics", "acls", "--role", "repartition", "--to-prefix", prefix, env=old.env).stdout)
    login = old.env | secured.login("consent-repartition")
    words = ["topics", "repartition", "--to-prefix", prefix, "--to-partitions", "3"]
    make_worker(old).start()
    Org(old).opt_in()
    done = invoke(*words, env=login)
    assert done.exit_code == 0, done.stderr
    make_worker(new).start()
    done = invoke(*words, "--switch", env=login)
    assert done.exit_code == 0, done.stderr
    assert "1 customers" in done.stdout
    config = from_environment(login)
    for world, name in ((old, CHANGES), (old, AUDIT), (new, REQUESTS), (new, AUDIT)):
        assert asyncio.run(denied(write(config, world.config.topic(name)))), name
    new.close()


# --- what is denied ----------------------------------------------------------------------------------


async def denied(attempt: Awaitable[Any]) -> bool:
    """Whether Kafka denies this; raises whatever else goes wrong."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await attempt
    except KafkaFault as fault:
        if "Kafka denies consent-" not in str(fault):
            raise
        return True
    return False


async def write(config: Config, topic: str) -> None:
    async with Producer(config) as producer:
        await (await producer.send(topic, b"100:c", b"{}"))


async def read(config: Config, topic: str) -> None:
    async with Reader(config, topic) as reader:
        assert [bundle async for bundle in reader.bundles(follow=False)]


async def allowed(attempt: Callable[[str], Awaitable[None]], world: World) -> set[str]:
    """The topics with which it is not denied."""
    return {spec.name for spec in topics.ALL if not await denied(attempt(world.config.topic(spec.name)))}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_writes_and_reads_its_own_topics_only(world: World, secured: SecuredKafka, role: str) -> None:
    config = from_environment(own(world, secured, role))
    for name in EVERYTHING:
        world.send(name, b"100:c", b"{}")
    assert asyncio.run(allowed(partial(write, config), world)) == WRITES[role]
    assert asyncio.run(allowed(partial(read, config), world)) == READS[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_joins_its_own_group_only(world: World, secured: SecuredKafka, role: str) -> None:
    login = connection(from_environment(own(world, secured, role)))
    readable = [world.config.topic(name) for name in sorted(READS[role])]

    async def joined(group: str) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S), AIOKafkaConsumer(*readable, **login, group_id=group) as consumer:
                return bool(consumer.assignment())
        except GroupAuthorizationFailedError:
            return False

    async def all_joined() -> set[str]:
        groups = {name: world.config.topic(name) for name in {*GROUPS.values(), "another"}}
        return {name for name, full in groups.items() if await joined(full)}

    if readable:
        assert asyncio.run(all_joined()) == ({GROUPS[role]} if role in GROUPS else set())


@pytest.mark.parametrize("role", ROLES)
def test_only_the_operator_creates_topics_and_only_ours_and_nobody_deletes_any(
    world: World, secured: SecuredKafka, role: str
) -> None:
    login = connection(from_environment(own(world, secured, role)))

    async def attempt() -> tuple[list[Any], list[Any]]:
        admin = AIOKafkaAdminClient(**login)
        await admin.start()
        names = [world.config.topic(CHANGES), "another-topic"]
        try:
            created = await admin.create_topics([NewTopic(name, 1, 1) for name in names])
            deleted = await admin.delete_topics([world.config.topic(AUDIT)])
        finally:
            await admin.close()
        errors = {name: for_code(code) for name, code, *_ in created.topic_errors}
        return [errors[name] for name in names], [for_code(code) for _, code in deleted.topic_error_codes]

    refusal = TopicAuthorizationFailedError
    ours = TopicAlreadyExistsError if role == "operator" else refusal
    assert asyncio.run(attempt()) == ([ours, refusal], [refusal])


def test_settings_are_written_by_the_operator_alone_and_for_the_orgs_that_are_named(
    secured: SecuredKafka, make_world: MakeWorld
) -> None:
    world = make_world(bootstrap=secured.bootstrap)
    secured.allow(invoke("topics", "acls", "--org", "100", env=world.env).stdout)

    async def write(role: str, org: int) -> None:
        config = from_environment(own(world, secured, role))
        await send_settings(config, config.topic(CHANGES), org, b"%d:" % org, b"{}")

    assert not asyncio.run(denied(write("operator", 100)))
    for role, org in (("operator", 101), ("operator", 1001), ("producer", 100), ("worker", 100)):
        assert asyncio.run(denied(write(role, org))), (role, org)


@pytest.mark.parametrize(
    ("without", "names"),
    [
        ("--group consent-streams", "Read on group {prefix}consent-streams"),
        ("--operation Write --topic consent.audit", "Write on topic {prefix}consent.audit"),
        ("--operation Read --topic consent-streams-identities", "Read on topic {prefix}consent-streams-identities"),
        (f"--transactional-id consent-streams-{PREFIXED}", "Write on transactional-id {prefix}consent-streams-"),
    ],
)
def test_a_worker_that_lacks_a_right_names_it_in_one_line(
    secured: SecuredKafka, make_world: MakeWorld, make_worker: MakeWorker, without: str, names: str
) -> None:
    world = make_world(bootstrap=secured.bootstrap)
    prefix = world.config.topic_prefix
    rows = json.loads(invoke("topics", "acls", "--role", "worker", "--json", env=world.env).stdout)
    commands = [
        f"kafka-acls.sh --bootstrap-server x:1 --add --allow-principal User:consent-worker "
        f"--operation {operation} --{row['resource']} {row['name']}{PREFIXED if row['prefixed'] else ''}"
        for row in rows
        for operation in row["operations"]
    ]
    kept = [line for line in commands if not line.replace(prefix, "").endswith(without)]
    assert len(kept) == len(commands) - 1
    secured.allow("\n".join(kept))
    line = refused(make_worker(world, **own(world, secured, "worker")))
    assert f"Kafka denies consent-worker: {names.format(prefix=prefix)} (`consent-streams topics acls`" in line


@pytest.mark.parametrize(
    ("operation", "resource", "name"),
    [("Read", "group", "consent-streams"), ("Read", "topic", CHANGES), ("Write", "topic", AUDIT)],
)
def test_a_worker_that_loses_a_right_ends_and_names_what_it_may_not_use(
    secured: SecuredKafka, make_world: MakeWorld, make_worker: MakeWorker, operation: str, resource: str, name: str
) -> None:
    world = make_world(bootstrap=secured.bootstrap)
    full = world.config.topic(name)
    secured.allow(invoke("topics", "acls", "--role", "worker", env=world.env).stdout)
    worker = make_worker(world, **own(world, secured, "worker"), **SHORT_SESSION).start().ready()
    secured.deny("consent-worker", operation, resource, full)
    Org(world)
    assert worker.wait() == 1
    assert worker.last_line.startswith("Error: the worker ends: "), worker.errors
    assert full in worker.last_line
