"""Reading back the end of a log, as every start does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from streams.kafka.log_reader import FIRST_LOOK, LogReader, log_reader
from tests.integration.harness import AUDIT, CHANGES, World

pytestmark = pytest.mark.kafka

#: The third look is needed for all of them.
RECORDS = 4 * FIRST_LOOK + 100

T = TypeVar("T")


@pytest.fixture(scope="module")
def written(world: World) -> World:
    """Numbered records in one partition of a log."""

    async def write() -> None:
        await asyncio.gather(*[await world.sending(AUDIT, b"k", b"%d" % number, 0) for number in range(RECORDS)])

    world.loop.run(write())
    return world


def read(world: World, ask: Callable[[LogReader], Awaitable[T]]) -> T:
    async def answered() -> T:
        async with log_reader(world.config) as reader:
            return await ask(reader)

    return world.loop.run(answered())


def tail(world: World, **how: Any) -> list[int]:
    records = read(world, lambda reader: reader.tail(world.config.topic(AUDIT), 0, **how))
    return [int(record.value) for record in records]


def never(_: list[Any]) -> bool:
    return False


def test_a_tail_that_finds_nothing_has_every_record_once_and_in_order(written: World) -> None:
    assert tail(written, enough=never) == list(range(RECORDS))


def test_a_tail_ends_with_the_look_that_finds_enough(written: World) -> None:
    assert tail(written, enough=lambda _: True) == list(range(RECORDS - FIRST_LOOK, RECORDS))
    wanted = RECORDS - FIRST_LOOK - 1
    found = tail(written, enough=lambda records: int(records[0].value) <= wanted)
    assert found == list(range(RECORDS - 4 * FIRST_LOOK, RECORDS))


def test_a_tail_keeps_what_it_is_told_to(written: World) -> None:
    found = tail(written, enough=lambda records: len(records) > 2, keep=lambda record: record.offset % 1_000 == 0)
    assert found == list(range(1_000, RECORDS, 1_000))


def test_a_tail_goes_no_further_back_than_a_time_or_a_number(written: World) -> None:
    newest = max(record.timestamp for record in written.read(AUDIT))
    assert tail(written, enough=never, since=newest + 1) == list(range(RECORDS - FIRST_LOOK, RECORDS))
    assert tail(written, enough=never, most=10) == list(range(RECORDS - 10, RECORDS))


def test_when_a_record_was_written_is_known_where_the_broker_says_it(written: World) -> None:
    began = time.time() * 1000
    partition, offset = written.send(CHANGES, b"k", b"{}")
    at = read(written, lambda reader: reader.written_at(written.config.topic(CHANGES), partition, offset))
    assert at is not None
    assert began - 1_000 <= at <= time.time() * 1000 + 1_000
    audit = written.config.topic(AUDIT)
    assert read(written, lambda reader: reader.written_at(audit, 0, 5)) == 0.0
    assert read(written, lambda reader: reader.written_at(audit, 0, RECORDS)) is None
