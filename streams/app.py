"""The one place where things are wired: Faust app, table, agents, engine, HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import TP
from faust.types.auth import CredentialsT

from streams import topics
from streams.agents.changes import Changes
from streams.agents.eligibility import Eligibility
from streams.agents.explaining import explain
from streams.agents.identities import Identities
from streams.agents.inbound import Inbound
from streams.agents.notices import Notices
from streams.agents.writing import Scribe
from streams.config import Config
from streams.engine import resume
from streams.engine.checkpoint import TableLane
from streams.engine.core import Engine, Opened, Tables
from streams.engine.inbound import InboundLane
from streams.engine.lane import Lane
from streams.engine.partition import Partition
from streams.engine.requests import Desk, RequestsLane, Tell
from streams.engine.table import BytesStore, BytesTable
from streams.engine.transport import Assignor, TableManager, Transport
from streams.kafka.connection import connection
from streams.links import Links, secret_of
from streams.topics import TopicSpec

log = logging.getLogger(__name__)

#: A kill repeats at most this much input; what a restart finds written is not written again.
COMMIT_INTERVAL_S = 0.5
#: One fetch brings at most so much of a partition: about a checkpoint's worth, so that little waits in memory.
FETCH_BYTES = 512 << 10
#: Batches that may wait in Faust's own queues. The lanes take them out at once, so these stay short.
STREAM_BUFFER = 64
#: An identity is written once, and hardly ever looked up soon after.
IDENTITIES_RECENT_BYTES = 1 << 20


class Boot(BootStrategy):  # type: ignore[misc]
    """What Faust starts: not its producer, which nobody uses."""

    enable_kafka_producer = False


class App(faust.App):  # type: ignore[misc]
    """The Faust app, with the engine that its transport and agents work for."""

    engine: Engine
    #: What the worker writes it writes itself.
    BootStrategy = Boot


class Batches(faust.Schema):  # type: ignore[misc]
    """What a message of the transport holds, a list of batches: handed on as it is."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        async def decode(message: Any, **_: Any) -> Any:
            return app.create_event(None, message.value, None, message)

        return decode


class Unwatched(faust.Monitor):  # type: ignore[misc]
    """Without Faust's own statistics of messages, which nobody reads: ours are in `streams.metrics`."""

    def on_message_in(self, *_: Any) -> None:
        """Nothing."""

    def on_stream_event_in(self, *_: Any) -> None:
        """Nothing."""

    def on_stream_event_out(self, *_: Any) -> None:
        """Nothing."""

    def on_message_out(self, *_: Any) -> None:
        """Nothing."""


class Lanes:
    """Makes the lanes of an assignment from the agents' parts. `url` is where customers find this worker."""

    def __init__(self, config: Config, engine: Engine, tell: Tell, url: str) -> None:
        self._config = config
        self._notices = Notices(Links(secret_of(config)), config.public_url or url)
        self._engine = engine
        self._tell = tell

    async def lanes(self, tables: Tables, committed: Mapping[str, Mapping[int, int]]) -> Opened:
        """The lanes over these partitions, which know what a crash left written."""
        changes = await self._changes(tables)
        requests, desks = await self._requests(tables, committed[topics.REQUESTS.name])
        inbound = committed[topics.INBOUND.name]
        lanes: dict[str, Lane] = {
            topics.CHANGES.name: changes,
            topics.REQUESTS.name: requests,
            topics.IDENTITIES.name: self._identities(tables),
            topics.INBOUND.name: await self._inbound(tables, inbound),
        }
        floors = {number: desk.progress.floor for number, desk in desks.items()}
        return Opened(lanes, {topics.REQUESTS.name: floors, topics.INBOUND.name: dict(inbound)})

    def _lane(self, topic: TopicSpec) -> dict[str, Any]:
        """What every lane needs of the engine."""
        engine = self._engine
        return {"on_error": engine.fail, "pressure": engine.pressure(topic.name), "lease": engine.lease}

    def _scribe(self, topic: TopicSpec, number: int) -> Scribe:
        return Scribe(topic.name, number, self._config.topic_prefix)

    async def _sent_home(self, topic: TopicSpec) -> resume.Forwarded:
        return await resume.forwarded_records(self._engine.reader, self._config, topic.name)

    async def _changes(self, tables: Tables) -> TableLane:
        sent_home = await self._sent_home(topics.CHANGES)
        partitions = tables.customers
        appliers = await asyncio.gather(*(self._applier(p, sent_home) for p in partitions.values()))
        return TableLane(
            topics.CHANGES.name,
            dict(zip(partitions, zip(partitions.values(), appliers, strict=True), strict=True)),
            self._engine.changes_writer,
            self._config.topic(topics.CHANGELOG.name),
            self._config.batch_records,
            **self._lane(topics.CHANGES),
        )

    async def _applier(self, partition: Partition, sent_home: resume.Forwarded) -> Changes:
        config, number = self._config, partition.number
        scribe = self._scribe(topics.CHANGES, number)
        scribe.written = await resume.outputs_of_changes(self._engine.reader, config, number, partition.applied)
        _remember_forwards(scribe, sent_home, topics.CHANGES.name, partition.applied)
        return Changes(scribe, config.partitions, config.max_record_bytes, self._notices)

    async def _requests(self, tables: Tables, committed: Mapping[int, int]) -> tuple[RequestsLane, dict[int, Desk]]:
        engine = self._engine
        sent_home = await self._sent_home(topics.REQUESTS)
        found = await asyncio.gather(
            *(self._desk(p, committed.get(p.number, 0), sent_home) for p in tables.customers.values())
        )
        desks = {desk.partition.number: desk for desk in found}
        lane = RequestsLane(
            desks,
            engine.requests_writer,
            find_ends=engine.find_ends,
            changes=self._config.topic(topics.CHANGES.name),
            tell=self._tell,
            **self._lane(topics.REQUESTS),
        )
        return lane, desks

    async def _desk(self, partition: Partition, committed: int, sent_home: resume.Forwarded) -> Desk:
        config, number = self._config, partition.number
        scribe = self._scribe(topics.REQUESTS, number)
        progress, scribe.written = await resume.progress_of_requests(self._engine.reader, config, number, committed)
        _remember_forwards(scribe, sent_home, topics.REQUESTS.name, progress.floor)
        clerk = Eligibility(
            scribe, sent_home.arrived[number], config.partitions, config.max_record_bytes, config.max_wait_ms
        )
        await self._engine.requests_writer.write(await explain(self._engine.reader, config, clerk, number, progress))
        return Desk(partition, clerk, progress)

    def _identities(self, tables: Tables) -> TableLane:
        max_bytes = self._config.max_record_bytes
        return TableLane(
            topics.IDENTITIES.name,
            {
                number: (partition, Identities(self._scribe(topics.IDENTITIES, number), max_bytes))
                for number, partition in tables.identities.items()
            },
            self._engine.intake_writer,
            self._config.topic(topics.IDENTITIES_CHANGELOG.name),
            self._config.batch_records,
            **self._lane(topics.IDENTITIES),
        )

    async def _inbound(self, tables: Tables, committed: Mapping[int, int]) -> InboundLane:
        engine = self._engine
        sent_home = await self._sent_home(topics.INBOUND)
        handlers = {
            number: await self._handler(tables, number, committed.get(number, 0), sent_home)
            for number in tables.customers
        }
        known = engine.everybody_is_known
        return InboundLane(handlers, engine.intake_writer, known=known, **self._lane(topics.INBOUND))

    async def _handler(self, tables: Tables, number: int, committed: int, sent_home: resume.Forwarded) -> Inbound:
        config = self._config
        scribe = self._scribe(topics.INBOUND, number)
        scribe.written = await resume.outputs_of_inbound(self._engine.reader, config, number, committed)
        _remember_forwards(scribe, sent_home, topics.INBOUND.name, committed)
        return Inbound(
            scribe,
            tables.customers[number],
            tables.identities[number],
            partitions=config.partitions,
            max_bytes=config.max_record_bytes,
        )


