"""Who leads, by whatever brokers tell; and connections to brokers that hang, fail or come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from streams.config import Config
from streams.kafka import cluster as clusters
from streams.kafka.cluster import (
    ANSWER_S,
    APART_S,
    ASKED_AT_ONCE,
    CONNECT_S,
    HANGS_S,
    LATE_S,
    NOBODY,
    Cluster,
    Connections,
    Leader,
    by_topic,
)
from tests.virtual import now, run, turns

TOPIC, OTHER_TOPIC = "p-changes", "p-requests"
PLACE = (TOPIC, 0)
#: Where the cluster is to be found at first.
BOOTSTRAP = 9
SOME_ID, OTHER_ID = "an id", "another id"

#: Of one partition: its leader, epoch, replicas.
Partition = tuple[int, int, tuple[int, ...]]


def topic(*partitions: Partition, name: str = TOPIC, topic_id: str = SOME_ID, error: int = 0) -> tuple[Any, ...]:
    """What a broker says of a topic."""
    told = [(0, number, *one, list(one[2]), []) for number, one in enumerate(partitions)]
    return error, name, topic_id, False, told, 0


def metadata(*topics: tuple[Any, ...], nodes: tuple[int, ...] = (1, 2, 3)) -> Any:
    """What a broker says of the cluster."""
    return SimpleNamespace(brokers=[(node, "host", node, None) for node in nodes], topics=list(topics))


@dataclass
class Broker:
    """What it answers each request with: an error is raised, None is no answer at all."""

    answer: Any = None
    after_s: float = 0.0
    #: What connecting to it comes to, instead: an error; None is no answer.
    refuses: Any = 0
    connects_after_s: float = 0.0
    asked: list[Any] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)


class Connection:
    """As aiokafka's: an answer that takes too long is a TimeoutError, closing fails what is under way."""

    def __init__(self, broker: Broker, timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = timeout_s
        self._under_way: list[asyncio.Future[Any]] = []
        self.is_open = True
        self.why_closed: Any = None

    def connected(self) -> bool:
        return self.is_open

    def send(self, request: Any) -> Awaitable[Any]:
        if isinstance(request, Exception):
            raise request
        self._broker.asked.append(request)
        self._broker.asked_at.append(now())
        answer = asyncio.get_running_loop().create_future()
        self._under_way.append(answer)
        if self._broker.answer is not None:
            asyncio.get_running_loop().call_later(self._broker.after_s, self._tell, answer, self._broker.answer)
        return asyncio.wait_for(answer, self._timeout_s)

    @staticmethod
    def _tell(answer: asyncio.Future[Any], told: Any) -> None:
        if answer.done():
            return
        if isinstance(told, Exception):
            answer.set_exception(told)
        else:
            answer.set_result(told)

    def close(self, reason: Any = None) -> Awaitable[None]:
        self.is_open, self.why_closed = False, reason
        for answer in self._under_way:
            if not answer.done():
                answer.set_exception(KafkaConnectionError("closed"))
        closed = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed


class World:
    """A cluster, and brokers by their port, which is their number."""

    def __init__(self) -> None:
        self.brokers = {port: Broker() for port in (1, 2, 3, BOOTSTRAP)}
        self.cluster = Cluster(Config(bootstrap_servers=f"host:{BOOTSTRAP}"), "test", [TOPIC])

    async def connect(self, _: str, port: int, *, request_timeout_ms: int, **how: Any) -> Connection:
        broker = self.brokers[port]
        await asyncio.sleep(broker.connects_after_s)
        if broker.refuses is None:
            await asyncio.sleep(10**6)
        if broker.refuses:
            raise broker.refuses
        broker.connections.append(Connection(broker, request_timeout_ms / 1000))
        return broker.connections[-1]

    def told(self, *topics: tuple[Any, ...], nodes: tuple[int, ...] = (1, 2, 3)) -> None:
        """A broker says this of the cluster."""
        self.cluster._learn(metadata(*topics, nodes=nodes))

    def all_say(self, *topics: tuple[Any, ...]) -> None:
        """Every broker says this of the cluster when it is asked."""
        for broker in self.brokers.values():
            broker.answer = metadata(*topics)

    async def start(self, *partitions: Partition) -> None:
        self.all_say(topic(*partitions))
        await self.cluster.start()

    def rounds(self) -> int:
        """How often brokers were asked, if each was each time."""
        assert len({len(self.brokers[node].asked) for node in (1, 2, 3)}) == 1
        return len(self.brokers[1].asked)


def in_a_world(scenario: Callable[[World], Awaitable[None]]) -> None:
    """Run a scenario at once; every connection that it leaves open must be closed by stopping."""

    async def whole() -> None:
        world = World()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(clusters, "create_conn", world.connect)
            await scenario(world)
            await world.cluster.stop()
        left = [one for broker in world.brokers.values() for one in broker.connections if one.is_open]
        assert left == []

    run(whole)


# What is known




def test_nothing_is_known_of_what_nobody_told_of() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        cluster = world.cluster
        assert (cluster.leader(*PLACE), cluster.address(1), cluster.partitions(TOPIC), cluster.nodes()) == (
            None, None, [], []
        )  # fmt: skip
        assert not cluster.is_replaced(PLACE, Leader(1, 0))
        assert not cluster.is_denied(TOPIC)


def test_what_brokers_tell_is_known() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.told(topic((1, 5, (1, 2, 3)), (2, 0, (2, 3, 1))), topic((3, 7, (3,)), name=OTHER_TOPIC))
        cluster = world.cluster
        assert cluster.leader(TOPIC, 0) == Leader(1, 5, (1, 2, 3))
        assert cluster.leader(TOPIC, 1) == Leader(2, 0, (2, 3, 1))
        assert cluster.leader(OTHER_TOPIC, 0) == Leader(3, 7, (3,))
        assert (cluster.partitions(TOPIC), cluster.partitions(OTHER_TOPIC)) == ([0, 1], [0])
        assert sorted(cluster.nodes()) == [1, 2, 3]
        assert cluster.address(2) == ("host", 2)


@pytest.mark.parametrize(
    ("before", "then", "after"),
    [
        ((1, 5, (1, 2)), (2, 6, (1, 2)), (2, 6, (1, 2))),
        ((1, 5, (1, 2)), (2, 4, (1, 2)), (1, 5, (1, 2))),
        ((1, 5, (1, 2)), (1, 4, (1, 2, 3)), (1, 5, (1, 2))),
        ((1, 5, (1, 2)), (NOBODY, 4, (1, 2)), (1, 5, (1, 2))),
        ((1, 5, (1, 2)), (NOBODY, -1, ()), (1, 5, (1, 2))),
        ((1, 5, (1, 2)), (NOBODY, 6, (1, 2)), None),
        ((1, 5, (1, 2)), (NOBODY, 5, (1, 2)), (1, 5, (1, 2))),
        ((NOBODY, 5, (1, 2)), (1, 5, (1, 2)), (1, 5, (1, 2))),
        ((NOBODY, 5, (1, 2)), (1, 4, (1, 2)), None),
        ((1, 5, (1, 2)), (1, 5, (1, 2, 3)), (1, 5, (1, 2, 3))),
        ((1, 5, (1, 2)), (1, 5, (2, 3)), (1, 5, (1, 2, 3))),
        ((1, 5, (1, 2, 3)), (1, 5, (1,)), (1, 5, (1, 2, 3))),
        ((1, 5, (1, 2, 3)), (1, 6, (1, 4)), (1, 6, (1, 4))),
    ],
    ids=[
        "a newer leader", "an older one is not gone back to", "nor are its replicas", "nobody in an older epoch",
        "nobody in no epoch", "nobody in a newer epoch", "for one broker the leader is away", "the leader is back",
        "nobody is known to be newer than somebody", "a replica is added", "replicas are joined within an epoch",
        "none is taken away within an epoch", "some are with a new one",
    ],
)  # fmt: skip
def test_a_leader_is_replaced_by_a_higher_epoch_alone(
    before: Partition, then: Partition, after: Partition | None
) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.told(topic(before))
        version = world.cluster.version
        known = world.cluster._leaders[PLACE]
        world.told(topic(then))
        assert world.cluster.leader(*PLACE) == (None if after is None else Leader(*after))
        assert (world.cluster.version > version) == (world.cluster._leaders[PLACE] != known), "plans are made by it"
        is_replaced = then[1] > before[1] and then[0] != NOBODY
        assert world.cluster.is_replaced(PLACE, Leader(*before)) == is_replaced


def test_whoever_is_asked_last_the_highest_epoch_is_known() -> None:
    """A broker that is cut off from the others goes on naming itself."""

    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        world.brokers[2].answer = world.brokers[3].answer = metadata(topic((2, 6, (1, 2, 3))))
        for late in (1, 2):
            world.brokers[late].after_s, world.brokers[3 - late].after_s = 0.1, 0.0
            assert await world.cluster.refresh()
            assert world.cluster.leader(*PLACE) == Leader(2, 6, (1, 2, 3))
        for node in (2, 3):
            world.brokers[node].answer = KafkaConnectionError("away")
        assert await world.cluster.refresh(), "the one that is cut off answers"
        assert world.cluster.leader(*PLACE) == Leader(2, 6, (1, 2, 3))


def test_a_topic_that_was_made_anew_has_epochs_of_its_own() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.told(topic((1, 5, (1,)), (2, 5, (2,))), topic((1, 9, (1,)), name=OTHER_TOPIC))
        version = world.cluster.version
        world.told(topic((3, 0, (3,)), topic_id=OTHER_ID))
        assert world.cluster.leader(TOPIC, 0) == Leader(3, 0, (3,))
        assert world.cluster.partitions(TOPIC) == [0], "the old one's partitions are gone"
        assert world.cluster.leader(OTHER_TOPIC, 0) == Leader(1, 9, (1,))
        assert world.cluster.version > version


def test_a_topic_that_may_not_be_described_is_denied_until_it_may_be() -> None:
    denied = topic(error=TopicAuthorizationFailedError.errno)

    @in_a_world
    async def scenario(world: World) -> None:
        world.told(topic((1, 5, (1,))))
        world.told(denied)
        assert world.cluster.is_denied(TOPIC)
        assert world.cluster.leader(*PLACE) == Leader(1, 5, (1,)), "a right that is taken away moves no leader"
        world.told(topic(error=UnknownTopicOrPartitionError.errno))
        assert world.cluster.is_denied(TOPIC), "another error says nothing of rights"
        world.told(topic((1, 5, (1,))))
        assert not world.cluster.is_denied(TOPIC)


# Asking


def test_starting_waits_until_a_broker_answers() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.brokers[BOOTSTRAP].refuses = OSError("refused")
        starting = asyncio.create_task(world.cluster.start())
        await asyncio.sleep(5)
        assert not starting.done()
        world.brokers[BOOTSTRAP].refuses = 0
        world.all_say(topic((1, 5, (1,))))
        await starting
        assert world.cluster.leader(*PLACE) == Leader(1, 5, (1,))


def test_starting_says_when_kafka_does_not_let_us_in() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        world.brokers[BOOTSTRAP].refuses = IncompatibleBrokerVersion("or a wrong password")
        with pytest.raises(IncompatibleBrokerVersion):
            await world.cluster.start()


def test_several_brokers_are_asked_at_a_time_and_one_that_does_not_answer_holds_up_none_for_long() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        await world.cluster.refresh()
        world.all_say(topic((2, 6, (1, 2, 3))))
        world.brokers[1].answer = None
        await asyncio.sleep(1)
        began = now()
        assert await world.cluster.refresh()
        assert world.cluster.leader(*PLACE) == Leader(2, 6, (1, 2, 3))
        assert now() - began <= ANSWER_S
        assert world.rounds() == 2


@pytest.mark.parametrize("hangs", ["before it lets us in", "before it answers"])
def test_a_newer_leader_is_known_before_a_broker_that_hangs_has_answered(hangs: str) -> None:
    """Then the question that comes with the next doubt is not held up either: it may be the one that finds it."""

    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        if hangs == "before it lets us in":
            world.brokers[1].refuses = None
        world.brokers[1].answer = None
        for epoch in (6, 7):
            world.cluster.doubt()
            await asyncio.sleep(2 * APART_S)
            world.brokers[2].answer = world.brokers[3].answer = metadata(topic((2, epoch, (1, 2, 3))))
            for _ in range(3):
                world.cluster.doubt()
                await asyncio.sleep(APART_S)
            assert world.cluster.leader(*PLACE) == Leader(2, epoch, (1, 2, 3))


def test_of_many_brokers_some_are_asked_others_the_next_time() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        nodes = tuple(range(20))
        world.brokers = {node: Broker(metadata(topic((1, 5, (1,))), nodes=nodes)) for node in nodes}
        await world.cluster.start()
        for _ in range(20):
            asked = sum(len(broker.asked) for broker in world.brokers.values())
            await world.cluster.refresh()
            assert sum(len(broker.asked) for broker in world.brokers.values()) == asked + ASKED_AT_ONCE
        assert sum(bool(broker.asked) for broker in world.brokers.values()) > ASKED_AT_ONCE


def test_where_no_known_broker_answers_those_of_the_configuration_are_asked() -> None:
    """All brokers may have moved to other addresses."""

    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        for node in (1, 2, 3):
            world.brokers[node].refuses = OSError("nobody listens there")
        world.brokers[4] = Broker()
        world.brokers[BOOTSTRAP].answer = metadata(topic((4, 6, (4,))), nodes=(4,))
        assert await world.cluster.refresh()
        assert world.cluster.leader(*PLACE) == Leader(4, 6, (4,))
        world.brokers[BOOTSTRAP].refuses = OSError("nor there")
        assert not await world.cluster.refresh()
        assert world.cluster.leader(*PLACE) == Leader(4, 6, (4,)), "what was known is known"


def test_all_who_doubt_at_a_time_share_a_question_and_the_next_is_not_asked_at_once() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        began = now()
        for _ in range(1_000):
            world.cluster.doubt()
            await asyncio.sleep(0.001)
        assert now() - began == pytest.approx(1.0)
        assert world.rounds() <= 1.0 / APART_S + 1
        assert world.rounds() >= 0.8 / APART_S
        times = world.brokers[1].asked_at
        assert min(after - before for before, after in pairwise(times)) >= APART_S - 1e-6


def test_who_does_not_doubt_does_not_ask() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        await asyncio.sleep(100)
        assert world.rounds() == 0


def test_who_waits_for_a_question_does_not_end_it_for_others_by_giving_up() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        first, second = (asyncio.create_task(world.cluster.refresh()) for _ in range(2))
        await turns(2)
        first.cancel()
        assert await second


def test_a_topic_is_followed_once() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        for _ in range(3):
            world.cluster.follow(OTHER_TOPIC)
            world.cluster.follow(TOPIC)
            await asyncio.sleep(1)
        assert world.rounds() == 1
        assert world.brokers[1].asked[-1]._names == [TOPIC, OTHER_TOPIC]


# Connections


def test_there_is_one_connection_to_a_broker_and_requests_share_it() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test")
        world.brokers[1].answer = "an answer"
        world.brokers[1].connects_after_s = 1.0
        assert await asyncio.gather(*(connections.send(1, n) for n in range(3))) == ["an answer"] * 3
        later = connections.send(1, "at once")
        assert world.brokers[1].asked == [0, 1, 2, "at once"], "it is on its way when the call returns"
        await later
        assert len(world.brokers[1].connections) == 1
        await connections.close()


def test_who_gives_up_while_it_is_connected_does_not_end_that_for_others() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test")
        world.brokers[1].connects_after_s = 1.0
        first, second = (asyncio.ensure_future(connections.send(1, "a request")) for _ in range(2))
        await turns()
        first.cancel()
        assert await second == world.brokers[1].answer
        await connections.close()


@pytest.mark.parametrize("refuses", [OSError("refused"), RuntimeError("a wrong answer"), None], ids=str)
def test_a_broker_that_is_away_is_told_as_such_and_connected_to_again(refuses: Any) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test")
        world.brokers[1].refuses = refuses
        for _ in range(2):
            began = now()
            with pytest.raises(KafkaConnectionError, match="broker 1 at host:1"):
                await connections.send(1, "a request")
            assert now() - began <= CONNECT_S
        world.brokers[1].refuses = 0
        assert await connections.send(1, "a request") is world.brokers[1].answer
        with pytest.raises(KafkaConnectionError, match="broker 77 is not known"):
            await connections.send(77, "a request")
        await connections.close()


def test_nobody_is_bothered_by_a_broker_that_is_away_when_all_who_waited_for_it_gave_up() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test")
        world.brokers[1].refuses = None
        waiting = asyncio.ensure_future(connections.send(1, "a request"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(CONNECT_S)
        await connections.close()


def test_after_an_answer_that_never_came_the_next_request_has_a_connection_of_its_own() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test", timeout_s=2.0)
        world.brokers[1].answer = None
        began = now()
        with pytest.raises(RequestTimedOutError):
            await connections.send(1, "a request")
        assert now() - began == pytest.approx(2.0)
        world.brokers[1].answer = "an answer"
        assert await connections.send(1, "a request") == "an answer"
        assert [one.is_open for one in world.brokers[1].connections] == [False, True]
        await connections.close()


def test_a_request_that_a_broker_cannot_be_sent_opens_no_more_connections() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test")
        for _ in range(3):
            with pytest.raises(IncompatibleBrokerVersion):
                await connections.send(1, IncompatibleBrokerVersion("too old"))
        assert len(world.brokers[1].connections) == 1
        await connections.close()


def test_closing_ends_what_is_under_way_and_what_is_being_connected() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1,)))
        connections = world.cluster.connections("test")
        await connections.send(1, "a request")
        world.brokers[1].answer, world.brokers[2].refuses = None, None
        under_way = [asyncio.ensure_future(connections.send(node, "a request")) for node in (1, 2)]
        await turns()
        await connections.close()
        first, second = await asyncio.gather(*under_way, return_exceptions=True)
        assert isinstance(first, KafkaConnectionError)
        assert isinstance(second, KafkaConnectionError | asyncio.CancelledError)


