"""The read barrier: where a log ends, at a moment after the question, whatever leader was elected or cut off meanwhile.

A leader that was replaced and does not know it answers with its old end. But what its successor acknowledged is held by
at least `min.insync.replicas` replicas, and each of these learned of the successor's epoch before it fetched that. So
beside the leader, enough of the other replicas are asked whether they know of a newer epoch than the leader's: of R
replicas, R - `min.insync.replicas`. Those that say no would otherwise miss in every set that could have acknowledged
something newer. `streams/engine/decisions/read-barrier.md` has the argument and its conditions.

The question is a Fetch with the leader's epoch, one byte at most: any replica answers it, and looks at the epoch first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic
from typing import NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion, KafkaError

from streams.kafka.cluster import Cluster, Connections, Leader
from streams.kafka.protocol import Fetch, Found, ListOffsets
from streams.kafka.records import Place

log = logging.getLogger(__name__)

#: One round of questions takes at most this long. What is not answered then is asked anew, by what is known then.
ROUND_S = 1.0
#: Less than a round, so that a connection on which nothing comes any more is closed before its round gives up.
ANSWER_S = 0.8 * ROUND_S
#: Replicas beyond the least number are asked when the first have not answered after this time.
MORE_AFTER_S = 0.05
#: A broker that did not answer is not among the first to be asked for this long.
SHUNNED_S = 5.0
#: No log has a record there: a replica that knows no newer epoch says so (OFFSET_OUT_OF_RANGE), and reads nothing.
NOWHERE = 1 << 62

OFFSET_OUT_OF_RANGE, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH = 1, 74, 75
#: Answers of a replica that has taken part in no newer epoch; of an unknown epoch it knows less than we do.
KNOWS_NO_NEWER = frozenset({0, OFFSET_OUT_OF_RANGE, UNKNOWN_LEADER_EPOCH})

#: Replicas that answer otherwise for this long are not fit for the question.
UNFIT_S = 5.0


class BarrierError(Exception):
    """The brokers do not answer what the read barrier asks them; the message is one clear line."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"the replicas of {topic} do not say which leader's epoch they know (Fetch with a leader epoch, as Apache "
            "Kafka answers it): a leader that was replaced could hide acknowledged changes. "
            "CONSENT_READ_BARRIER=leader goes on without that promise"
        )


Settled = Callable[[Place, int], None]


def epoch_question(topics: Mapping[str, list[tuple[int, int, int, int]]]) -> Fetch:
    """A Fetch that is answered at once and reads one byte at most, of partitions as `Fetch` takes them, by topic."""
    return Fetch(list(topics.items()), max_wait_ms=0, min_bytes=0, max_bytes=1, isolation_level=0)


class Confirmation:
    """Whether some leaders were the newest at a moment after this was made, as soon as it is known."""

    def __init__(self, asking: Awaitable[None], settled: set[Place]) -> None:
        self._asking = asyncio.ensure_future(asking)
        self._settled = settled

    async def confirmed(self, place: Place) -> bool:
        """Wait for the answers; False if the leader was replaced, or too few replicas answered within ROUND_S."""
        if not self._asking.done():
            await asyncio.shield(self._asking)
        return place in self._settled


class _Sure(NamedTuple):
    """From when on (monotonic seconds) a leader's fetches tell what it has acknowledged, and its predecessors."""

    epoch: int
    since: float


