"""The consumer of the group, on a cluster in which one broker may be gone, hang, or be cut off from the others.

aiokafka's client asks one broker at random for metadata and for the coordinator, believes its answer, and waits for it
as long as for the slowest answer of a rebalance; a connection that is being made holds up all others. Here its
instance, and no class, gets what asks and connects as `Cluster` and `Coordinators` do.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams.kafka.cluster import CONNECT_S
from streams.kafka.coordinators import Coordinators
from streams.logs import Ongoing

log = logging.getLogger(__name__)

#: Answers that need no rebalance come sooner than this.
ANSWER_S = 2.0
#: Pause before a cluster that does not answer is asked again.
RETRY_S = 0.5
#: A coordinator that is not found within this time is told of.
SILENT_S = 5.0
#: How often the brokers are asked who coordinates the group.
EVERY_S = 1.0


def adapt(consumer: AIOKafkaConsumer, coordinators: Coordinators) -> None:
    """Let a consumer that is not started yet get by without any one broker. It waits for brokers that are away."""
    client = consumer._client
    _bound_connecting(client)
    _wait_for_bootstrap(client)

    away = Ongoing(log, "the group has no coordinator yet")

    async def coordinator_lookup(_: Any, name: str) -> int:
        began = monotonic()
        while True:
            try:
                found = await coordinators.find(name)
            except KafkaError as error:
                if not error.retriable or consumer._coordinator._closing.done():
                    raise
                # Kafka makes the topic in which it keeps groups when it is asked for one first.
                if monotonic() - began > SILENT_S:
                    away.happens(error)
                await asyncio.sleep(RETRY_S)
            else:
                away.over()
                return found

    client.coordinator_lookup = coordinator_lookup


def _bound_connecting(client: AIOKafkaClient) -> None:
    connect = client._get_conn

    async def get_conn(node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        try:
            async with asyncio.timeout(CONNECT_S):
                conn = await connect(node_id, group=group, no_hint=no_hint)
        except TimeoutError:
            client.force_metadata_update()
            return None
        if conn is not None and group == ConnectionGroup.DEFAULT:
            conn._request_timeout = ANSWER_S
        return conn

    client._get_conn = get_conn


def _wait_for_bootstrap(client: AIOKafkaClient) -> None:
    bootstrap = client.bootstrap

    async def wait() -> None:
        patience_ms = client._request_timeout_ms
        client._request_timeout_ms = ANSWER_S * 1000
        try:
            while True:
                try:
                    await bootstrap()
                except KafkaConnectionError as error:
                    log.debug("no broker answers yet: %r", error)
                    await asyncio.sleep(RETRY_S)
                else:
                    return
        finally:
            client._request_timeout_ms = patience_ms

    client.bootstrap = wait


class CoordinatorWatch:
    """Moves a consumer to its group's coordinator when most brokers name another one than it has.

    The one that it has may be cut off from the others: it would go on counting a member that the group has lost.
    """

    def __init__(self, consumer: AIOKafkaConsumer, coordinators: Coordinators) -> None:
        self._consumer = consumer
        self._coordinators = coordinators
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch. Does not block."""
        self._task = asyncio.create_task(self._watch(), name="coordinator watch")

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Ask once. Takes no longer than ANSWER_S and the time that connecting takes."""
        coordinator = self._consumer._coordinator
        known = coordinator.coordinator_id
        if known is None:
            return
        try:
            found = await self._coordinators.find(coordinator.group_id)
        except KafkaError as error:
            log.debug("nobody names the group's coordinator: %r", error)
            return
        if found != known and coordinator.coordinator_id == known:
            log.info("the group is coordinated by broker %d, not by %d any more", found, known)
            coordinator.coordinator_dead()
            # What waits for its answer may wait for long.
            conn = self._consumer._client._conns.get((known, ConnectionGroup.COORDINATION))
            if conn is not None:
                conn.close(reason=CloseReason.CONNECTION_BROKEN)


def join_again(consumer: AIOKafkaConsumer) -> None:
    """Let the group assign its partitions anew, by whoever coordinates it now. Does not wait."""
    consumer._coordinator.coordinator_dead()
    consumer._coordinator.request_rejoin()
