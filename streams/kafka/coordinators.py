"""Finding the broker that coordinates a transactional id or a group."""

from __future__ import annotations

import random
from typing import Any

from aiokafka.errors import KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest

from streams.kafka.cluster import Cluster

GROUP, TRANSACTION = 0, 1
#: Whoever lives answers in milliseconds, but for what has to be replicated first.
ANSWER_S = 5.0


class Coordinators:
    """Sends requests to the coordinators of transactional ids, or of groups, wherever they are at the moment.

    A broker that is cut off from the others goes on taking itself for the coordinator of what it had, and answers
    nothing that must be replicated. So whoever does not answer in time is not asked again where it is.
    """

    def __init__(self, cluster: Cluster, purpose: str, kind: int = TRANSACTION) -> None:
        self._cluster = cluster
        self._kind = kind
        self._connections = cluster.connections(purpose, ANSWER_S)
        self._known: dict[str, int] = {}
        #: Who did not answer last, by id.
        self._silent: dict[str, int] = {}

    async def stop(self) -> None:
        """Close the connections; requests under way fail."""
        await self._connections.close()

    async def send(self, name: str, request: Any) -> Any:
        """The coordinator's answer. Raises KafkaError; RequestTimedOutError if there is none within ANSWER_S."""
        node = self._known.get(name)
        if node is None:
            node = self._known[name] = await self._find(name)
        try:
            return await self._connections.send(node, request)
        except KafkaError:
            self.forget(name)
            self._silent[name] = node
            raise

    def forget(self, name: str) -> None:
        """It is elsewhere now: look for it again."""
        self._known.pop(name, None)

    async def _find(self, name: str) -> int:
        silent = self._silent.pop(name, None)
        # Who did not answer would name itself.
        nodes = [node for node in self._cluster.nodes() if node != silent] or self._cluster.nodes()
        if not nodes:
            self._cluster.doubt()
            raise KafkaConnectionError("no broker is known")
        (node,) = random.sample(nodes, 1)
        try:
            answer = await self._connections.send(node, FindCoordinatorRequest(name, self._kind))
        except KafkaError:
            self._silent[name] = node
            raise
        if answer.error_code:
            raise for_code(answer.error_code)(name)
        coordinator: int = answer.coordinator_id
        return coordinator
