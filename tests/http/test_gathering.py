"""Questions share a turn, and none is answered by a turn that began before it was put."""

from __future__ import annotations

import asyncio

import pytest

from streams.http.gathering import Gathering
from tests.engine.waiting import until


class Oracle:
    """Answers each question with the number of its turn, once it is allowed to."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.allowed = asyncio.Semaphore(0)

    async def ask(self, questions: list[str]) -> list[int]:
        self.turns.append(questions)
        await self.allowed.acquire()
        if "bad" in questions:
            raise ValueError("bad")
        return [len(self.turns)] * len(questions)


def test_what_comes_while_a_turn_is_under_way_waits_for_the_next() -> None:
    async def scenario() -> None:
        oracle = Oracle()
        ask = Gathering(oracle.ask, 10)
        asked = [asyncio.create_task(ask("first"))]
        await until(lambda: len(oracle.turns) == 1)
        asked += [asyncio.create_task(ask(name)) for name in ("second", "third")]
        await asyncio.sleep(0)
        oracle.allowed.release()
        assert await asked[0] == 1
        await until(lambda: len(oracle.turns) == 2)
        oracle.allowed.release()
        assert await asyncio.gather(*asked) == [1, 2, 2]
        assert oracle.turns == [["first"], ["second", "third"]]

    asyncio.run(scenario())


def test_a_turn_takes_at_most_so_many_and_a_fault_is_that_of_its_turn_alone() -> None:
    async def scenario() -> None:
        oracle = Oracle()
        ask = Gathering(oracle.ask, 2)
        asked = [asyncio.create_task(ask(name)) for name in ("one", "bad", "three", "four", "five")]
        for _ in range(3):
            oracle.allowed.release()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in done] == [ValueError, ValueError, int, int, int]
        assert oracle.turns == [["one", "bad"], ["three", "four"], ["five"]]

    asyncio.run(scenario())


def test_who_gives_up_waiting_spoils_nothing_for_the_others() -> None:
    async def scenario() -> None:
        oracle = Oracle()
        ask = Gathering(oracle.ask, 10)
        asked = [asyncio.create_task(ask(name)) for name in ("impatient", "patient")]
        await until(lambda: len(oracle.turns) == 1)
        asked[0].cancel()
        oracle.allowed.release()
        assert await asked[1] == 1
        with pytest.raises(asyncio.CancelledError):
            await asked[0]

    asyncio.run(scenario())
