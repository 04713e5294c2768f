"""Where logs end: who is asked, whose answers count, and that no acknowledged record lies beyond."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError

from streams.kafka.cluster import Leader
from streams.kafka.protocol import Found, Listed, ListOffsets
from streams.kafka.read_barrier import (
    FENCED_LEADER_EPOCH,
    MORE_AFTER_S,
    NOWHERE,
    OFFSET_OUT_OF_RANGE,
    ROUND_S,
    SHUNNED_S,
    UNFIT_S,
    UNKNOWN_LEADER_EPOCH,
    BarrierError,
    ReadBarrier,
)
from streams.kafka.records import Place
from tests.kafka.wire import Wire, asked, never, places
from tests.virtual import now, run, turns

TOPIC = "p-changes"
PLACE = (TOPIC, 0)
EPOCH, END = 5, 100
LEADER = 1
UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR, OFFSET_NOT_AVAILABLE = 3, 6, 56, 78


class Broker:
    """Answers for all partitions alike, after some time, unless it is told otherwise."""

    def __init__(self, code: int = 0, after_s: float = 0.001) -> None:
        self.code = code
        self.after_s = after_s
        self.end = END
        #: It raises this instead.
        self.error: Exception | None = None
        #: By partition, instead of `code`.
        self.codes: dict[Place, int] = {}
        self.is_silent = False


class World:
    """A barrier; each partition has the replicas 1 to R, the first of them leads."""

    def __init__(self, replicas: int = 3, min_in_sync: int = 2, partitions: int = 1, *, quorum: bool = True) -> None:
        self.brokers = {node: Broker() for node in range(1, replicas + 1)}
        leader = Leader(LEADER, EPOCH, tuple(self.brokers))
        self.places = places(TOPIC, range(partitions))
        self.wire = Wire(self._answer, dict.fromkeys(self.places, leader))
        cluster: Any = self.wire
        self.barrier = ReadBarrier(cluster, {TOPIC: min_in_sync}, quorum=quorum)

    async def _answer(self, node: int, request: Any) -> Any:
        broker = self.brokers[node]
        if broker.is_silent:
            await never()
        await asyncio.sleep(broker.after_s)
        if broker.error is not None:
            raise broker.error
        found: dict[Place, Any] = {}
        for place in asked(request):
            code = broker.codes.get(place, broker.code)
            end = broker.end if code == 0 else -1
            found[place] = Listed(code, end) if isinstance(request, ListOffsets) else Found(code, end, end, [], b"")
        return found

    async def warm(self) -> None:
        """All leaders have answered once in their epoch; nothing was sent yet."""
        assert await self.barrier.ends(self.places) == dict.fromkeys(self.places, END)
        self.wire.forget()

    async def settles(self, *settling: Place) -> bool:
        """Whether all partitions, or none of them, are settled within a round."""
        found = await self.barrier.ends(settling or self.places)
        assert found in ({}, dict.fromkeys(settling or self.places, END))
        return bool(found)

    def others_asked(self) -> list[int]:
        return [sent.node for sent in self.wire.sent if sent.node != LEADER]


def in_a_world(*world: Any, **how: Any) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a scenario at once."""

    def start(scenario: Callable[[World], Awaitable[None]]) -> None:
        run(lambda: scenario(World(*world, **how)))

    return start


# Who must answer

REPLICAS = [(count, least) for count in range(1, 6) for least in range(1, count + 1)]


@pytest.mark.parametrize(("replicas", "min_in_sync"), REPLICAS)
def test_as_many_others_answer_as_leave_too_few_to_have_acknowledged_anything_newer(
    replicas: int, min_in_sync: int
) -> None:
    needed = replicas - min_in_sync

    @in_a_world(replicas, min_in_sync)
    async def scenario(world: World) -> None:
        await world.warm()
        for node in range(2, replicas + 1):
            world.brokers[node].after_s = 0.01 * node / replicas
        began = now()
        assert await world.settles()
        assert world.others_asked() == list(range(2, 2 + needed)), "no more than that are asked at first"
        last = 0.01 * (1 + needed) / replicas if needed else 0.001
        assert now() - began == pytest.approx(last), "it is settled with the last of them"
        assert world.wire.doubts == []


