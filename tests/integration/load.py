"""Writing a scenario as its producers would: changes as fast as they go, requests after what they must see."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.integration.harness import CHANGES, PATIENCE_S, REQUESTS, Place, World, wait_for
from tests.model.generate import Step

#: So many changes may be on their way at once.
ON_THE_WAY = 200


class Load:
    """Writes steps on the clients' loop while the test does something else."""

    def __init__(self, world: World, steps: Sequence[Step], pause_s: float = 0.0) -> None:
        self.written = 0
        #: By request id: the end of its home partition that was acknowledged before it was written.
        self.ends: dict[str, int] = {}
        self._world = world
        self._steps = steps
        self._pause_s = pause_s
        self._acknowledged: dict[int, int] = defaultdict(int)
        self._on_the_way: dict[int, list[asyncio.Task[Place]]] = defaultdict(list)
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> Load:
        self._thread.start()
        return self

    def reaches(self, share: float) -> None:
        """Wait until so much of it is written."""
        wanted = int(len(self._steps) * share)
        wait_for(f"{wanted} records to be written", lambda: self.written >= wanted or self._error)
        self._raise()

    def join(self) -> None:
        """Wait until all of it is acknowledged."""
        self._thread.join(2 * PATIENCE_S)
        assert not self._thread.is_alive(), f"only {self.written} of {len(self._steps)} records could be written"
        self._raise()

    def _raise(self) -> None:
        for error in self._error:
            raise error

    def _run(self) -> None:
        try:
            # As long as what is done to brokers meanwhile takes; whoever joins says how long that may be.
            self._world.loop.start(self._write(self._steps)).result()
        except BaseException as error:
            self._error.append(error)

    async def _write(self, steps: Iterable[Step]) -> None:
        for kind, key, value, partition in steps:
            home = self._world.home(key or b"")
            if kind == "change":
                number = home if partition is None else partition
                on_the_way = self._on_the_way[number]
                on_the_way.append(await self._sending(CHANGES, key, value, number))
                if len(on_the_way) >= ON_THE_WAY:
                    await self._wait(number)
            else:
                await self._wait(home)
                self._note(value, self._acknowledged[home])
                await (await self._sending(REQUESTS, key, value, partition))
            self.written += 1
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
        for number in list(self._on_the_way):
            await self._wait(number)

    async def _sending(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None
    ) -> asyncio.Task[Place]:
        task = await self._world.sending(topic, key, value, partition)
        task.add_done_callback(lambda done: self.acknowledged(topic, key, value, done.result()))
        return task

    def acknowledged(self, topic: str, key: bytes | None, value: bytes | None, place: Place) -> None:
        """Told of every record once it is acknowledged, for those who keep a history."""

    async def _wait(self, number: int) -> None:
        for place in await asyncio.gather(*self._on_the_way[number]):
            self._acknowledged[number] = max(self._acknowledged[number], place.offset + 1)
        self._on_the_way[number].clear()

    def _note(self, value: bytes | None, end: int) -> None:
        try:
            self.ends[json.loads(value or b"")["request_id"]] = end
        except (ValueError, TypeError, KeyError):
            return  # a bad request, which nobody could ask about