# Requests to leaders


async def _asked_of_leader(
    world: World, sent: float, *, connects_after_s: float | None = None
) -> tuple[Connections, asyncio.Future[Any]]:
    """A request to a leader that does not answer, sent at this time."""
    await world.start((1, 5, (1, 2, 3)))
    connections = world.cluster.connections("fetch")
    if connects_after_s is None:
        await connections.send(1, "to have a connection")
    else:
        world.brokers[1].connects_after_s = connects_after_s
    world.brokers[1].answer = None
    await asyncio.sleep(sent - now())
    leaders = {PLACE: Leader(1, 5, (1, 2, 3))}
    return connections, asyncio.ensure_future(connections.send_to_leader(1, "a request", leaders))


@pytest.mark.parametrize("replaced_at", [10.5, 11.0, 12.0, 15.0])
def test_a_request_is_given_up_when_its_leader_is_replaced_but_not_before_it_is_late(replaced_at: float) -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        connections, waiting = await _asked_of_leader(world, 10.0)
        await asyncio.sleep(replaced_at - now())
        for node in (2, 3):
            world.brokers[node].answer = metadata(topic((2, 6, (1, 2, 3))))
        world.brokers[1].refuses = OSError("gone")
        await world.cluster.refresh()
        with pytest.raises(KafkaConnectionError):
            await waiting
        assert now() == pytest.approx(max(replaced_at, 10.0 + LATE_S))
        await connections.close()


