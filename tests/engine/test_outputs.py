"""Outputs: every record is in some batch, no batch is larger than a topic accepts."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine.outputs import BATCH_OVERHEAD, Outputs, Writer
from streams.topics import CHANGELOG_BYTES, OUTPUT_BYTES


class _Producer:
    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(CHANGELOG_BYTES - BATCH_OVERHEAD, 0)


def batches(messages: list[Any]) -> list[BatchBuilder]:
    writer = Writer.__new__(Writer)
    writer._producer = _Producer()
    return list(writer._batches(messages))


MESSAGES = st.lists(
    st.tuples(
        st.none() | st.integers(0, 600).map(lambda n: b"k" * n),
        st.none() | st.sampled_from((0, 10, 700, 300_000)).map(lambda n: b"v" * n),
        st.lists(
            st.tuples(st.text(max_size=5), st.none() | st.sampled_from((1, 5_000, 200_000)).map(bytes)), max_size=3
        ),
    ),
    max_size=40,
)


@settings(max_examples=30)
@given(MESSAGES)
def test_every_record_is_in_a_batch_that_the_broker_accepts(messages: list[Any]) -> None:
    found = batches(messages)
    assert sum(batch.record_count() for batch in found) == len(messages)
    assert all(batch.size() <= OUTPUT_BYTES for batch in found)


@pytest.mark.parametrize(("count", "size"), [(200, 200_000), (1_000, 5_000)])
def test_large_headers_of_dead_letters_count(count: int, size: int) -> None:
    found = batches([(b"k", b"{", [("trace", b"x" * size)])] * count)
    assert sum(batch.record_count() for batch in found) == count
    assert max(batch.size() for batch in found) <= OUTPUT_BYTES


def test_a_record_that_no_topic_accepts_is_left_to_the_broker_to_refuse_and_never_left_out() -> None:
    huge = b"v" * CHANGELOG_BYTES
    found = batches([(b"a", b"1", []), (b"b", huge, []), (b"c", b"3", [])])
    assert [batch.record_count() for batch in found] == [1, 1, 1]


def test_outputs_keep_the_order_of_each_place() -> None:
    outputs = Outputs()
    for number in range(6):
        outputs.add("even" if number % 2 == 0 else "odd", 0, b"k", b"%d" % number, [])
    assert [value for _, value, _ in outputs.by_place["even", 0]] == [b"0", b"2", b"4"]
    assert [value for _, value, _ in outputs.by_place["odd", 0]] == [b"1", b"3", b"5"]
