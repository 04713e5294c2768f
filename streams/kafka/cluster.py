"""Who leads which partition, and connections to the brokers, of our own.

aiokafka's client believes whatever broker it asks last. A broker that is cut off from the others goes on naming itself
the leader of what it led, so a leader here is only replaced by one with a higher epoch, whoever tells of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    for_code,
)

from streams.config import Config
from streams.kafka.connection import connection
from streams.kafka.metadata import MetadataRequest
from streams.kafka.records import Place
from streams.logs import OngoingBy

log = logging.getLogger(__name__)

#: The leader of a partition that has none at the moment.
NOBODY = -1
#: At most this many brokers are asked for metadata at a time. One of them may be cut off, another one away.
ASKED_AT_ONCE = 5
#: A broker that lives answers a question about metadata in milliseconds.
ANSWER_S = 1.0
#: The TCP handshake and the login with a broker that lives take less than this.
CONNECT_S = 3.0
#: Whoever leads answers sooner than this. Later it is not waited for if a newer leader is known.
LATE_S = 1.0
#: Whoever has not answered for this long may be a leader no more.
HANGS_S = 0.5
#: What passes sooner is no news.
NEWS_S = 1.0
#: The least time between two rounds of questions.
APART_S = 0.1


class Leader(NamedTuple):
    """Who leads a partition in an epoch, and the brokers that hold the partition. Per epoch there is one leader."""

    node: int
    epoch: int
    replicas: tuple[int, ...] = ()


class Connections:
    """One connection to each broker that is sent something, opened when it is needed first, and again after a fault.

    Kafka answers the requests of a connection in order: what must not wait behind a long poll has connections of its
    own. `timeout_s` is how long an answer may take; the connection is closed then, and with it all that is under way.
    """

    def __init__(self, cluster: Cluster, name: str, timeout_s: float) -> None:
        self._cluster = cluster
        self._name = name
        self._timeout_s = timeout_s
        self._open: dict[int, AIOKafkaConnection] = {}
        self._opening: dict[int, asyncio.Task[AIOKafkaConnection]] = {}
        #: By number, requests that are only answered by the leaders of what they are about: when each was sent (in
        #: monotonic seconds), to which broker, and who led then.
        self._to_leaders: dict[int, tuple[float, int, Mapping[Place, Leader]]] = {}
        self._numbers = count()

    def send(self, node: int, request: Any) -> Awaitable[Any]:
        """Send a request; to be awaited is its answer.

        The request is on its way when this returns if there is a connection. What this returns must be awaited; that
        raises KafkaError: KafkaConnectionError while the broker is away, RequestTimedOutError after `timeout_s`.
        """
        conn = self._open.get(node)
        if conn is not None and conn.connected():
            with suppress(KafkaError):
                return self._answer(node, conn, conn.send(request))
        return self._open_and_send(node, request)

    def send_to_leader(self, node: int, request: Any, leaders: Mapping[Place, Leader]) -> Awaitable[Any]:
        """Send a request to the broker that leads all these partitions; to be awaited is its answer.

        As `send`; and awaiting raises KafkaConnectionError LATE_S after it was sent once one of these leaders is known
        to be replaced: one that hangs, or is cut off from its replicas, may never answer.
        """
        number = next(self._numbers)
        self._to_leaders[number] = monotonic(), node, leaders
        return self._answer_of_leader(number, self.send(node, request))

    async def _answer_of_leader(self, number: int, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        finally:
            del self._to_leaders[number]

    def waiting_for(self) -> Iterable[Place]:
        """The partitions whose leaders have not answered for some time."""
        since = monotonic() - HANGS_S
        return [place for sent, _, leaders in self._to_leaders.values() if sent < since for place in leaders]

    def leaders_changed(self) -> None:
        """Give up what waits for leaders that are replaced."""
        later = []
        for sent, node, leaders in list(self._to_leaders.values()):
            if any(self._cluster.is_replaced(place, leader) for place, leader in leaders.items()):
                left = sent + LATE_S - monotonic()
                if left > 0:
                    later.append(left)
                elif node in self._opening:
                    # It is sent as soon as there is a connection.
                    later.append(APART_S)
                else:
                    self.drop(node)
        if later:
            asyncio.get_running_loop().call_later(min(later), self.leaders_changed)

    async def _open_and_send(self, node: int, request: Any) -> Any:
        conn: AIOKafkaConnection = self._open.get(node)
        if conn is None or not conn.connected():
            task = self._opening.get(node)
            if task is None:
                task = self._opening[node] = asyncio.create_task(self._connect(node), name=f"{self._name}: connect")
                task.add_done_callback(lambda _: self._opening.pop(node, None))
            # One connection for all who wait for it; none of them ends it for the others.
            conn = await asyncio.shield(task)
        return await self._answer(node, conn, conn.send(request))

    async def _answer(self, node: int, conn: AIOKafkaConnection, answer: Awaitable[Any]) -> Any:
        try:
            found = await answer
        except TimeoutError as error:
            # The next request gets a connection of its own.
            conn.close(reason=CloseReason.CONNECTION_TIMEOUT)
            self._cluster.away.happens(node, "no answer in time")
            raise RequestTimedOutError from error
        except KafkaConnectionError as error:
            self._cluster.away.happens(node, error)
            raise
        self._cluster.away.over(node)
        return found

    async def _connect(self, node: int) -> AIOKafkaConnection:
        address = self._cluster.address(node)
        if address is None:
            raise KafkaConnectionError(f"broker {node} is not known")
        try:
            async with asyncio.timeout(CONNECT_S):
                conn = await create_conn(
                    *address,
                    client_id=self._name,
                    request_timeout_ms=int(self._timeout_s * 1000),
                    **self._cluster.login,
                )
        except (OSError, TimeoutError, RuntimeError, KafkaConnectionError) as error:
            reason = str(error) or "no answer in time"
            self._cluster.away.happens(node, f"at {address[0]}:{address[1]}: {reason}")
            raise KafkaConnectionError(f"broker {node} at {address[0]}:{address[1]}: {reason}") from error
        self._open[node] = conn
        return conn

    def drop(self, node: int) -> None:
        """Close the connection to a broker: what is under way to it fails with KafkaConnectionError."""
        conn = self._open.pop(node, None)
        if conn is not None:
            conn.close(reason=CloseReason.CONNECTION_BROKEN)

    async def close(self) -> None:
        """Close all connections; waits until they are closed."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        if opening:
            await asyncio.wait(opening)
        closed = [conn.close(reason=CloseReason.SHUTDOWN) for conn in self._open.values() if conn.connected()]
        self._open.clear()
        if closed:
            await asyncio.wait([asyncio.ensure_future(one) for one in closed], timeout=ANSWER_S)


