"""Ends that are not known yet, and decisions that wait for their end to be confirmed, or are taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine.lane import AT_ONCE
from streams.engine.requests import ASK_AGAIN_S, CHUNK, LEAST_PATIENCE_S, MOST_AT_ONCE, MOST_WRITTEN_AT_ONCE
from tests.engine.desks import CHANGES, ROUND_S, Confirmation, World
from tests.virtual import now, run, turns


def in_a_world(partitions: int = 1) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a scenario at once; nothing may be left that anybody waits for."""

    def start(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            world = World(partitions=partitions)
            await turns()
            await scenario(world)
            await world.lane.close()
            assert world.errors == []

        run(whole)

    return start


def of(number: int) -> tuple[str, int]:
    return CHANGES, number


# Confirmations


def test_decisions_are_made_at_once_and_written_once_they_are_confirmed() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        confirmation = Confirmation()
        world.put(0, b"0/9", end=0, confirmation=confirmation)
        assert world.clerk.decided == [0]
        await turns()
        assert (world.writer.written, world.told, world.acked) == ([], [], [])
        assert confirmation.asked == [of(0)]
        confirmation.tell(True)
        await turns()
        assert world.writer.written == [("decisions", b"0 0")]
        assert (world.told, world.acked, world.clerk.decided, world.asked) == ([(0, b"decided")], [1], [0], 0)


def test_what_waits_for_the_state_is_confirmed_by_then() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.end = 6
        world.put(0, b"0/9", end=3, confirmation=Confirmation(True))
        world.put(1, b"0/9", end=4, confirmation=Confirmation(False))
        seen = []
        for at in range(2, 7):
            world.state.advance(at)
            await turns()
            seen.append((list(world.clerk.decided), world.answered))
        assert seen == [([], []), ([0], [0]), ([0, 1], [0]), ([0, 1], [0]), ([0, 1, 1], [0, 1])]
        assert (world.acked, world.asked) == ([1, 2], 1)


def test_what_is_not_confirmed_is_taken_out_alone_and_decided_again_at_the_end_that_is_found_then() -> None:
    @in_a_world(partitions=3)
    async def scenario(world: World) -> None:
        world.ends[1] = 5
        bad, good = Confirmation(), Confirmation()
        batches = [
            world.batch(0, b"0/9", b"0/9", number=0, end=0, confirmation=good),
            world.batch(0, b"0/9", b"-", b"0/9", number=1, end=0, confirmation=bad),
            world.batch(0, b"0/9", number=2, end=0),
        ]
        world.lane.put(*batches)
        good.tell(True)
        bad.tell(False)
        await turns()
        assert world.questions == [[1]]
        assert sorted(world.writer.records[1:]) == [
            ("decisions", 0, b"0/2@0", b"0 0"), ("decisions", 0, b"0/2@0", b"1 0"), ("decisions", 2, b"0/1@0", b"0 0")
        ]  # fmt: skip
        assert world.writer.written[0] == ("dead", b"1"), "what goes aside is not taken back"
        assert world.acked_of == {0: [2], 1: [], 2: [1]}
        world.states[1].advance(5)
        await turns()
        assert world.writer.records[4:] == [("decisions", 1, b"0/3@5", b"0 0"), ("decisions", 1, b"0/3@5", b"2 0")]
        assert world.told_of[1] == [(0, b"decided"), (2, b"decided")]
        assert world.acked_of == {0: [2], 1: [3], 2: [1]}
        assert [clerk.decided for clerk in world.clerks] == [[0, 1], [0, 2, 0, 2], [0]]


def test_a_commit_passes_no_request_that_is_to_be_decided_again() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.end = 5
        world.put(0, b"0/9", b"0/9", end=0, confirmation=Confirmation(False))
        await turns()
        world.put(2, b"0/9", end=0, confirmation=Confirmation(True))
        world.put(3, b"-", end=0)
        await turns()
        assert (world.answered, world.acked, world.desk.progress.floor) == ([2], [], 0)
        ((_, _, made_at, _),) = (record for record in world.writer.records if record[0] == "decisions")
        assert made_at == b"0/3@0", "a restart looks for what is not answered"
        world.state.advance(5)
        await turns()
        assert (world.answered, world.acked, world.desk.progress.floor) == ([2, 0, 1], [2, 3, 4], 4)
        assert world.desk._count == 0


def test_all_confirmations_of_a_partition_must_hold_for_what_is_written_together() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.end = 5
        world.lane.put(
            world.batch(0, b"0/9", end=0, confirmation=Confirmation(True)),
            world.batch(1, b"0/9", end=0, confirmation=Confirmation(False)),
        )
        await turns()
        assert 1 not in world.answered
        world.state.advance(5)
        await turns()
        assert (sorted(world.answered), world.acked) == ([0, 1], [1, 2])


def test_what_is_not_confirmed_time_and_again_is_decided_again_each_time_and_written_once() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        world.put(0, b"0/9", end=0, confirmation=Confirmation(False))
        await asyncio.sleep(3 * ROUND_S)
        assert (world.answered, world.acked) == ([], [])
        world.unknown.clear()
        await asyncio.sleep(3 * ROUND_S)
        assert (world.writer.written, world.acked, world.clerk.decided) == ([("decisions", b"0 0")], [1], [0, 0])


def test_what_was_sent_home_is_sent_there_once_and_does_not_wait_for_a_confirmation_twice() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.end = 5
        world.put(0, b">0/9", b"0/9", b">0/9", end=0, confirmation=Confirmation(False))
        world.put(3, b">0/9", end=0, confirmation=Confirmation(False))
        await turns()
        world.state.advance(5)
        await turns()
        home = [value for topic, value in world.writer.written if topic == "home"]
        assert home == [b"0", b"2", b"3"]
        assert [value for topic, value in world.writer.written if topic == "decisions"] == [b"1 0"]
        assert world.clerk.decided == [0, 1, 2, 3, 1]
        assert sorted(world.told) == [(0, None), (1, b"decided"), (2, None), (3, None)], "who waits for it is told"
        assert world.acked == [3, 4]
        assert world.desk._count == 0


def test_what_is_behind_needs_no_confirmation() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        never = Confirmation()
        world.put(0, b"7/0.1", end=0, confirmation=never)
        await asyncio.sleep(0.2)
        assert world.told == [(0, b"behind")]
        assert never.asked == []


def test_what_is_not_confirmed_and_then_late_is_behind_once_and_in_time() -> None:
    """Its patience begins anew, and is no longer than the least: what it was told of first was nobody's fault."""

    @in_a_world()
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        world.put(0, b"0/0", b"0/0.5", end=0, confirmation=Confirmation(False))
        await asyncio.sleep(LEAST_PATIENCE_S + 0.01)
        assert world.told == [(0, b"behind")]
        await asyncio.sleep(0.5 - LEAST_PATIENCE_S)
        assert world.told == [(0, b"behind"), (1, b"behind")]
        world.unknown.clear()
        await asyncio.sleep(5 * ROUND_S)
        assert (len(world.told), world.acked) == (2, [2])


# Unknown ends


def test_a_deadline_while_the_end_is_not_known_is_behind_once() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        world.put(0, b"0/0", b"0/0.5", b"0/9")
        for at, answered in ((LEAST_PATIENCE_S - 0.01, []), (LEAST_PATIENCE_S, [0]), (0.49, [0]), (0.5, [0, 1])):
            await asyncio.sleep(at - now())
            await turns()
            assert world.answered == answered
        await asyncio.sleep(3 * ROUND_S)
        world.unknown.clear()
        await asyncio.sleep(3 * ROUND_S)
        assert world.told == [(0, b"behind"), (1, b"behind"), (2, b"decided")]
        assert (world.acked, world.clerk.decided) == ([3], [0, 1, 2])


@pytest.mark.parametrize(("end", "told"), [(0, b"decided"), (1, b"behind")])
def test_one_that_does_not_wait_for_the_state_is_given_the_time_to_ask_where_it_ought_to_be(
    end: int, told: bytes
) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.end, world.takes_s = end, LEAST_PATIENCE_S - 0.05
        world.put(0, b"0/0")
        await asyncio.sleep(world.takes_s)
        await turns()
        assert world.told == [(0, told)], "and not a moment longer"


def test_a_request_that_never_can_be_answered_does_not_wait_for_an_end() -> None:
    """It asks for a position that no state reaches, and for no patience."""

    @in_a_world()
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        world.put(0, b"%d/0" % (2**63 - 1))
        await turns()
        assert world.told == [(0, b"behind")]


def test_who_asks_for_a_higher_position_waits_for_it_when_the_end_is_known() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.end, world.takes_s = 3, 0.01
        world.put(0, b"0/9", b"5/9", b"5/0")
        world.state.advance(3)
        await asyncio.sleep(0.01)
        await turns()
        assert world.told == [(0, b"decided"), (2, b"behind")]
        world.state.advance(5)
        await turns()
        assert world.told[2:] == [(1, b"decided")]


def test_ends_that_are_not_found_are_asked_for_again_in_one_question_until_they_are() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.unknown |= {0, 1}
        for first in range(3):
            world.put(first, b"0/99", number=0)
            world.put(first, b"0/99", number=1)
        await asyncio.sleep(10)
        later = world.questions[6:]
        assert later
        assert all(sorted(question) == [0, 1] for question in later)
        assert len(later) <= 10 / (ROUND_S + ASK_AGAIN_S)
        world.unknown.clear()
        await asyncio.sleep(2)
        assert (world.acked_of, world.clerks[0].decided) == ({0: [1, 2, 3], 1: [1, 2, 3]}, [0, 1, 2])
        asked = world.asked
        await asyncio.sleep(10)
        assert world.asked == asked, "nobody waits any more"


def test_ends_are_asked_for_no_more_when_nobody_waits_for_them() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        world.put(0, b"0/1")
        await asyncio.sleep(5)
        asked = world.asked
        await asyncio.sleep(50)
        assert (world.asked, world.told) == (asked, [(0, b"behind")])


# One partition and the others


def test_a_partition_whose_end_nobody_knows_holds_up_no_other() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        for turn in range(5):
            world.lane.put(world.batch(turn, b"0/99", number=0), world.batch(turn, b"0/99", number=1))
            await turns()
            assert len(world.told_of[1]) == turn + 1
            await asyncio.sleep(0.3)
        assert world.told_of[0] == []


def test_an_end_that_is_found_at_the_second_attempt_does_not_wait_for_another_partitions() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.unknown |= {0, 1}
        world.lane.put(world.batch(0, b"0/99", number=0), world.batch(0, b"0/99", number=1))
        await asyncio.sleep(0.5 * ROUND_S)
        world.unknown.remove(1)
        await asyncio.sleep(0.5 * ROUND_S + ASK_AGAIN_S)
        await turns()
        assert world.told_of == {0: [], 1: [(0, b"decided")]}


def test_a_partition_that_nobody_confirms_holds_up_no_other_for_long() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        for turn in range(5):
            late = Confirmation()
            asyncio.get_running_loop().call_later(ROUND_S, late.tell, False)
            world.lane.put(
                world.batch(turn, b"0/99", number=0, end=0, confirmation=late),
                world.batch(turn, b"0/99", number=1, end=0, confirmation=Confirmation(True)),
            )
            await asyncio.sleep(LEAST_PATIENCE_S)
            assert len(world.told_of[1]) == turn + 1
        assert world.told_of[0] == []
        world.unknown.clear()
        await asyncio.sleep(5)
        assert [offset for offset, _ in world.told_of[0]] == list(range(5))


# Many requests, and the end


def test_requests_that_are_read_after_their_end_could_not_be_found_are_not_forgotten() -> None:
    """They are read a few at a time, and not at all while what is decided cannot be written."""

    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        world.unknown.add(1)
        world.writer.gate.clear()
        # As many groups as may be are being written; and the next one is full when the last requests are to be read.
        at = 0
        for count in (*[MOST_AT_ONCE] * MOST_WRITTEN_AT_ONCE, CHUNK):
            world.put(at, *[b"0/99"] * count, end=0)
            at += count
            await turns(100)
        filling = world.batch(at, *[b"0/99"] * (MOST_AT_ONCE - 1), end=0)
        at += MOST_AT_ONCE - 1
        world.lane.put(filling, world.batch(0, *[b"0/99"] * (AT_ONCE + 1), number=1))
        await asyncio.sleep(5 * ROUND_S)
        assert [1] in world.questions
        assert world.lane.next.is_full()
        world.unknown.clear()
        world.writer.gate.set()
        await asyncio.sleep(5 * ROUND_S)
        assert [len(told) for told in world.told_of.values()] == [at, AT_ONCE + 1]
        assert {body for _, body in world.told_of[1]} == {b"decided"}


def test_many_that_came_together_share_their_question_and_are_told_while_they_are_still_being_read() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        count = 4 * CHUNK
        world.lane.put(
            world.batch(0, *[b"0/9"] * count, number=0), world.batch(0, *[b"0/9"] * count, number=1, end=0)
        )
        await turns(100)
        assert world.questions == [[0]]
        assert [len(told) for told in world.told_of.values()] == [count, count]


@pytest.mark.parametrize("when", ["asked first", "between questions", "asked again"])
def test_closing_asks_no_more_and_answers_nothing(when: str) -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        world.unknown.add(0)
        world.put(0, b"0/99")
        await asyncio.sleep({"asked first": 0.5, "between questions": 1.02, "asked again": 1.5}[when])
        asked, began = world.asked, now()
        await world.lane.close()
        assert now() == began, "there is nothing to wait for"
        await turns()
        assert world.cancelled == (when != "between questions")
        world.unknown.clear()
        world.state.advance(9)
        await asyncio.sleep(100)
        assert (world.asked, world.told, world.acked) == (asked, [], [])


def test_what_is_not_confirmed_when_the_lane_closes_is_left_to_the_next_owner() -> None:
    @in_a_world(partitions=2)
    async def scenario(world: World) -> None:
        late = Confirmation()
        world.lane.put(
            world.batch(0, b"0/9", end=0, confirmation=late), world.batch(0, b"0/9", number=1, end=0)
        )
        await turns()
        closing = asyncio.create_task(world.lane.close())
        await turns()
        late.tell(False)
        await closing
        assert (world.told_of, world.acked_of) == ({0: [], 1: [(0, b"decided")]}, {0: [], 1: [1]})
        assert world.questions == []


def test_what_is_confirmed_while_the_lane_closes_is_written() -> None:
    @in_a_world()
    async def scenario(world: World) -> None:
        late = Confirmation()
        world.put(0, b"0/9", end=0, confirmation=late)
        await turns()
        closing = asyncio.create_task(world.lane.close())
        await turns()
        late.tell(True)
        await closing
        assert (world.told, world.acked) == ([(0, b"decided")], [1])


@pytest.mark.parametrize("which", ["the first question", "a later one", "a confirmation"])
def test_an_error_that_nobody_expects_ends_the_worker(which: str) -> None:
    async def scenario() -> None:
        world = World()
        await turns()
        if which == "a confirmation":
            broken = Confirmation()
            broken._told.set_exception(ValueError(which))
            world.put(0, b"0/9", end=0, confirmation=broken)
        else:
            find_ends = world.find_ends

            async def fails(*given: Any) -> None:
                if world.asked or which == "the first question":
                    raise ValueError(which)
                await find_ends(*given)

            world.unknown.add(0)
            world.lane._find_ends = fails
            world.put(0, b"0/99")
        await asyncio.sleep(2 * ROUND_S)
        assert [str(error) for error in world.errors] == [which]
        assert (world.told, world.acked) == ([], [])
        await world.lane.close()

    run(scenario)


# Any of it

KEYS = st.sampled_from((b"0/9", b"4/99", b"0/0", b"0/0.3", b"-", b">0/9"))
#: Of each batch: partition, keys, whether the fetch tells the end, and what comes of its confirmation and when.
BATCHES = st.tuples(
    st.integers(0, 2),
    st.lists(KEYS, max_size=4),
    st.booleans(),
    st.sampled_from((None, True, False, "late", "late and false")),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(BATCHES, min_size=1, max_size=4)),
        st.tuples(st.just("grow"), st.tuples(st.integers(0, 2), st.integers(1, 4))),
        st.tuples(st.just("apply"), st.tuples(st.integers(0, 2), st.integers(1, 4))),
        st.tuples(st.just("unknown"), st.sets(st.integers(0, 2))),
        st.tuples(st.just("slow"), st.sampled_from((0.0, 0.1, 0.4))),
        st.tuples(st.just("wait"), st.sampled_from((0.0, 0.01, 0.2, 1.1, 3.0))),
        st.tuples(st.just("gate"), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_in_the_end_everything_is_answered_once_acked_in_order_and_not_below_the_end_of_its_time(
    steps: list[tuple[str, Any]],
) -> None:
    @in_a_world(partitions=3)
    async def scenario(world: World) -> None:
        world.ends = dict.fromkeys(range(3), 0)
        at = dict.fromkeys(range(3), 0)
        acks: dict[int, list[int]] = {number: [] for number in range(3)}
        #: By partition and offset, the key, and where the changes ended when it came.
        came: dict[tuple[int, int], tuple[bytes, int]] = {}
        for what, how in steps:
            if what == "put":
                batches = []
                for number, keys, is_told, kind in how:
                    end, confirmation = None, None
                    if is_told:
                        # A leader that was replaced tells an older end.
                        end = 0 if kind in (False, "late and false") else world.ends[number]
                        confirmation = None if kind is None else Confirmation(kind if kind in (True, False) else None)
                        if kind not in (None, True, False):
                            asyncio.get_running_loop().call_later(0.15, confirmation.tell, kind == "late")  # type: ignore[union-attr]
                    batches.append(world.batch(at[number], *keys, number=number, end=end, confirmation=confirmation))
                    came |= {(number, at[number] + n): (key, world.ends[number]) for n, key in enumerate(keys)}
                    at[number] += len(keys)
                    acks[number].append(at[number])
                world.lane.put(*batches)
            elif what == "grow":
                world.ends[how[0]] += how[1]
            elif what == "apply":
                state = world.states[how[0]]
                state.advance(max(state.applied, min(state.applied + how[1], world.ends[how[0]])))
            elif what == "unknown":
                world.unknown = set(how)
            elif what == "slow":
                world.takes_s = how
            elif what == "gate":
                (world.writer.gate.set if how else world.writer.gate.clear)()
            await (turns() if what != "wait" else asyncio.sleep(how))
            for number, acked in world.acked_of.items():
                assert acked == acks[number][: len(acked)]
                answered = {offset for offset, _ in world.told_of[number]}
                upto = acked[-1] if acked else 0
                due = {o for (n, o), (key, _) in came.items() if n == number and o < upto and key != b"-"}
                assert due <= answered
        world.unknown.clear()
        world.writer.gate.set()
        for number, state in enumerate(world.states):
            state.advance(max(state.applied, world.ends[number], 4))
        await asyncio.sleep(20)
        assert world.acked_of == acks
        wanted = {n: [o for (m, o), (key, _) in came.items() if m == n and key != b"-"] for n in range(3)}
        assert {n: sorted(offset for offset, _ in told) for n, told in world.told_of.items()} == wanted
        written: dict[str, list[Any]] = {"dead": [], "home": [], "decisions": []}
        for topic, number, made_at, value in world.writer.records:
            if topic == "decisions":
                offset, is_behind = map(int, value.split())
                written[topic].append((number, offset))
                applied = int(made_at.split(b"@")[1])
                assert is_behind or applied >= came[number, offset][1], "a stale answer"
            else:
                written[topic].append(value)
        assert sorted(written["decisions"]) == sorted(one for one, (key, _) in came.items() if key[:1] not in b"->")
        assert sorted(written["dead"]) == sorted(b"%d" % o for (_, o), (key, _) in came.items() if key == b"-")
        assert sorted(written["home"]) == sorted(b"%d" % o for (_, o), (key, _) in came.items() if key[:1] == b">")
        assert [desk._count for desk in world.desks.values()] == [0, 0, 0]
        assert [desk.progress.floor for desk in world.desks.values()] == list(at.values())
