"""The group's consumer, on a cluster in which a broker is gone, hangs, or is cut off from the others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import GroupAuthorizationFailedError, GroupCoordinatorNotAvailableError, KafkaConnectionError

from streams.kafka.cluster import CONNECT_S
from streams.kafka.group_client import ANSWER_S, RETRY_S, SILENT_S, CoordinatorWatch, adapt, join_again
from tests.virtual import now, run

GROUP = "a group"
OLD, NEW = 1, 2


class Connection:
    """Notes why it was closed."""

    def __init__(self) -> None:
        self._request_timeout = 90.0
        self.closed: list[CloseReason] = []

    def close(self, reason: CloseReason) -> None:
        self.closed.append(reason)


class Client:
    """aiokafka's client. `bootstraps` says what bootstrapping raises each time."""

    def __init__(self) -> None:
        self._request_timeout_ms = 90_000
        self._conns: dict[Any, Connection] = {}
        self.connects_after_s = 0.0
        self.bootstraps: list[Exception | None] = [None]
        self.patience: list[float] = []
        self.updates = 0

    async def _get_conn(self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        await asyncio.sleep(self.connects_after_s)
        return self._conns.setdefault((node_id, group), Connection())

    async def bootstrap(self) -> None:
        self.patience.append(self._request_timeout_ms)
        error = self.bootstraps.pop(0)
        if error is not None:
            raise error

    def force_metadata_update(self) -> None:
        self.updates += 1


class Coordinator:
    """aiokafka's view of the group."""

    def __init__(self) -> None:
        self.group_id = GROUP
        self.coordinator_id: int | None = OLD
        self.rejoins = 0
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def coordinator_dead(self) -> None:
        self.coordinator_id = None

    def request_rejoin(self) -> None:
        self.rejoins += 1


class World:
    """A consumer, and whom the brokers name as its group's coordinator."""

    def __init__(self) -> None:
        self.client = Client()
        self.coordinator = Coordinator()
        self.consumer: Any = SimpleNamespace(_client=self.client, _coordinator=self.coordinator)
        self.named: Any = OLD
        self.asked = 0
        self.coordinators: Any = SimpleNamespace(find=self._find)

    async def _find(self, name: str) -> int:
        assert name == GROUP
        self.asked += 1
        if isinstance(self.named, Exception):
            raise self.named
        found: int = self.named
        return found


def test_the_coordinator_is_whom_the_brokers_name() -> None:
    async def scenario() -> None:
        world = World()
        adapt(world.consumer, world.coordinators)
        world.named = NEW
        client: Any = world.client
        assert await client.coordinator_lookup(0, GROUP) == NEW

    run(scenario)


def test_a_coordinator_that_is_not_there_yet_is_waited_for_and_told_of_only_if_that_takes_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        world = World()
        adapt(world.consumer, world.coordinators)
        client: Any = world.client
        world.named = GroupCoordinatorNotAvailableError(GROUP)
        finding = asyncio.create_task(client.coordinator_lookup(0, GROUP))
        await asyncio.sleep(SILENT_S)
        assert world.asked > 5
        assert caplog.text == ""
        await asyncio.sleep(SILENT_S)
        assert caplog.text.count("the group has no coordinator yet") == 1
        world.named = NEW
        assert await finding == NEW

    run(scenario)


@pytest.mark.parametrize("is_closing", [True, False])
def test_a_stop_or_a_right_that_is_missing_ends_the_search(is_closing: bool) -> None:
    async def scenario() -> None:
        world = World()
        adapt(world.consumer, world.coordinators)
        client: Any = world.client
        world.named = GroupCoordinatorNotAvailableError(GROUP) if is_closing else GroupAuthorizationFailedError(GROUP)
        if is_closing:
            world.coordinator._closing.set_result(None)
        with pytest.raises(type(world.named)):
            await client.coordinator_lookup(0, GROUP)
        assert world.asked == 1

    run(scenario)


def test_a_broker_that_hangs_holds_up_no_connection_for_long() -> None:
    async def scenario() -> None:
        world = World()
        adapt(world.consumer, world.coordinators)
        world.client.connects_after_s = 90.0
        assert await world.client._get_conn(OLD) is None
        assert now() == pytest.approx(CONNECT_S)
        assert world.client.updates == 1
        world.client.connects_after_s = 0.0
        # What is asked of any broker is answered soon; what a rebalance holds up is not.
        connect = world.client._get_conn
        patience = {group: (await connect(NEW, group=group))._request_timeout for group in ConnectionGroup}
        assert patience == {ConnectionGroup.DEFAULT: ANSWER_S, ConnectionGroup.COORDINATION: 90.0}

    run(scenario)


def test_brokers_that_are_away_at_the_start_are_waited_for() -> None:
    async def scenario() -> None:
        world = World()
        adapt(world.consumer, world.coordinators)
        world.client.bootstraps = [KafkaConnectionError("away"), KafkaConnectionError("away"), None]
        await world.client.bootstrap()
        assert now() == pytest.approx(2 * RETRY_S)
        assert world.client.patience == [ANSWER_S * 1000] * 3
        assert world.client._request_timeout_ms == 90_000

    run(scenario)


def test_a_group_that_most_brokers_name_another_coordinator_of_moves_there() -> None:
    async def scenario() -> None:
        world = World()
        watch = CoordinatorWatch(world.consumer, world.coordinators)
        stuck, other = Connection(), Connection()
        world.client._conns = {(OLD, ConnectionGroup.COORDINATION): stuck, (OLD, ConnectionGroup.DEFAULT): other}
        await watch.look()
        assert world.coordinator.coordinator_id == OLD
        world.named = GroupCoordinatorNotAvailableError(GROUP)
        await watch.look()
        assert world.coordinator.coordinator_id == OLD, "nobody knows better"
        world.named = NEW
        await watch.look()
        assert world.coordinator.coordinator_id is None
        assert stuck.closed == [CloseReason.CONNECTION_BROKEN], "a heartbeat that waits for its answer waits no more"
        assert other.closed == []
        await watch.look()
        assert world.coordinator.rejoins == 0, "it may well be a member there, too"

    run(scenario)


def test_the_watch_goes_on_until_it_is_stopped() -> None:
    async def scenario() -> None:
        world = World()
        watch = CoordinatorWatch(world.consumer, world.coordinators)
        await watch.stop()
        watch.start()
        world.named = NEW
        await asyncio.sleep(1.5)
        assert world.coordinator.coordinator_id is None
        world.coordinator.coordinator_id = OLD
        await watch.stop()
        await asyncio.sleep(10)
        assert world.coordinator.coordinator_id == OLD

    run(scenario)


def test_joining_again_looks_for_the_coordinator_first() -> None:
    async def scenario() -> None:
        world = World()
        join_again(world.consumer)
        assert (world.coordinator.coordinator_id, world.coordinator.rejoins) == (None, 1)

    run(scenario)
