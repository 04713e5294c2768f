"""The requests that we put into bytes ourselves: byte for byte what aiokafka's schemas make, and read as they read."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.offset import OffsetRequest_v5, OffsetResponse_v5
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7
from aiokafka.protocol.types import Array, Int8, Int32, Int64, Schema, String
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.protocol import Fetch, Found, Listed, ListOffsets, Produce, Produced

VERSIONS = {0: (3, 7), 1: (4, 11), 2: (1, 5)}
NUMBERS = st.integers(0, 2**31 - 1)
EPOCHS = st.integers(-1, 2**31 - 1)
#: aiokafka does not send this version, and its schema has an epoch of 64 bits where Kafka's has 32.
LIST_OFFSETS = Schema(
    ("replica_id", Int32),
    ("isolation_level", Int8),
    ("topics", Array(
        ("topic", String("utf-8")),
        ("partitions", Array(("partition", Int32), ("current_leader_epoch", Int32), ("timestamp", Int64))),
    )),
)  # fmt: skip
OFFSETS = st.integers(-1, 2**63 - 1)
TOPICS = st.lists(st.text("abc.-é", min_size=1, max_size=9), unique=True, max_size=4)


def frame(request: Any) -> bytes:
    """A request as aiokafka's connection sends it."""
    prepared = request.prepare(VERSIONS)
    return bytes(prepared.build_request_header(correlation_id=7, client_id="worker").encode() + prepared.encode())


def theirs(request: Any, body: bytes) -> bytes:
    """A request that aiokafka does not send by itself, from its header and body."""
    return bytes(request.build_request_header(7, "worker").encode()) + body


@given(TOPICS, st.data())
def test_a_fetch_is_what_aiokafka_makes(names: list[str], data: st.DataObject) -> None:
    """But for the leader's epoch, which aiokafka never knows."""
    asked = st.lists(st.tuples(NUMBERS, EPOCHS, OFFSETS, NUMBERS), max_size=4)
    topics = [(name, data.draw(asked)) for name in names]
    listed = [(name, [(n, epoch, at, -1, most) for n, epoch, at, most in ones]) for name, ones in topics]
    request = FetchRequest_v11(-1, 100, 1, 52_428_800, 1, 0, -1, listed, [], "")
    ours = Fetch(topics, max_wait_ms=100, min_bytes=1, max_bytes=52_428_800, isolation_level=1)
    assert frame(ours) == theirs(request, request.encode())


@given(TOPICS, st.data(), st.sampled_from((ListOffsets.END, ListOffsets.BEGIN)))
def test_the_question_where_partitions_end_is_what_the_schema_makes(
    names: list[str], data: st.DataObject, which: int
) -> None:
    topics = [(name, data.draw(st.lists(st.tuples(NUMBERS, EPOCHS), max_size=4))) for name in names]
    listed = [(name, [(number, epoch, which) for number, epoch in ones]) for name, ones in topics]
    body = LIST_OFFSETS.encode((-1, 0, listed))
    assert frame(ListOffsets(topics, which)) == theirs(OffsetRequest_v5(-1, 0, []), body)


@given(TOPICS, st.data())
def test_the_answer_where_partitions_end_is_read(names: list[str], data: st.DataObject) -> None:
    found = st.tuples(NUMBERS, st.sampled_from((0, 0, 6, 74)), OFFSETS, OFFSETS, EPOCHS)
    answered = [(name, data.draw(st.lists(found, max_size=4, unique_by=lambda one: one[0]))) for name in names]
    answer = ListOffsets([]).decode(BytesIO(OffsetResponse_v5(0, answered).encode()))
    assert answer == {(name, one[0]): Listed(one[1], one[3]) for name, ones in answered for one in ones}


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