def test_a_leader_that_is_replaced_may_answer_until_it_is_late() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2, 3)))
        connections = world.cluster.connections("fetch")
        world.brokers[1].answer, world.brokers[1].after_s = "an answer", LATE_S - 0.01
        waiting = asyncio.ensure_future(connections.send_to_leader(1, "a request", {PLACE: Leader(1, 5)}))
        await turns()
        world.told(topic((2, 6, (1, 2, 3))))
        connections.leaders_changed()
        assert await waiting == "an answer"
        await asyncio.sleep(LATE_S)
        assert world.brokers[1].connections[-1].is_open, "nothing is left to be given up"
        await connections.close()


@pytest.mark.parametrize(
    "news",
    [
        topic((1, 5, (1, 2, 3, 4))),
        topic((NOBODY, 6, (1, 2, 3))),
        topic((1, 5, (1, 2, 3)), (2, 9, (1, 2, 3))),
    ],
    ids=["a replica was added", "nobody leads now", "another partition moved"],
)
def test_a_request_is_waited_for_while_its_leader_is_not_replaced(news: Any) -> None:
    """A partition without a leader has nobody who could answer sooner."""

    @in_a_world
    async def scenario(world: World) -> None:
        connections, waiting = await _asked_of_leader(world, 10.0)
        for node in (2, 3):
            world.brokers[node].answer = metadata(news)
        await world.cluster.refresh()
        await asyncio.sleep(10 * LATE_S)
        assert not waiting.done()
        waiting.cancel()
        await turns()
        await connections.close()


