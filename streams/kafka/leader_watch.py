"""Noticing that a leader was replaced, whatever it says itself."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from aiokafka.errors import KafkaError

from streams.kafka.cluster import Cluster
from streams.kafka.read_barrier import FENCED_LEADER_EPOCH, NOWHERE, ROUND_S, epoch_question
from streams.kafka.records import Place

log = logging.getLogger(__name__)

#: How often the other replicas are asked.
EVERY_S = 1.0


class LeaderWatch:
    """Asks the other replicas of some partitions, once a second, whether they know a newer leader.

    `places`: the partitions that are read or written now, by full topic name. Besides those, whatever partition's
    leader has not answered for some time is looked at. Where a newer leader is known, the
    metadata are asked for again, and the cluster tells who uses the old leader. One small request to each broker; none
    where partitions have one replica.
    """

    def __init__(self, cluster: Cluster, places: Callable[[], Iterable[Place]]) -> None:
        self._cluster = cluster
        self._places = places
        self._connections = cluster.connections("watch", ROUND_S)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch. Does not block."""
        self._task = asyncio.create_task(self._watch(), name="leader watch")

    async def stop(self) -> None:
        """Watch no more; waits for the connections to close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._connections.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Ask once, and wait for the answers, at most ROUND_S and the time that connecting takes."""
        by_node: dict[int, dict[str, list[tuple[int, int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        # What is waited for is looked at, too: partitions that are being given up are written to until that is done.
        for place in {*self._places(), *self._cluster.waiting_for()}:
            leader = self._cluster.leader(*place)
            if leader is None:
                self._cluster.doubt()
                continue
            for node in leader.replicas:
                if node != leader.node:
                    by_node[node][place[0]].append((place[1], leader.epoch, NOWHERE, 1))
        await asyncio.gather(*(self._ask(node, topics) for node, topics in by_node.items()))

    async def _ask(self, node: int, topics: dict[str, list[tuple[int, int, int, int]]]) -> None:
        try:
            found = await self._connections.send(node, epoch_question(topics))
        except KafkaError as error:
            log.debug("broker %s does not say who leads: %r", node, error)
            return
        if any(told.error == FENCED_LEADER_EPOCH for told in found.values()):
            self._cluster.doubt()