@pytest.mark.parametrize(("replicas", "min_in_sync"), [one for one in REPLICAS if one[0] > one[1]])
def test_one_answer_less_does_not_settle_an_end_and_it_does_not_matter_whose(replicas: int, min_in_sync: int) -> None:
    @in_a_world(replicas, min_in_sync)
    async def scenario(world: World) -> None:
        await world.warm()
        for first in range(2, replicas + 1):
            # As many are silent as may be, and one more.
            for node in range(2, replicas + 1):
                world.brokers[node].is_silent = first <= node < first + min_in_sync - 1
            assert await world.settles()
        for first in range(2, replicas + 1 - min_in_sync + 1):
            for node in range(2, replicas + 1):
                world.brokers[node].is_silent = first <= node < first + min_in_sync
            began = now()
            world.wire.forget()
            assert not await world.settles()
            assert now() - began == pytest.approx(ROUND_S)
            assert world.wire.doubts, "the leader may be another one"


def test_without_a_quorum_the_leader_alone_is_asked() -> None:
    @in_a_world(5, 1, quorum=False)
    async def scenario(world: World) -> None:
        assert world.barrier.needed(TOPIC, Leader(1, 5, (1, 2, 3))) == 0
        assert await world.settles()
        assert world.others_asked() == []
        assert world.barrier.confirm({PLACE: world.wire.leaders[PLACE]}) is None


def test_where_the_least_number_in_sync_is_not_known_it_is_one() -> None:
    @in_a_world(3, 2)
    async def scenario(world: World) -> None:
        leader = Leader(1, 5, (1, 2, 3))
        assert [world.barrier.needed(topic, leader) for topic in (TOPIC, "another")] == [1, 2]
        assert world.barrier.needed(TOPIC, Leader(1, 5, (1,))) == 0, "more in sync than there are"
        assert world.barrier.needed(TOPIC, Leader(1, 5)) == 0


# What counts


@pytest.mark.parametrize("code", [0, OFFSET_OUT_OF_RANGE, UNKNOWN_LEADER_EPOCH])
def test_a_replica_that_knows_no_newer_epoch_counts(code: int) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.brokers[2].code = code
        assert await world.settles()
        assert now() < MORE_AFTER_S
        assert world.wire.doubts == []


@pytest.mark.parametrize(
    "code", [UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR, OFFSET_NOT_AVAILABLE, -1, 29, 100]
)
def test_whatever_else_a_replica_says_does_not_count_and_another_one_is_asked(code: int) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.brokers[2].code = code
        assert await world.settles()
        assert world.others_asked() == [2, 3]
        world.brokers[3].code = code
        began = now()
        assert not await world.settles()
        assert now() - began < 2 * MORE_AFTER_S, "nobody is left who could answer"
        assert world.wire.doubts


@pytest.mark.parametrize("first", [2, 3])
def test_one_replica_that_knows_a_newer_epoch_is_enough_to_discard_an_end(first: int) -> None:
    @in_a_world(3, 1)
    async def scenario(world: World) -> None:
        world.brokers[3].code = FENCED_LEADER_EPOCH
        world.brokers[first].after_s = 0.002
        world.brokers[5 - first].after_s = 0.004
        assert not await world.settles()
        assert now() == pytest.approx(0.004 if first == 2 else 0.002), "the round is over then"
        assert world.wire.doubts[0] == pytest.approx(0.004 if first == 2 else 0.002), "who leads is asked for at once"


@pytest.mark.parametrize("is_known", [True, False], ids=["by a fetch", "by a question for the end"])
@pytest.mark.parametrize(
    "code",
    [FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, NOT_LEADER_OR_FOLLOWER, OFFSET_OUT_OF_RANGE, OFFSET_NOT_AVAILABLE, -1],
)
def test_no_error_of_a_leader_is_an_end(code: int, is_known: bool) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        if is_known:
            await world.warm()
        world.brokers[LEADER].code = code
        assert not await world.settles()
        assert world.wire.doubts
        assert {type(sent.request).__name__ for sent in world.wire.sent if sent.node == LEADER} == {
            "Fetch" if is_known else "ListOffsets"
        }
        world.brokers[LEADER].code = 0
        assert await world.settles(), "the next time is another time"


def test_a_partition_without_a_leader_is_left_out_and_the_cluster_is_doubted() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        del world.wire.leaders[TOPIC, 1]
        assert await world.barrier.ends(world.places) == {PLACE: END}
        assert len(world.wire.doubts) == 1
        assert await world.barrier.ends([(TOPIC, 1)]) == {}


def test_an_answer_that_nobody_expects_fails_the_question() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.brokers[2].error = ValueError("no answer of this version")
        with pytest.raises(ValueError, match="no answer"):
            await world.barrier.ends(world.places)


# Brokers that do not answer


