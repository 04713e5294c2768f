"""Whoever opens a partition fences its earlier owners, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import KafkaError

from streams import topics
from streams.engine.outputs import Outputs, RefusedError, Writer
from streams.kafka.cluster import Cluster
from streams.kafka.ownership import FencedError, Fences, OwnershipError
from streams.kafka.record_batch import Owner
from tests.integration.conftest import MakeWorld
from tests.integration.harness import AUDIT, CHANGELOG, World

pytestmark = pytest.mark.kafka

ID = "an owner"


class Owning:
    """A writer that takes partition 0 of the audit and the changelog, as a worker does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cluster: Cluster
        self.writer: Writer
        self.fences: Fences
        self.places = [(world.config.topic(name), 0) for name in (AUDIT, CHANGELOG)]
        world.loop.run(self._start())

    async def _start(self) -> None:
        config = self.world.config
        self.cluster = Cluster(config, "an-owner", [config.topic(spec.name) for spec in topics.ALL])
        await self.cluster.start()
        self.writer, self.fences = Writer(self.cluster, "writer"), Fences(self.cluster)

    def take(self) -> None:
        async def take() -> None:
            self.writer.own(0, self.places, await self.fences.take(ID + self.world.config.topic_prefix, self.places))

        self.world.loop.run(take())

    def write(self, value: bytes, *names: str) -> None:
        out = Outputs()
        for name in names or (AUDIT,):
            out.add(self.world.config.topic(name), 0, b"k", value, by=None if name == AUDIT else 0)
        self.world.loop.run(self.writer.write(out))

    def write_state(self, value: bytes) -> int:
        async def write() -> int:
            return (await self.writer.write_atomically(self.places[1][0], {0: [(b"k", value)]}))[0]

        return self.world.loop.run(write())

    def close(self) -> None:
        async def close() -> None:
            await self.fences.stop()
            await self.writer.stop()
            await self.cluster.stop()

        self.world.loop.run(close())


@pytest.fixture
def owners(world: World) -> Iterator[tuple[Owning, Owning]]:
    pair = Owning(world), Owning(world)
    yield pair
    for one in pair:
        one.close()


def values(world: World, topic: str) -> list[bytes | None]:
    return [record.value for record in world.read(topic)]


def test_an_earlier_owner_can_write_nothing_more_even_where_the_new_one_has_not_written(
    owners: tuple[Owning, Owning], world: World
) -> None:
    old, new = owners
    old.take()
    for n in range(3):
        old.write(b"old %d" % n)
    old.write_state(b"old state")
    new.take()
    with pytest.raises(FencedError, match="another worker owns"):
        old.write_state(b"a zombie's")
    with pytest.raises((FencedError, KafkaError)):
        old.write(b"a zombie's")
    new.write(b"new")
    new.write(b"newer")
    assert values(world, AUDIT)[-5:] == [b"old 0", b"old 1", b"old 2", b"new", b"newer"]
    assert values(world, CHANGELOG)[-1:] == [b"old state"]


def test_an_owner_that_takes_again_goes_on_there_and_elsewhere(owners: tuple[Owning, Owning], world: World) -> None:
    one, _ = owners
    for turn in range(3):
        one.take()
        one.write(b"turn %d" % turn)
        for n in range(2):
            one.write(b"elsewhere %d %d" % (turn, n), topics.INBOUND.name)
    assert values(world, AUDIT)[-3:] == [b"turn 0", b"turn 1", b"turn 2"]
    assert values(world, topics.INBOUND.name) == [b"elsewhere %d %d" % (turn, n) for turn in range(3) for n in range(2)]


def test_an_earlier_owner_writes_nothing_more_elsewhere_once_the_new_one_has(
    owners: tuple[Owning, Owning], world: World
) -> None:
    old, new = owners
    old.take()
    old.write(b"old", topics.CHANGES.name)
    new.take()
    old.write(b"a zombie's, which the new one repeats", topics.CHANGES.name)
    new.write(b"new", topics.CHANGES.name)
    with pytest.raises(FencedError, match="another worker owns"):
        old.write(b"a zombie's", topics.CHANGES.name)
    new.write(b"newer", topics.CHANGES.name)
    told = [b"old", b"a zombie's, which the new one repeats", b"new", b"newer"]
    assert values(world, topics.CHANGES.name) == told


