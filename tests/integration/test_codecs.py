"""Batches in each of Kafka's codecs, in every topic that a worker or a command reads.

What others write is compressed by a client here, what a worker writes by the broker: a topic's `compression.type` makes
it write the batch anew, with the code of Java's producer.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Iterator
from functools import partial

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import snappy_encode
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record._crecords import default_records
from aiokafka.record.memory_records import MemoryRecords

from streams import topics
from streams.broker import ChosenBroker
from streams.kafka import admin
from tests.cli.world import invoke
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import (
    AUDIT,
    CHANGES,
    DEADLETTER,
    DECISIONS,
    REQUESTS,
    Doc,
    Loop,
    Worker,
    World,
    wait_for,
)
from tests.integration.orgs import BASE_MS, NORTH, Org, all_types, dump
from tests.integration.test_inbound import INBOUND, SHORT_CODE, mobile
from tests.model.wire import time_text

pytestmark = pytest.mark.kafka

#: As their bits in a batch's attributes. Snappy is framed by Java's clients, and not by those in C.
CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CUSTOMERS = [f"c{number}" for number in range(40)]
#: Of each customer's proof, so that what is compressed has several blocks of every framing.
PROOF_BYTES = 4_000
SHORTEST_SESSION = {"CONSENT_SESSION_TIMEOUT_MS": "1500", "CONSENT_HEARTBEAT_MS": "300"}
WHOLE_BYTES = 8 << 20
Written = tuple[str, bytes, bytes]


@pytest.fixture(params=[*CODECS, "snappy unframed"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a client compresses with."""
    name, _, unframed = request.param.partition(" ")
    if unframed:
        monkeypatch.setattr(default_records, "snappy_encode", partial(snappy_encode, xerial_compatible=False))
    return str(name)


@pytest.fixture(scope="module")
def running(world: World, worker: Worker) -> Worker:
    """The worker that reads what clients compress."""
    return worker


def write(world: World, codec: str | None, records: Iterable[Written]) -> None:
    """Write all records, each to its key's home, those of a partition in one batch."""

    async def send() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=world.config.bootstrap_servers,
            compression_type=codec,
            linger_ms=100,
            max_batch_size=topics.INPUT_BYTES // 2,
            max_request_size=topics.INPUT_BYTES,
        )
        async with producer:
            sent = [await producer.send(world.config.topic(t), v, k, world.home(k)) for t, k, v in records]
            await asyncio.gather(*sent)

    world.loop.run(send())


def codecs_of(world: World, topic: str) -> set[int]:
    """The codecs of all batches of a topic, as their bits; control batches left out."""
    return world.loop.run(_codecs(world, world.config.topic(topic)))


async def _codecs(world: World, topic: str) -> set[int]:
    client = AIOKafkaClient(bootstrap_servers=world.config.bootstrap_servers)
    await client.bootstrap()
    try:
        (node,) = {broker.nodeId for broker in client.cluster.brokers()}
        found: set[int] = set()
        for number in range(world.config.partitions):
            asked = FetchRequest(0, 0, WHOLE_BYTES, 0, [(topic, [(number, 0, WHOLE_BYTES)])])
            answer = await client.send(node, asked)
            ((_, ((_, error, *_, content),)),) = answer.topics
            assert not error
            found |= set(_codecs_in(content))
        return found
    finally:
        await client.close()


def _codecs_in(content: bytes) -> Iterator[int]:
    batches = MemoryRecords(content)
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.is_control_batch:
            yield batch.compression_type


