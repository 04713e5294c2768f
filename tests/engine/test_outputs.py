"""Outputs: every record is in some batch, no batch is larger than a topic accepts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.config import Config
from streams.engine.outputs import Outputs, RefusedError, Writer
from streams.kafka.cluster import Cluster
from streams.kafka.record_batch import Owner, RecordBatch, batch_of, encode_headers, header_prefix, varint
from streams.topics import CHANGELOG_BYTES, OUTPUT_BYTES
from tests.written import by_place


def batches(messages: list[Any]) -> list[RecordBatch]:
    outputs = Outputs()
    for key, value, headers in messages:
        outputs.add("t", 0, key, value, (encode_headers(headers),))
    return [batch for _, _, batch in outputs.batches]


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
    for batch in found:
        batch.sign(Owner(1, 0), 0)
    assert all(batch.size() == len(batch.build()) <= OUTPUT_BYTES for batch in found)


@settings(max_examples=60)
@given(MESSAGES.filter(bool), st.integers(0, 2**40), st.integers(0, 1_000), st.integers(0, 2**31 - 1))
def test_a_batch_is_byte_for_byte_what_aiokafka_makes(
    messages: list[Any], producer_id: int, epoch: int, sequence: int
) -> None:
    ours, theirs = RecordBatch(1 << 30), BatchBuilder(1 << 30, 0)
    for key, value, headers in messages:
        assert ours.add(key, value, (encode_headers(headers),))
        theirs.append(timestamp=ours.timestamp, key=key, value=value, headers=headers)
    assert not ours.is_signed
    ours.sign(Owner(producer_id, epoch), sequence)
    theirs._set_producer_state(producer_id, epoch, sequence)
    assert ours.is_signed
    assert ours.build() == bytes(theirs._build())
    assert ours.build() is ours.build(), "what is sent again is the same"
    assert ours.record_count() == theirs.record_count()


def test_headers_encoded_in_parts_are_the_same_headers() -> None:
    known, place, last = [("a", b"1"), ("bé", None)], ("ce_id", b"x" * 300), ("z", b"")
    parts = (header_prefix(known, "ce_id", more=1), varint(300), b"x" * 300, encode_headers([last])[1:])
    assert b"".join(parts) == encode_headers([*known, place, last])


@pytest.mark.parametrize(("limit", "fits"), [(10_000, True), (150, False)])
def test_what_must_stay_together_is_one_batch_or_none(limit: int, fits: bool) -> None:
    found = batch_of([(b"k%d" % n, b"v" * 10) for n in range(10)], limit)
    assert (found is not None and found.record_count() == 10) == fits
    assert batch_of([(b"k", b"v" * limit)], limit) is None, "one record that is too large"


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
        outputs.add("even" if number % 2 == 0 else "odd", 0, b"k", b"%d" % number)
    assert [value for _, value, _ in by_place(outputs)["even", 0]] == [b"0", b"2", b"4"]
    assert [value for _, value, _ in by_place(outputs)["odd", 0]] == [b"1", b"3", b"5"]


async def _append(group: list[tuple[bytes, bytes]]) -> None:
    writer = Writer(Cluster(Config(bootstrap_servers="127.0.0.1:9"), "test", []), "writer")
    try:
        await writer.append_each("t", [(0, group)])
    finally:
        await writer.stop()


def test_a_group_that_exceeds_one_batch_is_refused_whole() -> None:
    half = bytes(CHANGELOG_BYTES // 2)
    with pytest.raises(RefusedError, match="exceed one batch"):
        asyncio.run(_append([(b"k", half), (b"k", half)]))
