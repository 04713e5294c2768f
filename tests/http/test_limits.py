"""Token buckets on a clock of the test's own, and bodies that are too large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from streams.http.limits import BodyLimit, Limiter, retry_after


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_through_and_the_next_waits_for_its_share() -> None:
    clock = Clock()
    limiter = Limiter(4, 4, 10, clock)
    assert [limiter.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.25]
    assert limiter.take("b") == 0
    clock.now += 0.25
    assert [limiter.take("a"), limiter.take("a")] == [0, 0.25]
    clock.now += 100
    assert [limiter.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.25]


@pytest.mark.parametrize("burst", [1, 3, 7, 500])
def test_a_burst_is_whole_whatever_its_share_of_a_second(burst: int) -> None:
    limiter = Limiter(burst, burst, 10, Clock())
    assert [limiter.take("a") > 0 for _ in range(burst + 2)] == [False] * burst + [True, True]


def test_asking_and_being_refused_cost_nothing() -> None:
    clock = Clock()
    limiter = Limiter(1, 1, 10, clock)
    assert [limiter.wait_s("a"), limiter.wait_s("a"), limiter.take("a")] == [0, 0, 0]
    assert [limiter.take("a"), limiter.take("a"), limiter.wait_s("a")] == [1, 1, 1]


def test_the_key_that_was_taken_from_longest_ago_is_forgotten_first() -> None:
    limiter = Limiter(1, 2, 2, Clock())
    for key in ("a", "b", "a", "c"):
        assert limiter.take(key) == 0
    assert limiter.wait_s("a") == 1
    assert [limiter.take("b"), limiter.take("b")] == [0, 0]


@given(st.lists(st.integers(0, 30), max_size=80), st.sampled_from([1, 2, 4, 8]), st.integers(1, 6))
def test_in_any_span_no_more_pass_than_a_burst_and_what_the_span_is_worth(
    steps: list[int], per_second: int, burst: int
) -> None:
    clock = Clock()
    limiter = Limiter(per_second, burst, 10, clock)
    passed: list[float] = []
    for step in steps:
        clock.now += step / 16
        if limiter.take("a") == 0:
            passed.append(clock.now)
    for at, first in enumerate(passed):
        for count, last in enumerate(passed[at:], 1):
            assert count <= burst + (last - first) * per_second


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 6))
def test_who_waits_as_long_as_told_gets_through(steps: list[int], burst: int) -> None:
    clock = Clock()
    limiter = Limiter(4, burst, 10, clock)
    for step in steps:
        clock.now += step / 16
        if wait_s := limiter.take("a"):
            clock.now += wait_s
            assert limiter.take("a") == 0


@pytest.mark.parametrize(("wait_s", "header"), [(0.01, "1"), (1.0, "1"), (1.1, "2"), (60.0, "60")])
def test_retry_after_is_whole_seconds_and_never_too_few(wait_s: float, header: str) -> None:
    assert retry_after(wait_s) == {"Retry-After": header}


# --- bodies ------------------------------------------------------------------------------------------


def answer(content: bytes | AsyncIterator[bytes], path: str = "/raw") -> httpx.Response:
    """What an app behind a limit of ten bytes answers."""
    app = FastAPI()
    app.add_middleware(BodyLimit, max_bytes=10)

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/model")
    async def model(body: list[int]) -> int:
        return len(body)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, content=content)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", ["/raw", "/model"])
def test_a_body_that_says_it_is_too_large_is_413(path: str) -> None:
    refused = answer(b"[1,2,3,4,5]", path)
    assert (refused.status_code, refused.headers["connection"]) == (413, "close")
    assert "10 bytes" in refused.json()["detail"]


def test_a_body_of_exactly_the_limit_passes() -> None:
    assert answer(b"0123456789").json() == 10
    assert answer(b"").json() == 0


@pytest.mark.parametrize("path", ["/raw", "/model"])
def test_a_body_without_a_length_is_read_up_to_the_limit_and_not_further(path: str) -> None:
    read: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        for number in range(1_000):
            read.append(number)
            yield b"abcd"

    refused = answer(endless(), path)
    assert (refused.status_code, refused.headers["connection"]) == (413, "close")
    assert "10 bytes" in refused.json()["detail"]
    assert len(read) < 10


def test_a_small_body_without_a_length_passes() -> None:
    async def small() -> AsyncIterator[bytes]:
        yield b"01234"
        yield b"56789"

    assert answer(small()).json() == 10
