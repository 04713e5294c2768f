"""The two requests that we put into bytes ourselves: byte for byte what aiokafka makes, and read as it reads."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.protocol import Fetch, Found, Produce, Produced

VERSIONS = {0: (3, 7), 1: (4, 11)}
OFFSETS = st.integers(-1, 2**63 - 1)
TOPICS = st.lists(st.text("abc.-é", min_size=1, max_size=9), unique=True, max_size=4)


def frame(request: Any) -> bytes:
    """A request as aiokafka's connection sends it."""
    prepared = request.prepare(VERSIONS)
    return bytes(prepared.build_request_header(correlation_id=7, client_id="worker").encode() + prepared.encode())


@given(TOPICS, st.data())
def test_a_fetch_is_what_aiokafka_makes(names: list[str], data: st.DataObject) -> None:
    asked = st.lists(st.tuples(st.integers(0, 2**31 - 1), OFFSETS, st.integers(0, 2**31 - 1)), max_size=4)
    topics = [(name, data.draw(asked)) for name in names]
    theirs = FetchRequest(100, 1, 52_428_800, 1, topics)
    ours = Fetch(topics, max_wait_ms=100, min_bytes=1, max_bytes=52_428_800, isolation_level=1)
    assert frame(ours) == frame(theirs)


@given(TOPICS, st.data())
def test_the_answer_to_a_fetch_is_read(names: list[str], data: st.DataObject) -> None:
    aborted = st.none() | st.lists(st.tuples(OFFSETS, OFFSETS), max_size=2)
    found = st.tuples(
        st.integers(0, 99), st.sampled_from((0, 0, 1, 6)), OFFSETS, OFFSETS, OFFSETS, aborted, st.integers(-1, 5),
        st.none() | st.binary(max_size=20),
    )  # fmt: skip
    answered = [(name, data.draw(st.lists(found, max_size=4, unique_by=lambda one: one[0]))) for name in names]
    request = Fetch([], max_wait_ms=1, min_bytes=1, max_bytes=1, isolation_level=1)
    answer = request.decode(BytesIO(FetchResponse_v11(0, 0, 0, answered).encode()))
    assert answer == {
        (name, number): Found(error, end, stable, aborted or [], records or b"")
        for name, ones in answered
        for number, error, end, stable, _, aborted, _, records in ones
    }


@given(TOPICS, st.data())
def test_a_produce_request_is_what_aiokafka_makes(names: list[str], data: st.DataObject) -> None:
    batches = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(max_size=30)), min_size=1, max_size=4)
    topics = [(name, data.draw(batches)) for name in names]
    theirs = ProduceRequest(transactional_id=None, required_acks=-1, timeout=30_000, topics=topics)
    assert frame(Produce(((name, *one) for name, ones in topics for one in ones), 30_000)) == frame(theirs)


@given(TOPICS, st.data())
def test_the_answer_to_a_produce_request_is_read(names: list[str], data: st.DataObject) -> None:
    found = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), OFFSETS, OFFSETS, OFFSETS), max_size=4)
    answered = [(name, data.draw(found)) for name in names]
    answer = Produce([], 1).decode(BytesIO(ProduceResponse_v7(answered, 0).encode()))
    assert answer == [Produced(name, *one[:3]) for name, ones in answered for one in ones]


@pytest.mark.parametrize("versions", [{}, {0: (3, 6)}, {0: (8, 13)}])
def test_a_broker_that_does_not_take_our_version_is_told_apart(versions: dict[int, tuple[int, int]]) -> None:
    with pytest.raises(IncompatibleBrokerVersion, match="of Produce, not 7"):
        Produce([], 1).prepare(versions)
