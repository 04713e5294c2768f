"""Who waits for the state, found by position and by deadline: against a list that is gone through."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.parking import SPARE, Parking


@dataclass(eq=False)
class Waiter:
    needs: int
    deadline: float


NUMBERS = st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NUMBERS, NUMBERS),
        st.tuples(st.just("pop"), NUMBERS, NUMBERS),
        # One that may not wait any more, to a position and a deadline so much lower.
        st.tuples(st.just("move"), NUMBERS, NUMBERS),
    )
)


@given(STEPS)
def test_everyone_is_found_once_and_no_sooner_than_the_wait_is_over(steps: list[tuple[str, int, int]]) -> None:
    parking: Parking[Waiter] = Parking()
    waiting: list[Waiter] = []
    numbers: dict[int, Waiter] = {}
    for what, position, moment in steps:
        if what == "add":
            waiting.append(Waiter(position, moment))
            numbers[parking.add(waiting[-1])] = waiting[-1]
        elif what == "move":
            for number in list(numbers)[position : position + 1]:
                one = numbers[number]
                before = one.needs, one.deadline
                parking.move(number, one.needs - position, one.deadline - moment)
                is_waiting = any(one is other for other in waiting)
                assert (one.needs, one.deadline) == (
                    (before[0] - position, before[1] - moment) if is_waiting else before
                )
        else:
            over = {one for one in waiting if one.needs <= position or one.deadline <= moment}
            found = []
            while (one := parking.pop(position, moment)) is not None:
                found.append(one)
            assert len(found) == len(over)
            assert set(found) == over
            reached = [one for one in found if one.needs <= position]
            assert found[: len(reached)] == reached, "those whose time is up come last"
            assert [one.needs for one in reached] == sorted(one.needs for one in reached)
            waiting = [one for one in waiting if one not in over]
        assert len(parking) == len(waiting)
        for number, one in numbers.items():
            assert parking.get(number) is (one if any(one is other for other in waiting) else None)
        assert parking.first_deadline() == min((one.deadline for one in waiting), default=None)


def test_those_alike_come_in_the_order_in_which_they_came() -> None:
    parking: Parking[Waiter] = Parking()
    waiters = [Waiter(1, 1.0) for _ in range(20)]
    for one in waiters:
        parking.add(one)
    assert [parking.pop(1, 0.0) for _ in waiters] == waiters


def test_who_is_moved_is_found_once_by_the_lower_position_or_the_earlier_deadline() -> None:
    for position, moment in ((5, 0.0), (0, 5.0)):
        parking: Parking[Waiter] = Parking()
        one = Waiter(9, 9.0)
        number = parking.add(one)
        assert parking.pop(5, 5.0) is None
        parking.move(number, 5, 5.0)
        assert (one.needs, one.deadline, parking.first_deadline()) == (5, 5.0, 5.0)
        assert parking.get(number) is one
        assert parking.pop(position, moment) is one
        assert parking.get(number) is None
        parking.move(number, 1, 1.0)
        assert (parking.pop(9, 9.0), parking.first_deadline(), len(parking)) == (None, None, 0)


def test_what_does_not_wait_any_more_is_not_kept() -> None:
    parking: Parking[Waiter] = Parking()
    parking.add(Waiter(10**9, 10.0**9))
    for turn in range(1_000):
        parking.add(Waiter(10**9, turn))
        assert parking.pop(0, turn) is not None
        parking.add(Waiter(turn, 10.0**9))
        assert parking.pop(turn, 0.0) is not None
    assert parking.pop(0, 0.0) is None
    kept = len(parking._by_position) + len(parking._by_deadline)
    assert kept <= 2 * (2 * len(parking) + SPARE)
