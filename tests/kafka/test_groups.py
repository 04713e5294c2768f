"""Members of a consumer group, from what its coordinator keeps of them."""

from __future__ import annotations

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from streams.kafka.groups import GroupMember, member


def test_a_member_has_what_it_tells_and_the_partitions_that_it_was_given() -> None:
    metadata = ConsumerProtocolMemberMetadata(0, ["a"], b'{"url": "http://worker-1"}').encode()
    assignment = ConsumerProtocolMemberAssignment(0, [("a", [0, 2]), ("b", [1])], b"").encode()
    found = member("/10.0.0.1", metadata, assignment)
    assert found == GroupMember("10.0.0.1", b'{"url": "http://worker-1"}', frozenset({("a", 0), ("a", 2), ("b", 1)}))


def test_a_member_that_joins_has_nothing_yet() -> None:
    assert member("/10.0.0.1", b"", b"") == GroupMember("10.0.0.1", b"", frozenset())