class ReadBarrier:
    """Ends of partitions that no acknowledged record is beyond. All methods belong to one event loop.

    `min_in_sync`: `min.insync.replicas` of each topic, by full name; 1 where it is not known. `quorum`: False asks the
    leader alone, for brokers whose followers do not answer; then a leader that was replaced can hide what is newer.
    """

    def __init__(self, cluster: Cluster, min_in_sync: Mapping[str, int], *, quorum: bool = True) -> None:
        self._cluster = cluster
        self._min_in_sync = min_in_sync
        self._quorum = quorum
        self._connections: Connections = cluster.connections("barrier", ANSWER_S)
        self._sure: dict[Place, _Sure] = {}
        #: The highest end that each partition was heard to have: where a leader can be asked for the end by a fetch.
        self._heard: dict[Place, int] = {}
        #: Until when a broker is not asked first.
        self._shunned: dict[int, float] = {}

    async def check(self, topic: str) -> None:
        """Make sure that replicas answer the question about a topic's partitions, and that they look at the epoch.

        Returns once one replica has; at once where none needs to be asked. Waits for brokers that are away. Raises
        BarrierError where those that are there do not answer as Apache Kafka's do.
        """
        since = None
        while True:
            verdicts = await self._probe(topic)
            if verdicts is None or True in verdicts:
                return
            if False in verdicts:
                since = since or monotonic()
                # A broker that has just come up knows of its partitions in a moment.
                if monotonic() - since > UNFIT_S:
                    raise BarrierError(topic)
            await self._cluster.refresh()

    async def _probe(self, topic: str) -> list[bool] | None:
        """Of each replica that answered, whether it did as it must; None if none needs to be asked."""
        asked: dict[int, list[tuple[int, int]]] = defaultdict(list)
        is_known = False
        for number in self._cluster.partitions(topic):
            leader = self._cluster.leader(topic, number)
            is_known |= leader is not None
            if leader is not None and self.needed(topic, leader):
                for node in leader.replicas:
                    if node != leader.node:
                        asked[node].append((number, leader.epoch))
        if is_known and not asked:
            return None
        verdicts = await asyncio.gather(*(self._is_fit(topic, node, some) for node, some in asked.items()))
        return [verdict for verdict in verdicts if verdict is not None]

    async def _is_fit(self, topic: str, node: int, partitions: list[tuple[int, int]]) -> bool | None:
        """Whether a replica tells an epoch that it knows from one that it does not; None if it does not answer."""
        found = []
        for more in (0, 1):
            asked = [(number, epoch + more, NOWHERE, 1) for number, epoch in partitions]
            try:
                found.append(await self._connections.send(node, epoch_question({topic: asked})))
            except IncompatibleBrokerVersion:
                return False
            except KafkaError:
                return None
        known, unknown = found
        return any(
            one.error in (0, OFFSET_OUT_OF_RANGE) and place in unknown and unknown[place].error == UNKNOWN_LEADER_EPOCH
            for place, one in known.items()
        )

    async def stop(self) -> None:
        """Close the connections; questions under way fail."""
        await self._connections.close()

    def needed(self, topic: str, leader: Leader) -> int:
        """How many replicas besides the leader must know of no newer epoch."""
        if not self._quorum:
            return 0
        return max(0, len(leader.replicas) - self._min_in_sync.get(topic, 1))

    def counts(self, place: Place, leader: Leader, sent: float) -> bool:
        """Whether the high watermark counts that this leader told in a fetch that was sent at this time.

        A leader that was just elected may know too little of its predecessor's high watermark; asked by ListOffsets it
        does not answer before it knows (KIP-207). So it must have answered that once in its epoch.
        """
        sure = self._sure.get(place)
        return sure is not None and sure.epoch == leader.epoch and sent >= sure.since

    def shun(self, node: int) -> None:
        """This broker does not answer: others are asked first for a while."""
        self._shunned[node] = monotonic() + SHUNNED_S

    def heard(self, place: Place, end: int) -> None:
        """A leader told this high watermark."""
        if end > self._heard.get(place, -1):
            self._heard[place] = end

    def confirm(self, leaders: Mapping[Place, Leader]) -> Confirmation | None:
        """Ask now whether these are the newest leaders; None if nobody needs to be asked."""
        todo = {place: leader for place, leader in leaders.items() if self.needed(place[0], leader)}
        if not todo:
            return None
        settled = set(leaders) - set(todo)
        return Confirmation(_Round(self, todo, {}, lambda place, _: settled.add(place)).done(), settled)

    async def ends(self, places: Iterable[Place], on_end: Settled | None = None) -> dict[Place, int]:
        """One round: the end of each partition that could be settled within ROUND_S.

        No record that was acknowledged with acks=all before the call lies at or beyond its partition's end. `on_end` is
        called for each as soon as it is settled. What is not settled has a leader that is away or replaced, or too few
        replicas that answer; the leaders are then asked for again.
        """
        found: dict[Place, int] = {}

        def settled(place: Place, end: int) -> None:
            found[place] = end
            if on_end is not None:
                on_end(place, end)

        leaders: dict[Place, Leader] = {}
        for place in places:
            leader = self._cluster.leader(*place)
            if leader is None:
                self._cluster.doubt()
            else:
                leaders[place] = leader
        if leaders:
            await _Round(self, leaders, leaders, settled).done()
        return found

    async def every_end(self, places: Iterable[Place]) -> dict[Place, int]:
        """The end of each partition, as `ends` has it; waits for brokers that are away."""
        left = set(places)
        found: dict[Place, int] = {}
        while left:
            began = monotonic()
            found |= await self.ends(left)
            left -= found.keys()
            if left:
                self._cluster.doubt()
                await asyncio.sleep(max(0.0, began + MORE_AFTER_S - monotonic()))
        return found