def test_where_a_broker_does_not_answer_the_others_are_asked_soon_and_first_the_next_times() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        await world.warm()
        world.brokers[2].is_silent = True
        began = now()
        assert await world.settles()
        assert now() - began == pytest.approx(MORE_AFTER_S + 0.001)
        assert world.others_asked() == [2, 3]
        for _ in range(3):
            world.wire.forget()
            began = now()
            assert await world.settles()
            assert now() - began == pytest.approx(0.001)
            assert world.others_asked() == [3]
        world.wire.forget()
        world.brokers[2].is_silent = False
        await asyncio.sleep(SHUNNED_S)
        assert await world.settles()
        assert world.others_asked() == [2], "it has its chance again"


def test_a_broker_that_is_away_is_not_asked_first_for_a_while() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        await world.warm()
        world.brokers[2].error = KafkaConnectionError("away")
        assert await world.settles()
        world.wire.forget()
        assert await world.settles()
        assert world.others_asked() == [3]


def test_when_all_are_shunned_they_are_asked_all_the_same() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        await world.warm()
        for node in (2, 3):
            world.brokers[node].error = KafkaConnectionError("away")
        assert not await world.settles()
        for node in (2, 3):
            world.brokers[node].error = None
        assert await world.settles()


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_leader_that_is_away_settles_nothing_within_a_round(is_silent: bool) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.brokers[LEADER].is_silent = is_silent
        world.brokers[LEADER].error = KafkaConnectionError("away")
        assert not await world.settles()
        assert now() == pytest.approx(ROUND_S if is_silent else MORE_AFTER_S + 0.001)
        assert world.wire.doubts


def test_a_partition_that_is_not_settled_delays_none_that_is() -> None:
    @in_a_world(partitions=3)
    async def scenario(world: World) -> None:
        await world.warm()
        for node in (2, 3):
            world.brokers[node].codes[TOPIC, 1] = NOT_LEADER_OR_FOLLOWER
        world.brokers[4] = Broker()
        world.brokers[4].is_silent = True
        world.wire.leaders[TOPIC, 2] = Leader(4, EPOCH, (4, 2, 3))
        told: dict[Place, float] = {}
        began = now()
        found = await world.barrier.ends(world.places, lambda place, _: told.__setitem__(place, now() - began))
        assert found == {PLACE: END}
        assert told == {PLACE: pytest.approx(0.001)}
        assert now() - began == pytest.approx(ROUND_S)


def test_whoever_waits_for_every_end_waits_for_brokers_that_are_away() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.wire.leaders[TOPIC, 1] = Leader(2, EPOCH, (2, 3))
        world.brokers[2].error = KafkaConnectionError("away")
        waiting = asyncio.create_task(world.barrier.every_end(world.places))
        await asyncio.sleep(10)
        assert not waiting.done()
        assert len(world.wire.sent) < 10 / MORE_AFTER_S * 3, "it is asked again, but not all the time"
        world.brokers[2].error = None
        assert await waiting == dict.fromkeys(world.places, END)
        assert now() < 10 + 2 * ROUND_S


# What is asked


def test_each_broker_is_sent_one_request_for_all_partitions() -> None:
    """It leads some of them, and follows others; the first time one more is sent for the ends of those it leads."""

    @in_a_world(partitions=9)
    async def scenario(world: World) -> None:
        nodes = [1, 2, 3]
        for number, place in enumerate(world.places):
            world.wire.leaders[place] = Leader(nodes[number % 3], EPOCH + number, tuple(nodes))
        await world.barrier.ends(world.places)
        assert sorted(sent.node for sent in world.wire.questions()) == nodes
        fetched = [sent.node for sent in world.wire.fetches()]
        assert sorted(fetched) == sorted(set(fetched))
        world.wire.forget()
        assert await world.settles()
        assert sorted(sent.node for sent in world.wire.sent) == nodes
        assert world.wire.questions() == []
        assert len({sent.at for sent in world.wire.sent}) == 1, "all at the same time"
        for sent in world.wire.sent:
            for (_, number), (epoch, offset, most) in sent.asked.items():
                assert epoch == EPOCH + number
                assert offset == (END if sent.node == nodes[number % 3] else NOWHERE)
                assert most == 1
        places_asked = [place for sent in world.wire.sent for place in sent.asked]
        assert sorted(places_asked) == sorted(world.places * 2)


def test_the_question_waits_for_nothing_and_reads_next_to_nothing() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        await world.settles()
        ((replica, wait_ms, least, most, level, session, session_epoch),) = {
            one.request._BEGIN.unpack(one.request._begin) for one in world.wire.fetches()
        }
        assert (replica, wait_ms, least, most, level, session, session_epoch) == (-1, 0, 0, 1, 0, 0, -1)
        assert world.wire.timeouts["barrier"] < ROUND_S, "a dead connection is closed before a round gives up"