def proof(customer: str) -> Doc:
    """Text of which half is hard to compress."""
    text = random.Random(customer).randbytes(PROOF_BYTES // 4).hex()
    return {"signed_by": text + "x" * (PROOF_BYTES - len(text))}


class Customers(Org):
    """An org that customers text to, each from a number of their own."""

    def __init__(self, world: World) -> None:
        opt_in_types = all_types("RESTRICTED")
        super().__init__(world, mobile=mobile(), default_region="DE", opt_in_types=opt_in_types)

    def number(self, customer: str) -> str:
        return f"+49170{self.id % 10_000:04d}{CUSTOMERS.index(customer):03d}"

    def changes(self) -> list[Written]:
        """Each registers and opts in."""
        return [
            (CHANGES, self.key(customer), dump(event))
            for customer in CUSTOMERS
            for event in (
                self.event("customer.registered", customer_id=customer, identifiers={"mobile": self.number(customer)}),
                self.opt_in_event(customer_id=customer, proof=proof(customer)),
            )
        ]

    def requests(self) -> list[Written]:
        """Each is asked for."""
        asked = [self.request(customer_id=customer) for customer in CUSTOMERS]
        return [(REQUESTS, self.key(request["customer_id"]), dump(request)) for request in asked]

    def stops(self) -> list[Written]:
        """Each texts STOP."""
        texts = [
            {"event": "sms.received", "message_id": f"{self.id}-{customer}", "org_id": self.id, "to": SHORT_CODE,
             "from": self.number(customer), "text": "STOP", "received_at": time_text(BASE_MS + 1)}
            for customer in CUSTOMERS
        ]  # fmt: skip
        return [(INBOUND, f"{self.id}:mobile:{text['from']}".encode(), dump(text)) for text in texts]

    def faults(self) -> list[Written]:
        """Each has an event that nobody can apply."""
        events = [self.opt_in_event(customer_id=customer, source="NOWHERE") for customer in CUSTOMERS]
        return [(CHANGES, self.key(event["customer_id"]), dump(event)) for event in events]

    def reasons(self) -> list[str]:
        """Why each may be sent a message or not, as far as it was answered."""
        decisions = [record.body for record in self.world.read(DECISIONS)]
        return [decision["reason"] for decision in decisions if decision["org_id"] == self.id]

    def stopped(self) -> list[str]:
        """What became of each text, as far as it was read."""
        audits = [record.body for record in self.world.read(AUDIT)]
        return [a["outcome"] for a in audits if a["record"] == "inbound" and a["input"]["org_id"] == self.id]


def test_what_clients_compress_is_applied_and_answered(world: World, running: Worker, codec: str) -> None:
    org = Customers(world)
    everyone = len(CUSTOMERS)
    write(world, codec, org.changes())
    world.settle()
    write(world, codec, org.requests())
    wait_for("all decisions", lambda: len(org.reasons()) == everyone)
    assert set(org.reasons()) == {"opted_in"}
    write(world, codec, [*org.stops(), *org.faults()])
    wait_for("all texts", lambda: len(org.stopped()) == everyone)
    assert set(org.stopped()) == {"taken"}
    world.settle()
    write(world, codec, org.requests())
    wait_for("all decisions anew", lambda: len(org.reasons()) == 2 * everyone)
    assert org.reasons().count("opted_out") == everyone
    assert [r.header("__connect.errors.exception.message") is not None for r in world.read(DEADLETTER)][-everyone:]
    assert running.running, running.errors
    for topic in (CHANGES, REQUESTS, INBOUND):
        assert CODECS[codec] in codecs_of(world, topic), topic


def test_a_worker_reads_back_and_commands_read_what_the_broker_compressed(
    make_world: MakeWorld, make_worker: MakeWorker, kafka: ChosenBroker, loop: Loop
) -> None:
    world = make_world()
    worker = make_worker(world, **SHORTEST_SESSION)
    orgs = []
    for codec in CODECS:
        compress(world, codec)
        worker.start().ready()
        org = Customers(world)
        orgs.append(org)
        write(world, None, [*org.changes(), *org.faults()])
        assert org.ask(customer_id=CUSTOMERS[0])["reason"] == "opted_in"
        world.settle()
        written = [*org.requests(), *org.stops()]
        write(world, None, written[: len(written) // 2])
        worker.kill()
        write(world, None, written[len(written) // 2 :])
    # With nothing but the topics, and then with what it had when it was killed last.
    elsewhere = make_worker(world, **SHORTEST_SESSION).start().ready()
    world.settle()
    elsewhere.kill()
    worker.start().ready()
    for spec in topics.ALL:
        found = codecs_of(world, spec.name)
        assert found == (set() if spec is topics.NOTIFICATIONS else set(CODECS.values())), spec.name
    for org in orgs:
        assert org.ask(customer_id=CUSTOMERS[0])["reason"] == "opted_out"
        assert org.stopped() == ["taken"] * len(CUSTOMERS)
    world.settle()
    # Nothing twice, although the worker was killed: what it had written was read back.
    inputs = sum(len(world.read(topic)) for topic in (CHANGES, REQUESTS, INBOUND))
    faults = len(orgs) * len(CUSTOMERS)
    assert len(world.read(DECISIONS)) == len(world.read(REQUESTS))
    assert len(told(world, "audit")) == inputs - faults
    assert len(told(world, "deadletter", "list")) == faults
    where = ["--channel", "MOBILE", "--priority", "BULK", "--org-unit", str(NORTH), "--source", "INSTORE"]
    (decision,) = told(world, "ask", str(orgs[0].id), CUSTOMERS[0], *where, "--account", "01")
    assert decision["reason"] == "opted_out"
    new = World(kafka.bootstrap, loop, world.config.partitions + 1)
    place = ["--to-prefix", new.config.topic_prefix, "--to-partitions", str(new.config.partitions)]
    told(world, "topics", "repartition", *place)
    make_worker(new).start().ready()
    (moved,) = told(world, "topics", "repartition", *place, "--switch")
    assert moved["differences"] == []
    assert moved["compared"]["customers"] == faults
    new.close()
    assert worker.running, worker.errors


def compress(world: World, codec: str) -> None:
    """Let the broker write every batch of every topic in this codec."""
    wanted = {spec.name: spec.config | {"compression.type": codec} for spec in topics.ALL}

    resources = [
        ConfigResource(ConfigResourceType.TOPIC, world.config.topic(name), config) for name, config in wanted.items()
    ]
    world.loop.run(admin.asked(world.config, lambda client: client.alter_configs(resources)))
    # One after another: when this one is in force, so are those before it.
    world.configure(CHANGES, **wanted[CHANGES])


def told(world: World, *arguments: str) -> list[Doc]:
    """What a command says, as JSON."""
    done = invoke(*arguments, "--json", env=world.env)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]