def test_a_request_for_many_partitions_is_given_up_with_one_of_their_leaders() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        await world.start((1, 5, (1, 2)), (1, 3, (1, 2)))
        connections = world.cluster.connections("fetch")
        await connections.send(1, "to have a connection")
        world.brokers[1].answer = None
        leaders = {(TOPIC, 0): Leader(1, 5, (1, 2)), (TOPIC, 1): Leader(1, 3, (1, 2))}
        waiting = asyncio.ensure_future(connections.send_to_leader(1, "a request", leaders))
        await asyncio.sleep(LATE_S)
        world.told(topic((1, 5, (1, 2)), (2, 4, (1, 2))))
        connections.leaders_changed()
        with pytest.raises(KafkaConnectionError):
            await waiting
        await connections.close()


@pytest.mark.parametrize("connects_after_s", [0.0, 0.5 * LATE_S, 2 * LATE_S])
def test_a_request_that_waits_for_a_connection_is_given_up_with_its_leader_too(connects_after_s: float) -> None:
    """Whoever is cut off from its replicas lets us connect, and takes a request that it never answers."""

    @in_a_world
    async def scenario(world: World) -> None:
        connections, waiting = await _asked_of_leader(world, 10.0, connects_after_s=connects_after_s)
        await turns()
        world.told(topic((2, 6, (1, 2, 3))))
        connections.leaders_changed()
        with pytest.raises(KafkaConnectionError):
            await waiting
        assert now() <= 10.0 + connects_after_s + LATE_S
        await connections.close()


def test_what_is_waited_for_is_known_after_a_while_and_until_it_is_answered() -> None:
    @in_a_world
    async def scenario(world: World) -> None:
        connections, waiting = await _asked_of_leader(world, 10.0)
        assert world.cluster.waiting_for() == set()
        await asyncio.sleep(2 * HANGS_S)
        assert world.cluster.waiting_for() == {PLACE}
        await connections.close()
        with pytest.raises(KafkaConnectionError):
            await waiting
        assert world.cluster.waiting_for() == set()


def test_partitions_are_told_apart_by_topic() -> None:
    assert by_topic([("a", 1), ("b", 0), ("a", 0)]) == {"a": [1, 0], "b": [0]}