def _remember_forwards(scribe: Scribe, sent_home: resume.Forwarded, source: str, floor: int) -> None:
    sent = {offset for offset in sent_home.offsets.get(scribe.partition, ()) if offset >= floor}
    if sent:
        scribe.written[source] = sent


def _credentials(config: Config) -> CredentialsT | None:
    """The login of all our Kafka clients, in Faust's words."""
    login = connection(config)
    context = login.get("ssl_context")
    if not config.kafka_has_login:
        return context and SSLCredentials(context)
    return SASLCredentials(
        username=login["sasl_plain_username"],
        password=login["sasl_plain_password"],
        mechanism=login["sasl_mechanism"],
        ssl_context=context,
    )


def make_app(config: Config, engine: Engine, url: str, deletions_kept_s: Mapping[str, float]) -> App:
    """The Faust app of a worker that other workers reach under `url`. Must be called on the worker's event loop.

    `deletions_kept_s`: by table, how long its changelog remembers that a key was deleted.
    """
    app = App(
        config.group,
        broker=[f"kafka://{address.strip()}" for address in config.bootstrap_servers.split(",")],
        broker_credentials=_credentials(config),
        store="rocksdb://",
        datadir=config.datadir / "state",
        canonical_url=url,
        web_enabled=False,
        topic_partitions=config.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        PartitionAssignor=Assignor,
        TableManager=TableManager,
        Monitor=Unwatched,
        table_standby_replicas=config.standby_replicas,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=config.instance_id or None,
        broker_client_id=config.group,
        broker_session_timeout=config.session_timeout_ms / 1000,
        broker_heartbeat_interval=config.heartbeat_ms / 1000,
        broker_commit_interval=COMMIT_INTERVAL_S,
        stream_buffer_maxsize=STREAM_BUFFER,
        consumer_max_fetch_size=FETCH_BYTES,
        stream_recovery_delay=0.0,
        # The engine finishes what is in hand; Faust would wait for batches that are left to the next owner.
        stream_wait_empty=False,
    )
    app.engine = engine
    app.transport = Transport(app.conf.broker_consumer, app)
    for name in topics.CHANGELOGS:
        table = BytesTable(app, name=name, partitions=config.partitions, key_type=bytes, value_type=bytes)
        table.deletions_kept_s = deletions_kept_s[name]
        app.tables.add(table)
    app.tables[topics.IDENTITIES_TABLE].recent_bytes = IDENTITIES_RECENT_BYTES
    _add_agents(app, config)
    return app


def store_of(app: App, table: str) -> BytesStore:
    """The store of a table."""
    store: BytesStore = app.tables[table].data
    return store


def _add_agents(app: App, config: Config) -> None:
    engine = app.engine

    def agent(name: str) -> Callable[[Any], Awaitable[None]]:
        async def hand_over(stream: Any) -> None:
            async for event in stream.noack().events():
                engine.put(name, event.value)
                event.ack()

        return hand_over

    for spec in topics.SOURCES:
        source = app.topic(config.topic(spec.name), schema=Batches())
        app.agent(source, name=spec.name)(agent(spec.name))

    def on_pressure(tp: TP, full: bool) -> None:
        app.consumer.hold_back(tp, full)

    def join_again() -> None:
        app.consumer.join_again()

    engine.on_pressure = on_pressure
    engine.lease = lambda: app.consumer.holds_lease
    engine.join_again = join_again