def test_owners_of_several_partitions_number_what_they_write_to_one_place_each_by_itself(
    owners: tuple[Owning, Owning], world: World
) -> None:
    one, _ = owners
    one.take()

    async def write() -> None:
        topic = world.config.topic(topics.DECISIONS.name)
        # Partition 5 is opened, and opened again; what it writes is numbered from 0 on each time.
        for turn in range(2):
            one.writer.own(5, [], await one.fences.take("owner 5" + world.config.topic_prefix, one.places))
            for n in range(3):
                out = Outputs()
                for by in (5, 0, 5):
                    out.add(topic, 0, b"k", b"%d %d of %d" % (turn, n, by), by=by)
                await one.writer.write(out)

    world.loop.run(write())
    assert values(world, topics.DECISIONS.name) == [
        b"%d %d of %d" % (turn, n, by) for turn in range(2) for n in range(3) for by in (5, 5, 0)
    ]


def test_what_is_written_as_an_owner_and_what_is_not_may_take_turns_at_one_place(
    owners: tuple[Owning, Owning], world: World
) -> None:
    one, _ = owners
    one.take()

    async def append(value: bytes) -> None:
        await one.writer.append(world.config.topic(topics.NOTIFICATIONS.name), 0, b"k", value)

    for turn in range(3):
        one.write(b"%d as an owner" % turn, topics.NOTIFICATIONS.name)
        world.loop.run(append(b"%d by HTTP" % turn))
    told = [b"%d %s" % (turn, how) for turn in range(3) for how in (b"as an owner", b"by HTTP")]
    assert values(world, topics.NOTIFICATIONS.name) == told


def test_a_writer_goes_on_behind_a_record_that_the_broker_refused(make_world: MakeWorld) -> None:
    world = make_world()
    one = Owning(world)
    one.take()
    topic = world.config.topic(topics.INBOUND.name)

    async def append(value: bytes) -> int:
        return await one.writer.append(topic, 0, b"k", value)

    try:
        world.configure(topics.INBOUND.name, **{"max.message.bytes": "1000"})
        assert world.loop.run(append(b"before")) == 0
        for turn in range(2):
            with pytest.raises(RefusedError, match="MessageSizeTooLarge"):
                world.loop.run(append(bytes(5_000)))
            assert world.loop.run(append(b"after %d" % turn)) == turn + 1
        one.write(b"as an owner still")
    finally:
        one.close()


def test_an_earlier_owner_writes_nothing_of_what_it_does_not_own_either_where_both_go_together(
    owners: tuple[Owning, Owning], world: World
) -> None:
    old, new = owners
    old.take()
    old.write(b"together", topics.IDENTITIES.name, AUDIT)
    new.take()
    with pytest.raises(FencedError, match="another worker owns"):
        old.write(b"a zombie's", topics.IDENTITIES.name, AUDIT)
    assert values(world, topics.IDENTITIES.name) == [b"together"]


def test_renewing_keeps_an_owner_and_tells_one_that_lost(owners: tuple[Owning, Owning], world: World) -> None:
    old, new = owners
    old.take()
    world.loop.run(old.fences.renew())
    old.write(b"still the owner's")
    assert values(world, AUDIT)[-1] == b"still the owner's"
    new.take()
    with pytest.raises(FencedError):
        world.loop.run(old.fences.renew())


def test_a_worker_makes_sure_that_this_kafka_refuses_earlier_owners(
    owners: tuple[Owning, Owning], world: World
) -> None:
    one, _ = owners
    before = world.ends(CHANGELOG)
    for _ in range(2):
        world.loop.run(one.fences.check(f"{ID}-check{world.config.topic_prefix}", one.places[1]))
    assert values(world, CHANGELOG)[-1:] != [None], "nothing was taken of what it tried to write"
    assert world.ends(CHANGELOG)[0] > before[0], "but the markers"


def test_a_kafka_that_takes_what_earlier_owners_write_is_refused(
    owners: tuple[Owning, Owning], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = owners
    taken = one.fences.take

    async def take_once(*args: Any) -> Owner:
        monkeypatch.setattr(one.fences, "take", AsyncMock())
        return await taken(*args)

    monkeypatch.setattr(one.fences, "take", take_once)
    with pytest.raises(OwnershipError, match="takes records of a producer whose epoch is over"):
        world.loop.run(one.fences.check(f"{ID}-none{world.config.topic_prefix}", one.places[1]))