class _Round:
    """Questions about some leaders, sent when this is made.

    `leaders`: whom to confirm. `ends_of`: whom to ask for the end, too. `settled` is told of each that is done with.
    """

    def __init__(
        self, barrier: ReadBarrier, leaders: Mapping[Place, Leader], ends_of: Mapping[Place, Leader], settled: Settled
    ) -> None:
        self._barrier = barrier
        self._leaders = leaders
        self._settled = settled
        self._left = {place: barrier.needed(place[0], leader) for place, leader in leaders.items()}
        self._ends: dict[Place, int] = dict.fromkeys(leaders.keys() - ends_of.keys(), -1)
        #: What is neither settled nor known to have a newer leader.
        self._open = set(leaders)
        self._asked: dict[Place, set[int]] = {place: {leader.node} for place, leader in leaders.items()}
        #: With the broker that each waits for.
        self._under_way: dict[asyncio.Task[None], int] = {}
        self._over = asyncio.get_running_loop().create_future()
        #: Whether all were asked who can be.
        self._all_asked = False
        self._ask(ends_of, {place: count for place, count in self._left.items() if count})
        for place in list(self._open):
            self._settle(place)

    async def done(self) -> None:
        """Wait until all is settled, or no more answers can come, at most for ROUND_S."""
        try:
            async with asyncio.timeout(ROUND_S):
                if not await self._over_within(MORE_AFTER_S):
                    # Whoever has not answered may be away: ask all others, as many as there are.
                    for node in self._under_way.values():
                        self._barrier.shun(node)
                    self._ask({}, {place: len(self._leaders[place].replicas) for place in self._open})
                    self._all_asked = True
                    self._end_if_nothing_comes()
                await self._over
        except TimeoutError:
            pass
        finally:
            for task in self._under_way:
                task.cancel()
        if self._open:
            self._barrier._cluster.doubt()

    async def _over_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._over], timeout=seconds)
        return bool(done)

    def _ask(self, ends_of: Mapping[Place, Leader], more: Mapping[Place, int]) -> None:
        """Send one request to each broker: for the ends of what it leads, and for the epochs of what it follows."""
        by_node: dict[int, dict[str, list[tuple[int, int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        unsure: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        now = monotonic()
        for place, leader in ends_of.items():
            topic, number = place
            at = self._barrier._heard.get(place)
            if at is not None and self._barrier.counts(place, leader, now):
                by_node[leader.node][topic].append((number, leader.epoch, at, 1))
            else:
                unsure[leader.node][topic].append((number, leader.epoch))
        for place, count in more.items():
            topic, number = place
            for node in self._others(place, now)[:count]:
                self._asked[place].add(node)
                by_node[node][topic].append((number, self._leaders[place].epoch, NOWHERE, 1))
        send = self._barrier._connections.send
        for node, topics in by_node.items():
            self._await(node, self._fetched(node, send(node, epoch_question(topics))))
        for node, listed in unsure.items():
            self._await(node, self._listed(node, send(node, ListOffsets(listed.items()))))

    def _others(self, place: Place, now: float) -> list[int]:
        """Replicas that were not asked yet, those that answered of late first."""
        left = [node for node in self._leaders[place].replicas if node not in self._asked[place]]
        return sorted(left, key=lambda node: self._barrier._shunned.get(node, 0.0) > now)

    def _await(self, node: int, answer: Awaitable[None]) -> None:
        task = asyncio.ensure_future(answer)
        self._under_way[task] = node
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None and not self._over.done():
            self._over.set_exception(error)
        else:
            self._end_if_nothing_comes()

    def _end_if_nothing_comes(self) -> None:
        is_over = not self._open or (self._all_asked and not self._under_way)
        if is_over and not self._over.done():
            self._over.set_result(None)

    async def _fetched(self, node: int, answer: Awaitable[Mapping[Place, Found]]) -> None:
        try:
            found = await answer
        except KafkaError as error:
            self._silent(node, error)
            return
        for place, told in found.items():
            leader = self._leaders[place]
            if told.error == FENCED_LEADER_EPOCH:
                self._open.discard(place)
                self._barrier._cluster.doubt()
            elif node == leader.node:
                if told.error == 0:
                    self._ended(place, told.end)
                else:
                    # What was read there before is gone, or it leads no more.
                    self._barrier._heard.pop(place, None)
                    self._barrier._cluster.doubt()
            elif told.error in KNOWS_NO_NEWER:
                self._left[place] -= 1
                self._settle(place)

    async def _listed(self, node: int, answer: Awaitable[Mapping[Place, tuple[int, int]]]) -> None:
        try:
            found = await answer
        except KafkaError as error:
            self._silent(node, error)
            return
        for place, (code, end) in found.items():
            if code == 0:
                self._barrier._sure[place] = _Sure(self._leaders[place].epoch, monotonic())
                self._ended(place, end)
            else:
                self._barrier._cluster.doubt()
                if code == FENCED_LEADER_EPOCH:
                    self._open.discard(place)

    def _silent(self, node: int, error: KafkaError) -> None:
        log.debug("broker %s does not say how far logs go: %r", node, error)
        self._barrier.shun(node)

    def _ended(self, place: Place, end: int) -> None:
        self._barrier.heard(place, end)
        self._ends[place] = end
        self._settle(place)

    def _settle(self, place: Place) -> None:
        if place in self._open and self._left[place] <= 0 and place in self._ends:
            self._open.discard(place)
            self._settled(place, self._ends[place])
