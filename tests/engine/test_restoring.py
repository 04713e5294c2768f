"""What the consumer hands to Faust of a changelog: recovery ends only when it was told of the log's end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.engine import transport

CHANGELOG = TP("changelog", 0)


class Handing(transport.Consumer):
    """A consumer that fetches what it is given."""

    flow_active = True
    should_stop = False

    def __init__(self, before: dict[TP, int], after: dict[TP, int]) -> None:
        self._fetched = transport.Fetched()
        self._fetched.before, self._fetched.after = before, after
        self._cursor: dict[TP, int] = {}
        self.restored: list[tuple[TP, list[Any], int]] = []
        self.engine = SimpleNamespace(restore=lambda *what: self.restored.append(what))
        self.app = SimpleNamespace(consumer_generation_id=1)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        return self._fetched, set(self._fetched.after)

    def _is_changelog_tp(self, tp: TP) -> bool:
        return tp == CHANGELOG

    def handed_out(self) -> list[tuple[TP, int]]:
        async def collect() -> list[tuple[TP, int]]:
            return [(tp, message.offset) async for tp, message in self.getmany(timeout=0)]

        return asyncio.run(collect())


@pytest.mark.parametrize("before", [{CHANGELOG: 2}, {}])
def test_markers_alone_are_told_also_where_the_position_was_sought_in_the_midst_of_the_fetch(
    before: dict[TP, int],
) -> None:
    consumer = Handing(before, {CHANGELOG: 4})
    assert consumer.handed_out() == [(CHANGELOG, 3)]
    assert consumer.restored == [(CHANGELOG, [], 4)]


def test_a_position_that_has_not_moved_is_not_told() -> None:
    assert Handing({CHANGELOG: 4}, {CHANGELOG: 4}).handed_out() == []
    assert Handing({}, {CHANGELOG: 0}).handed_out() == []
