"""Finding the broker that coordinates a transactional id or a group, and asking it."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    for_code,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest

from streams.kafka.cluster import ANSWER_S, Cluster

GROUP, TRANSACTION = 0, 1
#: A coordinator that lives answers in milliseconds, but for what has to be replicated first.
REPLICATED_S = 5.0
#: At most this many brokers are asked who coordinates.
ASKED_AT_ONCE = 5
#: What a broker's word for itself counts, against another's word for it.
FOR_ITSELF = 0.5


class Coordinators:
    """Sends requests to the coordinators of transactional ids, or of groups, wherever they are at the moment.

    A broker that is cut off from the others goes on naming itself the coordinator of what it had, and answers nothing
    that must be replicated. So several brokers are asked who coordinates, and the one that most of them name is it.
    """

    def __init__(self, cluster: Cluster, purpose: str, kind: int = TRANSACTION) -> None:
        self._cluster = cluster
        self._kind = kind
        self._connections = cluster.connections(purpose, REPLICATED_S)
        self._asking = cluster.connections(f"{purpose}-finding", ANSWER_S)
        self._known: dict[str, int] = {}

    async def stop(self) -> None:
        """Close the connections; requests under way fail."""
        await asyncio.gather(self._connections.close(), self._asking.close())

    async def send(self, name: str, request: Any) -> Any:
        """The coordinator's answer. Raises KafkaError; RequestTimedOutError if there is none within REPLICATED_S."""
        node = self._known.get(name)
        if node is None:
            node = self._known[name] = await self.find(name)
        try:
            return await self._connections.send(node, request)
        except KafkaError:
            self.forget(name)
            raise

    def forget(self, name: str) -> None:
        """It may be elsewhere now: look for it again."""
        self._known.pop(name, None)

    async def find(self, name: str) -> int:
        """The broker that most of the brokers name. Waits for half of their votes, at most for ANSWER_S.

        Raises KafkaError where none names one in time, and where this client may not know.
        """
        nodes = self._cluster.nodes()
        nodes = random.sample(nodes, min(ASKED_AT_ONCE, len(nodes)))
        request = FindCoordinatorRequest(name, self._kind)
        asked = {asyncio.ensure_future(self._asking.send(node, request)): node for node in nodes}
        votes: dict[int, float] = defaultdict(float)
        errors: list[KafkaError] = []
        try:
            async with asyncio.timeout(ANSWER_S):
                left = set(asked)
                while left and max(votes.values(), default=0.0) < len(nodes) / 2:
                    done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        try:
                            answer = task.result()
                        except KafkaError as error:
                            errors.append(error)
                            continue
                        if answer.error_code:
                            errors.append(for_code(answer.error_code)(name))
                        else:
                            named = answer.coordinator_id
                            votes[named] += FOR_ITSELF if named == asked[task] else 1.0
        except TimeoutError:
            pass
        finally:
            for task in asked:
                task.cancel()
        if votes:
            return max(votes, key=votes.__getitem__)
        self._cluster.doubt()
        denied = next((error for error in errors if not error.retriable), None)
        if denied is not None:
            raise denied
        if not nodes:
            raise KafkaConnectionError("no broker is known")
        raise errors[0] if errors else GroupCoordinatorNotAvailableError(name)
