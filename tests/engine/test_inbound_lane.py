"""The inbound lane: what waits shares one look at who is known, and nothing is done before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from streams.engine.inbound import InboundLane
from streams.engine.outputs import Outputs
from streams.engine.records import Batch
from streams.kafka.records import Record
from tests.engine.waiting import until


class Handled:
    """Handler of one partition, and writer of nothing."""

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets

    def handle(self, records: list[Record], events: Outputs, aside: Outputs) -> None:
        self.offsets += [record.offset for record in records]

    async def write(self, outputs: Outputs) -> None:
        pass


class Scene:
    """Two partitions, and a look that ends when the test says so; `answer` is what it then says."""

    def __init__(self, answer: bool = True) -> None:
        self.handled: list[int] = []
        self.looks: list[int] = []
        self.done: list[int] = []
        self.seen = asyncio.Event()
        self._answer = answer
        handler = Handled(self.handled)
        lane: dict[str, Any] = {"on_error": print, "pressure": lambda *_: None, "lease": lambda: True}
        self.lane = InboundLane({0: handler, 1: handler}, handler, known=self._look, **lane)  # type: ignore[arg-type]
        self.lane.start()

    async def _look(self, numbers: Iterable[int], stopped: Callable[[], bool]) -> bool:
        self.looks += numbers
        await self.seen.wait()
        return self._answer

    def put(self, offset: int, partition: int = 0) -> None:
        record = Record(offset, 0, None, None, ())
        self.lane.put(Batch(partition, [record], offset, offset + 1, 0.0, lambda: self.done.append(offset)))


def test_what_came_while_one_look_was_made_shares_the_next() -> None:
    async def scenario() -> Scene:
        scene = Scene()
        scene.put(0)
        await until(lambda: scene.looks == [0])
        for offset in range(1, 30):
            scene.put(offset, offset % 2)
        assert scene.handled == []
        scene.seen.set()
        await until(lambda: len(scene.done) == 30)
        await scene.lane.close()
        return scene

    scene = asyncio.run(scenario())
    assert sorted(scene.looks) == [0, 0, 1]
    assert scene.handled == scene.done == list(range(30))


def test_nothing_is_done_if_it_cannot_be_known_who_is_meant() -> None:
    async def scenario() -> Scene:
        scene = Scene(answer=False)
        scene.put(0)
        scene.put(0, 1)
        await until(lambda: len(scene.looks) == 2)
        scene.seen.set()
        await scene.lane.close()
        return scene

    scene = asyncio.run(scenario())
    assert scene.handled == scene.done == []
