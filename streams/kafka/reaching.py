"""Reaching a cluster of which a broker is away: who answers, and questions that are asked again.

A broker that was killed refuses connections. One that hangs (a suspended process, a frozen machine) takes them, and
answers nothing: the cluster itself notices only when the broker's session is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest

from streams.config import Config
from streams.kafka.connection import connection, refusal
from streams.kafka.faults import ABSENT, KafkaFault, plain_faults
from streams.kafka.patience import patience_s

CONNECT_S = 7.0  # if no broker has answered by then, Kafka is called unreachable, within ten seconds of the command
REQUEST_S = 3.0  # a broker that hangs is given up by then: another one is asked, or the same again
#: Brokers hand some questions on to the controller, and from one that hangs they turn to its successor after 30 s only
#: (controller.socket.timeout.ms): these get so many times `patience_s`.
CONTROLLER = 1.5
AWAY_S = 5.0  # for so long it is not asked again, as long as there are others
AGAIN_S = 0.1

T = TypeVar("T")


async def persistently(ask: Callable[[], Awaitable[T]], times: float = 1.0) -> T:
    """What `ask` returns; it is called again while Kafka cannot answer it yet, for `patience_s`, so many times that.

    Once a broker has answered, that none does is such a case too. Raises what `ask` raised, if only the time was up the
    failure before that.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + times * patience_s()
    last: BaseException | None = None
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await ask()
        except (KafkaError, KafkaFault, TimeoutError) as error:
            over = loop.time() + AGAIN_S >= deadline
            if over and last is not None and isinstance(error, TimeoutError):
                raise last from error
            if over or not _passes(error, first=last is None):
                raise
            last = error
        await asyncio.sleep(AGAIN_S)


def _passes(error: BaseException, first: bool) -> bool:
    """Whether the next attempt may be answered."""
    if isinstance(error, KafkaFault):
        return not first and isinstance(error.__cause__, ABSENT)
    return isinstance(error, ABSENT) or bool(getattr(error, "retriable", False))


async def options(config: Config) -> dict[str, Any]:
    """The arguments of an aiokafka client that begins with the broker which answers first; give it to `steady`.

    Raises KafkaFault as `answering` does.
    """
    return {**connection(await answering(config)), "request_timeout_ms": int(REQUEST_S * 1000)}


async def answering(config: Config) -> Config:
    """The same, with the one of the addresses of brokers that answers first.

    Raises KafkaFault at once if none of them takes a connection, or if Kafka refuses the login; if they take
    connections and do not answer, after CONNECT_S.
    """
    try:
        with plain_faults(config):
            async with asyncio.timeout(CONNECT_S):
                return replace(config, bootstrap_servers=await _first(connection(config)))
    except KafkaFault as fault:
        reason = await refusal(config) if isinstance(fault.__cause__, ABSENT) else None
        if reason is None:
            raise
        raise KafkaFault(reason) from None


async def _first(given: dict[str, Any]) -> str:
    """The address that answers first. All are asked at once, and waited for as long as there is one that may answer."""
    arguments = {name: value for name, value in given.items() if name != "bootstrap_servers"}
    arguments["request_timeout_ms"] = int(CONNECT_S * 1000)
    hosts = collect_hosts(given["bootstrap_servers"])
    asked = {asyncio.ensure_future(_answers(host, port, arguments)): (host, port) for host, port, _ in hosts}
    try:
        left = set(asked)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    host, port = asked[task]
                    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise KafkaConnectionError(f"none of {given['bootstrap_servers']} answers")
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _answers(host: str, port: int, arguments: dict[str, Any]) -> None:
    conn: AIOKafkaConnection = await create_conn(host, port, **arguments)
    try:
        # A broker that has only just come up knows of no brokers, itself included, for a moment.
        while not (await conn.send(MetadataRequest([]))).brokers:  # noqa: ASYNC110 - only asked
            await asyncio.sleep(AGAIN_S)
    finally:
        conn.close()


def steady(client: AIOKafkaClient) -> None:
    """Make a client that is not started yet leave out brokers that did not answer, for AWAY_S, where there are others.

    What any broker can answer is asked of the one that it begins with. aiokafka takes any broker, the one that hangs
    again and again; and it takes a connection that breaks while a coordinator is looked for as its producer's end.
    """
    _Steady(client)


class _Steady:
    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client
        self._connect, self._send = client._get_conn, client.send
        self._away: dict[Any, float] = {}
        self._begun_with = {(host, port) for host, port, _ in collect_hosts(client._bootstrap_servers)}
        client._get_conn, client.send, client.get_random_node = self.connect, self.send, self.node

    def node(self) -> int | None:
        there = list(self._client.cluster.brokers())
        good = [broker for broker in there if not self._is_away(broker.nodeId)] or there
        best = [broker for broker in good if (broker.host, broker.port) in self._begun_with] or good
        return random.choice(best).nodeId if best else None  # noqa: S311 - no secret

    async def connect(self, node_id: Any, **how: Any) -> AIOKafkaConnection | None:
        if self._is_away(node_id):
            # As aiokafka does where it cannot connect: others may lead by now what that one led.
            self._client.force_metadata_update()
            return None
        found: AIOKafkaConnection | None = await self._connect(node_id, **how)
        if found is None:
            self._failed(node_id)
        return found

    async def send(self, node_id: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> Any:
        try:
            return await self._send(node_id, request, group=group)
        except RequestTimedOutError:
            self._failed(node_id)
            raise
        except KafkaConnectionError as error:
            raise NodeNotReadyError(str(error)) from error

    def _is_away(self, node_id: Any) -> bool:
        return self._away.get(node_id, 0.0) > asyncio.get_running_loop().time()

    def _failed(self, node_id: Any) -> None:
        others = {broker.nodeId for broker in self._client.cluster.brokers()} - {node_id}
        if any(not self._is_away(node) for node in others):
            self._away[node_id] = asyncio.get_running_loop().time() + AWAY_S