def test_a_leader_is_asked_for_the_end_once_in_each_epoch_before_its_fetches_count() -> None:
    """Just elected, it tells of its high watermark in a fetch before it knows how far its predecessor's went."""

    @in_a_world(1, 1)
    async def scenario(world: World) -> None:
        def kinds() -> str:
            names = "".join(type(sent.request).__name__[0] for sent in world.wire.sent)
            world.wire.forget()
            return names

        for epoch in (EPOCH, EPOCH + 1, EPOCH + 7):
            world.wire.leaders[PLACE] = Leader(LEADER, epoch, (1,))
            for _ in range(3):
                assert await world.settles()
                await asyncio.sleep(60)
            assert kinds() == "LFF"
        world.brokers[LEADER].code = OFFSET_NOT_AVAILABLE
        world.wire.leaders[PLACE] = Leader(LEADER, EPOCH + 8, (1,))
        for _ in range(3):
            assert not await world.settles()
        assert kinds() == "LLL", "no answer is none"


def test_where_a_fetch_found_nothing_to_read_the_leader_is_asked_for_the_end() -> None:
    """The log may be a shorter one than it was."""

    @in_a_world(1, 1)
    async def scenario(world: World) -> None:
        await world.warm()
        world.barrier.heard(PLACE, END + 50)
        world.barrier.heard(PLACE, END)
        world.brokers[LEADER].code = OFFSET_OUT_OF_RANGE
        assert not await world.settles()
        assert [sent.asked[PLACE][1] for sent in world.wire.fetches()] == [END + 50]
        world.brokers[LEADER].code = 0
        assert await world.settles()
        assert len(world.wire.questions()) == 1


def test_what_a_fetch_tells_counts_if_it_was_sent_after_the_leaders_answer_in_this_epoch() -> None:
    @in_a_world(1, 1)
    async def scenario(world: World) -> None:
        leader = world.wire.leaders[PLACE]
        counts = world.barrier.counts
        await asyncio.sleep(10)
        world.barrier.heard(PLACE, END)
        assert not counts(PLACE, leader, 1_010.0), "that it has told an end in a fetch is no answer"
        assert await world.settles()
        at = 1_000 + now()
        assert [counts(PLACE, leader, sent) for sent in (at - 0.0005, at, at + 1_000)] == [False, True, True]
        assert not counts(PLACE, Leader(LEADER, EPOCH + 1, (1,)), at)
        assert not counts(PLACE, Leader(LEADER, EPOCH - 1, (1,)), at)
        assert not counts((TOPIC, 1), leader, at)


# Confirmations


@pytest.mark.parametrize(("replicas", "min_in_sync"), [(1, 1), (3, 3), (2, 3)])
def test_where_nobody_needs_to_be_asked_there_is_nothing_to_confirm(replicas: int, min_in_sync: int) -> None:
    @in_a_world(replicas, min_in_sync)
    async def scenario(world: World) -> None:
        assert world.barrier.confirm(world.wire.leaders) is None
        assert world.wire.sent == []


@pytest.mark.parametrize(("code", "is_confirmed"), [(0, True), (FENCED_LEADER_EPOCH, False), (-1, False)])
def test_a_confirmation_asks_at_once_and_the_other_replicas_alone(code: int, is_confirmed: bool) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        for node in (2, 3):
            world.brokers[node].code = code
        confirmation = world.barrier.confirm(world.wire.leaders)
        assert confirmation is not None
        assert [(sent.node, sent.asked) for sent in world.wire.sent] == [(2, {PLACE: (EPOCH, NOWHERE, 1)})]
        both = await asyncio.gather(confirmation.confirmed(PLACE), confirmation.confirmed(PLACE))
        assert both == [is_confirmed] * 2
        assert await confirmation.confirmed(PLACE) == is_confirmed, "it is known for good"
        assert LEADER not in {sent.node for sent in world.wire.sent}
        assert bool(world.wire.doubts) != is_confirmed


def test_who_gives_up_waiting_for_a_confirmation_does_not_end_it() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        confirmation = world.barrier.confirm(world.wire.leaders)
        assert confirmation is not None
        waiting = asyncio.create_task(confirmation.confirmed(PLACE))
        await turns()
        waiting.cancel()
        assert await confirmation.confirmed(PLACE)


def test_each_partition_is_confirmed_by_itself() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        for node in (2, 3):
            world.brokers[node].codes[TOPIC, 1] = FENCED_LEADER_EPOCH
        confirmation = world.barrier.confirm(world.wire.leaders)
        assert confirmation is not None
        assert [await confirmation.confirmed(place) for place in world.places] == [True, False]


