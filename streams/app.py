"""The one place where things are wired: Faust app, table, agents, engine, HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import faust
from faust.types import TP

from streams import topics
from streams.agents.changes import Changes
from streams.agents.eligibility import Eligibility
from streams.agents.explaining import explain
from streams.agents.writing import Scribe
from streams.config import Config
from streams.engine import resume
from streams.engine.checkpoint import ChangesLane
from streams.engine.core import Engine
from streams.engine.partition import Partition
from streams.engine.requests import Desk, RequestsLane, Tell
from streams.engine.table import BytesStore, BytesTable
from streams.engine.transport import Assignor, Transport

log = logging.getLogger(__name__)

#: A kill repeats at most this much input; what a restart finds written is not written again.
COMMIT_INTERVAL_S = 0.5
#: One fetch brings at most so much of a partition: about a checkpoint's worth, so that little waits in memory.
FETCH_BYTES = 512 << 10
#: Batches that may wait in Faust's own queues. The lanes take them out at once, so these stay short.
STREAM_BUFFER = 64


class App(faust.App):  # type: ignore[misc]
    """The Faust app, with the engine that its transport and agents work for."""

    engine: Engine


class Lanes:
    """Makes the lanes of an assignment from the agents' parts."""

    def __init__(self, config: Config, engine: Engine, tell: Tell) -> None:
        self._config = config
        self._engine = engine
        self._tell = tell

    async def lanes(
        self, partitions: list[Partition], committed: Mapping[int, int]
    ) -> tuple[ChangesLane, RequestsLane]:
        """The lanes over these partitions, which know what a crash left written."""
        config, engine = self._config, self._engine
        sent_home = {
            spec.name: await resume.forwarded_records(engine.reader, config, spec.name)
            for spec in (topics.CHANGES, topics.REQUESTS)
        }
        appliers = await asyncio.gather(*(self._applier(p, sent_home[topics.CHANGES.name]) for p in partitions))
        changes = ChangesLane(
            {partition.number: (partition, applier) for partition, applier in zip(partitions, appliers, strict=True)},
            engine.changes_writer,
            config.topic(topics.CHANGELOG.name),
            config.batch_records,
            on_error=engine.fail,
            pressure=engine.pressure(topics.CHANGES.name),
            lease=engine.lease,
        )
        sent = sent_home[topics.REQUESTS.name]
        desks = await asyncio.gather(*(self._desk(p, committed[p.number], sent) for p in partitions))
        requests = RequestsLane(
            {desk.partition.number: desk for desk in desks},
            engine.requests_writer,
            ends_of=engine.ends_of_changes,
            tell=self._tell,
            on_error=engine.fail,
            pressure=engine.pressure(topics.REQUESTS.name),
            lease=engine.lease,
        )
        return changes, requests

    async def _applier(self, partition: Partition, sent_home: resume.Forwarded) -> Changes:
        config, number = self._config, partition.number
        scribe = Scribe(topics.CHANGES.name, number, config.topic_prefix)
        scribe.written = await resume.outputs_of_changes(self._engine.reader, config, number, partition.applied)
        _remember_forwards(scribe, sent_home, topics.CHANGES.name, partition.applied)
        return Changes(scribe, config.partitions, config.max_record_bytes)

    async def _desk(self, partition: Partition, committed: int, sent_home: resume.Forwarded) -> Desk:
        config, number = self._config, partition.number
        scribe = Scribe(topics.REQUESTS.name, number, config.topic_prefix)
        progress, scribe.written = await resume.progress_of_requests(self._engine.reader, config, number, committed)
        _remember_forwards(scribe, sent_home, topics.REQUESTS.name, progress.floor)
        clerk = Eligibility(scribe, config.partitions, config.max_record_bytes, config.max_wait_ms)
        await self._engine.requests_writer.write(await explain(self._engine.reader, config, clerk, number, progress))
        return Desk(partition, clerk, progress)


def _remember_forwards(scribe: Scribe, sent_home: resume.Forwarded, source: str, floor: int) -> None:
    sent = {offset for offset in sent_home.get(scribe.partition, ()) if offset >= floor}
    if sent:
        scribe.written[source] = sent


def make_app(config: Config, engine: Engine, url: str) -> App:
    """The Faust app of a worker that other workers reach under `url`. Must be called on the worker's event loop."""
    app = App(
        config.group,
        broker=[f"kafka://{address.strip()}" for address in config.bootstrap_servers.split(",")],
        store="rocksdb://",
        datadir=config.datadir / "state",
        canonical_url=url,
        web_enabled=False,
        topic_partitions=config.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        PartitionAssignor=Assignor,
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
    table = BytesTable(app, name=topics.TABLE, partitions=config.partitions, key_type=bytes, value_type=bytes)
    app.tables.add(table)
    _add_agents(app, config)
    return app


def store_of(app: App) -> BytesStore:
    """The store of the customers' table."""
    store: BytesStore = app.tables[topics.TABLE].data
    return store


def _add_agents(app: App, config: Config) -> None:
    engine = app.engine

    async def apply_changes(stream: Any) -> None:
        async for event in stream.noack().events():
            for batch in event.value:
                engine.put_change(batch)
            event.ack()

    async def decide_requests(stream: Any) -> None:
        async for event in stream.noack().events():
            for batch in event.value:
                engine.put_request(batch)
            event.ack()

    for name, agent in ((topics.CHANGES.name, apply_changes), (topics.REQUESTS.name, decide_requests)):
        source = app.topic(config.topic(name), value_serializer="raw", key_serializer="raw")
        app.agent(source, name=name)(agent)

    def on_pressure(tp: TP, full: bool) -> None:
        app.consumer.hold_back(tp, full)

    engine.on_pressure = on_pressure
    engine.lease = lambda: app.consumer.holds_lease

