"""Reading back the end of a log, as every start does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streams.engine.tail import FIRST_LOOK, LogReader
from tests.integration.harness import AUDIT, World

pytestmark = pytest.mark.kafka

#: The third look is needed for all of them.
RECORDS = 4 * FIRST_LOOK + 100


@pytest.fixture(scope="module")
def written(world: World) -> World:
    """Numbered records in one partition of a log."""

    async def write() -> None:
        await asyncio.gather(*[await world.sending(AUDIT, b"k", b"%d" % number, 0) for number in range(RECORDS)])

    world.loop.run(write())
    return world


def tail(world: World, **how: Any) -> list[int]:
    async def read() -> list[int]:
        reader = LogReader(world.config)
        await reader.start()
        try:
            return [int(record.value) for record in await reader.tail(world.config.topic(AUDIT), 0, **how)]
        finally:
            await reader.stop()

    return world.loop.run(read())


def test_a_tail_that_finds_nothing_has_every_record_once_and_in_order(written: World) -> None:
    assert tail(written, enough=lambda _: False) == list(range(RECORDS))


def test_a_tail_ends_with_the_look_that_finds_enough(written: World) -> None:
    assert tail(written, enough=lambda _: True) == list(range(RECORDS - FIRST_LOOK, RECORDS))
    wanted = RECORDS - FIRST_LOOK - 1
    found = tail(written, enough=lambda records: int(records[0].value) <= wanted)
    assert found == list(range(RECORDS - 4 * FIRST_LOOK, RECORDS))


def test_a_tail_keeps_what_it_is_told_to(written: World) -> None:
    found = tail(written, enough=lambda records: len(records) > 2, keep=lambda record: record.offset % 1_000 == 0)
    assert found == list(range(1_000, RECORDS, 1_000))
