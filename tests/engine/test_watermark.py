"""How far a partition's state is, and who is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.state import FORMAT_VERSION, State, UnknownFormatError
from streams.engine.partition import META_KEY, Partition, View
from tests.memory import Memory
from tests.schemas.samples import SETTINGS


def partition(store: Any = None) -> Partition:
    return Partition(3, store or Memory())


@given(st.lists(st.tuples(st.sampled_from(("wait", "advance", "cancel")), st.integers(0, 30)), max_size=30))
def test_a_waiter_goes_on_exactly_when_everything_below_its_offset_is_in(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        state = partition()
        waiting: list[tuple[int, asyncio.Future[None]]] = []
        highest = 0
        for what, offset in steps:
            if what == "wait":
                waiting.append((offset, state.reached(offset)))
            elif what == "cancel" and waiting:
                waiting.pop()[1].cancel()
            elif what == "advance":
                state.advance(offset)
                highest = max(highest, offset)
            assert state.applied == highest
            assert [future.done() for _, future in waiting] == [needed <= highest for needed, _ in waiting]
        state.advance(100)
        assert all(future.done() for _, future in waiting)

    asyncio.run(scenario())


def test_a_position_never_goes_back() -> None:
    state = partition()
    state.advance(7)
    state.advance(5)
    assert state.applied == 7


def test_what_is_published_is_read_and_waited_for_and_a_commit_writes_it_whole_with_the_position() -> None:
    async def scenario() -> None:
        store = Memory()
        state = partition(store)
        waiter = state.reached(5)
        view = View(state, [b"100:c"])
        view.put(b"100:c", State(1))
        from schemas.settings import OrgSettings

        view.put_org(100, OrgSettings.model_validate(SETTINGS))
        view.applied = 5
        assert state.applied == 0
        assert state.org(100) is None  # nobody sees what is not published
        assert not waiter.done()
        state.publish(view)
        assert waiter.done()
        assert (state.applied, store.offset) == (5, -1)
        assert state.states([b"100:c"])[b"100:c"] == State(1).encode()
        written = state.begin_write()
        assert {key for key, _ in written} == {b"100:c", b"100:", META_KEY}
        assert state.states([b"100:c"])[b"100:c"] == State(1).encode()
        state.commit(77)
        assert (state.applied, store.offset) == (5, 77)
        assert state.states([b"100:c"])[b"100:c"] == State(1).encode()
        assert set(store.values) == {b"100:c", b"100:", META_KEY}
        found = state.org(100)
        assert found is not None
        assert found.version == 1
        # The next owner of the partition starts from the same place.
        again = partition(store)
        assert again.applied == 5
        org = again.org(100)
        assert org is not None
        assert org.settings == found.settings

    asyncio.run(scenario())


def test_a_view_sees_its_own_changes_and_nobody_elses_state() -> None:
    store = Memory()
    store.values[b"100:old"] = State(1).encode()
    view = View(partition(store), [b"100:old", b"100:new"])
    assert (view.knows(b"100:old"), view.knows(b"100:new"), view.knows(b"100:other")) == (True, False, False)
    assert view.state(b"100:new") is None
    view.put(b"100:new", State(2))
    found = view.state(b"100:new")
    assert found is not None
    assert found.registration == 2
    assert view.size > 0
    assert b"100:new" not in store.values


def test_a_state_of_another_format_is_refused() -> None:
    store = Memory()
    store.values[META_KEY] = b'{"v":999,"next":1}'
    with pytest.raises(UnknownFormatError, match="999"):
        partition(store)
    store.values[b"k"] = State(1).encode().replace(b'"v":%d' % FORMAT_VERSION, b'"v":999')
    del store.values[META_KEY]
    with pytest.raises(UnknownFormatError, match="999"):
        View(partition(store), [b"k"]).state(b"k")