def test_a_partition_for_which_nobody_needs_to_be_asked_is_confirmed_with_those_for_which_somebody_does() -> None:
    """Partitions of a topic may have different numbers of replicas."""

    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.wire.leaders[TOPIC, 1] = Leader(LEADER, EPOCH, (1, 2))
        confirmation = world.barrier.confirm(world.wire.leaders)
        assert confirmation is not None
        assert [await confirmation.confirmed(place) for place in world.places] == [True, True]


def test_what_is_not_confirmed_within_a_round_is_not_confirmed() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        for node in (2, 3):
            world.brokers[node].is_silent = True
        confirmation = world.barrier.confirm(world.wire.leaders)
        assert confirmation is not None
        assert not await confirmation.confirmed(PLACE)
        assert now() == pytest.approx(ROUND_S)


# Ends


def test_a_question_that_is_given_up_leaves_nothing_under_way() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        for broker in world.brokers.values():
            broker.is_silent = True
        asking = asyncio.create_task(world.barrier.ends(world.places))
        await turns()
        asking.cancel()
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()} | {
            task for task in asyncio.all_tasks() if task.get_coro().__qualname__.startswith(("run.", "in_a_world"))
        }


def test_stopping_closes_the_connections() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        await world.barrier.stop()
        assert world.wire.closed == 1


# The check at a worker's start


class Replicas:
    """Answers the check as Apache Kafka's replicas do, by the epoch that they know, or in a way of their own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epochs = dict.fromkeys(world.brokers, EPOCH)
        #: By broker, what it says instead: a code, or an error that is raised.
        self.says: dict[int, Any] = {}
        world.wire.answer = self._answer

    async def _answer(self, node: int, request: Any) -> Any:
        await asyncio.sleep(0.001)
        said = self.says.get(node)
        if isinstance(said, Exception):
            raise said
        codes = {place: self._code(node, epoch, said) for place, (epoch, *_) in asked(request).items()}
        return {place: Found(code, -1, -1, [], b"") for place, code in codes.items()}

    def _code(self, node: int, epoch: int, said: int | None) -> int:
        if said is not None:
            return said
        known = self.epochs[node]
        return OFFSET_OUT_OF_RANGE if epoch == known else UNKNOWN_LEADER_EPOCH if epoch > known else FENCED_LEADER_EPOCH


def test_replicas_that_answer_as_kafkas_are_fit_at_once_and_one_of_them_is_enough() -> None:
    for away in ([], [2], [3]):

        @in_a_world()
        async def scenario(world: World, away: list[int] = away) -> None:
            replicas = Replicas(world)
            replicas.says = dict.fromkeys(away, KafkaConnectionError("away"))
            await world.barrier.check(TOPIC)
            assert now() < 1


@pytest.mark.parametrize("replicas", [1, 2])
def test_where_nobody_needs_to_be_asked_nothing_is_checked(replicas: int) -> None:
    @in_a_world(replicas, replicas)
    async def scenario(world: World) -> None:
        await world.barrier.check(TOPIC)
        assert world.wire.sent == []


@pytest.mark.parametrize(
    "said",
    [0, OFFSET_OUT_OF_RANGE, NOT_LEADER_OR_FOLLOWER, UNKNOWN_LEADER_EPOCH, IncompatibleBrokerVersion("Fetch")],
    ids=["looks at no epoch", "looks at no epoch, nor has records", "no follower answers", "knows none", "is too old"],
)
def test_replicas_that_do_not_answer_as_kafkas_are_refused_after_a_while(said: Any) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        Replicas(world).says = dict.fromkeys((2, 3), said)
        with pytest.raises(BarrierError, match=f"{TOPIC} do not say .* CONSENT_READ_BARRIER=leader"):
            await world.barrier.check(TOPIC)
        assert UNFIT_S < now() < UNFIT_S + 1


def test_brokers_that_are_away_or_do_not_know_their_partitions_yet_are_waited_for() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        replicas = Replicas(world)
        replicas.says = {2: KafkaConnectionError("away"), 3: KafkaConnectionError("away")}
        checking = asyncio.create_task(world.barrier.check(TOPIC))
        await asyncio.sleep(10 * UNFIT_S)
        assert not checking.done()
        replicas.says = {2: UNKNOWN_TOPIC_OR_PARTITION, 3: KafkaConnectionError("away")}
        await asyncio.sleep(UNFIT_S / 2)
        replicas.says = {}
        await checking