class Cluster:
    """The brokers, and the leaders of some topics' partitions, by the highest epoch that any broker told.

    `start` waits for the cluster; nothing else blocks but `refresh`. All methods belong to one event loop.
    """

    def __init__(self, config: Config, name: str, names: Iterable[str]) -> None:
        self._bootstrap_servers = config.bootstrap_servers
        #: How to log in, in aiokafka's words.
        self.login = {name: value for name, value in connection(config).items() if name != "bootstrap_servers"}
        #: What is logged of brokers that do not answer.
        self.away = OngoingBy(log, "broker %s does not answer", after_s=NEWS_S)
        #: And of partitions that nothing can be written to, whoever writes.
        self.not_written = OngoingBy(log, "%s-%d is not written to yet", after_s=NEWS_S)
        self._name = name
        self._names = list(names)
        self._addresses: dict[int, tuple[str, int]] = {}
        self._leaders: dict[Place, Leader] = {}
        self._topic_ids: dict[str, Any] = {}
        self._denied: set[str] = set()
        self._users: list[Connections] = []
        self._connections = self.connections("metadata", ANSWER_S)
        self._refreshing: asyncio.Task[bool] | None = None
        #: Questions to brokers, those among them that were not waited for.
        self._asking: set[asyncio.Task[bool]] = set()
        #: When (monotonic seconds) the brokers were asked last.
        self._asked_at = -APART_S
        #: Grows with every change of a leader or of a partition's replicas.
        self.version = 0

    def connections(self, purpose: str, timeout_s: float = 40.0) -> Connections:
        """Connections for one purpose; who asks for them closes them."""
        self._users.append(Connections(self, f"{self._name}-{purpose}", timeout_s))
        return self._users[-1]

    async def start(self) -> None:
        """Wait until some broker has told of the topics. Raises KafkaError where Kafka does not let us in."""
        is_there = await self.refresh()
        while not is_there:
            is_there = await self.refresh()

    async def stop(self) -> None:
        """Close the connections that metadata are asked for on."""
        tasks = {*self._asking, *([self._refreshing] if self._refreshing else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._connections.close()

    def leader(self, topic: str, partition: int) -> Leader | None:
        """Who leads a partition; None while it has no leader, or is not known."""
        found = self._leaders.get((topic, partition))
        return None if found is None or found.node == NOBODY else found

    def is_replaced(self, place: Place, leader: Leader) -> bool:
        """Whether a newer leader than this is known by now."""
        found = self._leaders.get(place)
        return found is not None and found.epoch > leader.epoch and found.node != NOBODY

    def address(self, node: int) -> tuple[str, int] | None:
        """Host and port of a broker; None if it is not known."""
        return self._addresses.get(node)

    def partitions(self, topic: str) -> list[int]:
        """The numbers of a topic's partitions, as far as they are known."""
        return sorted(number for name, number in self._leaders if name == topic)

    def nodes(self) -> list[int]:
        """The brokers that are known."""
        return list(self._addresses)

    def waiting_for(self) -> set[Place]:
        """The partitions whose leaders have not answered a request for some time, whoever sent it."""
        return {place for user in self._users for place in user.waiting_for()}

    def is_denied(self, topic: str) -> bool:
        """Whether the last answer refused to describe a topic."""
        return topic in self._denied

    def follow(self, topic: str) -> None:
        """Learn of one more topic."""
        if topic not in self._names:
            self._names.append(topic)
            self.doubt()

    def doubt(self) -> None:
        """What is known may be old: ask again, soon. Does not wait."""
        self._ask_again()

    def _ask_again(self) -> asyncio.Task[bool]:
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="metadata")
            self._refreshing.add_done_callback(self._refreshed)
        return self._refreshing

    async def refresh(self) -> bool:
        """Ask the brokers, and wait for their answers; whether there was one."""
        return await asyncio.shield(self._ask_again())

    def _refreshed(self, task: asyncio.Task[bool]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()

    async def _refresh(self) -> bool:
        # Who is in doubt all the time does not ask all the time.
        await asyncio.sleep(max(0.0, self._asked_at + APART_S - monotonic()))
        self._asked_at = monotonic()
        nodes = random.sample(list(self._addresses), min(ASKED_AT_ONCE, len(self._addresses)))
        request = MetadataRequest(self._names)
        left = {asyncio.create_task(self._ask(node, request), name=f"metadata of broker {node}") for node in nodes}
        self._asking |= left
        for task in left:
            task.add_done_callback(self._asking.discard)
        is_told = False
        while left and not is_told:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            is_told = any(task.result() for task in done)
        if left:
            # Others may know more. One that hangs tells when it does: what is asked next does not wait for it.
            await asyncio.wait(left, timeout=APART_S)
        return is_told or await self._bootstrap(request)

    async def _ask(self, node: int, request: MetadataRequest) -> bool:
        try:
            answer = await self._connections.send(node, request)
        except KafkaError as error:
            log.debug("no metadata from broker %s: %r", node, error)
            return False
        self._learn(answer)
        return True

    async def _bootstrap(self, request: MetadataRequest) -> bool:
        """Ask at the addresses that were configured, up to the first answer; whether there was one."""
        for host, port, _ in collect_hosts(self._bootstrap_servers):
            conn = None
            try:
                async with asyncio.timeout(CONNECT_S):
                    conn = await create_conn(host, port, client_id=self._name, request_timeout_ms=2_000, **self.login)
                    self._learn(await conn.send(request))
                    return True
            except (OSError, TimeoutError, KafkaConnectionError, RequestTimedOutError) as error:
                log.debug("no metadata from %s:%s: %r", host, port, error)
            finally:
                if conn is not None:
                    conn.close()
        return False

    def _learn(self, answer: Any) -> None:
        version = self.version
        for node, host, port, *_ in answer.brokers:
            self._addresses[node] = (host, port)
        for error_code, name, topic_id, _, partitions, *_ in answer.topics:
            if for_code(error_code) is TopicAuthorizationFailedError:
                self._denied.add(name)
            elif not error_code:
                self._denied.discard(name)
                self._learn_topic(name, topic_id, partitions)
        if self.version != version:
            for user in self._users:
                user.leaders_changed()

    def _learn_topic(self, name: str, topic_id: Any, partitions: Iterable[Any]) -> None:
        if self._topic_ids.setdefault(name, topic_id) != topic_id:
            # Made anew, with epochs of its own.
            self._topic_ids[name] = topic_id
            for place in [place for place in self._leaders if place[0] == name]:
                del self._leaders[place]
        for _, number, node, epoch, replicas, *_ in partitions:
            known = self._leaders.get((name, number))
            told = Leader(node, epoch, tuple(replicas))
            if known is not None and epoch == known.epoch:
                # A broker names nobody while the leader is not alive for it. Replicas that are added start no new
                # epoch, those that are removed do: within one there are all that any broker tells of.
                both = known.replicas + tuple(set(replicas) - set(known.replicas))
                told = Leader(node if known.node == NOBODY else known.node, epoch, both)
            if known is None or epoch > known.epoch or (epoch == known.epoch and told != known):
                self._leaders[name, number] = told
                self.version += 1


def by_topic(places: Iterable[Place]) -> Mapping[str, list[int]]:
    """Partitions by their topic."""
    found: dict[str, list[int]] = {}
    for topic, partition in places:
        found.setdefault(topic, []).append(partition)
    return found
