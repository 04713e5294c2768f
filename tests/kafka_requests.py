"""Kafka's requests to one chosen broker, without a client: what it says of leaders, and moving them.

aiokafka asks some broker or other, and cannot move leaders.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest_v1
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import Array, CompactArray, CompactString, Int8, Int16, Int32, Schema, String, TaggedFields

#: A broker that answers at all answers soon.
ANSWER_S = 5.0
CHANGE_S = 15.0
#: The kind of an election that makes the first of the replicas the leader, and codes of its outcome.
PREFERRED = 0
DONE, NOT_NEEDED = 0, 84
GROUP, TRANSACTION = 0, 1

Places = Mapping[str, Sequence[int]]


class RefusedError(Exception):
    """A broker said no."""


class Led(NamedTuple):
    """What a broker says of a partition; the leader is -1 where there is none."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class Seen(NamedTuple):
    """The cluster as one broker sees it: the brokers that are alive, and all partitions by topic and number."""

    brokers: frozenset[int]
    partitions: dict[tuple[str, int], Led]


class _ElectLeadersResponse(Response):
    API_KEY = 43
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("topics", Array(
            ("name", String("utf-8")),
            ("partitions", Array(
                ("partition", Int32), ("error_code", Int16), ("error_message", String("utf-8")),
            )),
        )),
    )  # fmt: skip


class _ElectLeaders(RequestStruct):
    API_KEY = 43
    API_VERSION = 1
    RESPONSE_TYPE = _ElectLeadersResponse
    SCHEMA = Schema(
        ("kind", Int8),
        ("topics", Array(("name", String("utf-8")), ("partitions", Array(Int32)))),
        ("timeout_ms", Int32),
    )


class _AlterReassignmentsResponse(Response):
    API_KEY = 45
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("error_message", CompactString()),
        ("topics", CompactArray(
            ("name", CompactString()),
            ("partitions", CompactArray(
                ("partition", Int32), ("error_code", Int16), ("error_message", CompactString()), ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


class _AlterReassignments(RequestStruct):
    API_KEY = 45
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _AlterReassignmentsResponse
    SCHEMA = Schema(
        ("timeout_ms", Int32),
        ("topics", CompactArray(
            ("name", CompactString()),
            ("partitions", CompactArray(
                ("partition", Int32), ("replicas", CompactArray(Int32)), ("tags", TaggedFields),
            )),
            ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


def ask(address: str, request: RequestStruct, timeout_s: float = ANSWER_S) -> Any:
    """The answer of the broker at "HOST:PORT". Raises OSError if there is none within that time."""
    host, _, port = address.rpartition(":")
    asked = request.build_request_header(1, "consent-streams-tests").encode() + request.encode()
    with socket.create_connection((host, int(port)), timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(asked)) + asked)
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        answer = BytesIO(_exactly(connection, size))
    request.parse_response_header(answer)
    return request.RESPONSE_TYPE.decode(answer)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(min(size - len(received), 1 << 16))
        if not chunk:
            raise ConnectionError("closed")
        received += chunk
    return bytes(received)


def look(address: str) -> Seen:
    """The cluster as this broker sees it."""
    answer = ask(address, MetadataRequest_v5(None, False))
    partitions = {
        (topic, number): Led(leader, tuple(replicas), tuple(in_sync))
        for _, topic, _, found in answer.topics
        for _, number, leader, replicas, in_sync, _ in found
    }
    return Seen(frozenset(node for node, *_ in answer.brokers), partitions)


def coordinator(address: str, key: str, kind: int) -> int:
    """The broker that coordinates a group or the transactions of an id; -1 while there is none."""
    found = ask(address, FindCoordinatorRequest_v1(key, kind))
    return -1 if found.error_code else int(found.coordinator_id)


def elect_preferred(address: str, places: Places) -> None:
    """Make the first replica of each of these partitions its leader. Raises RefusedError if one cannot be."""
    wanted = [(topic, list(numbers)) for topic, numbers in places.items()]
    answer = ask(address, _ElectLeaders(PREFERRED, wanted, int(CHANGE_S * 1000)), CHANGE_S + ANSWER_S)
    refused = [
        (topic, number, code, message)
        for topic, found in answer.topics
        for number, code, message in found
        if code not in (DONE, NOT_NEEDED)
    ]
    if answer.error_code or refused:
        raise RefusedError(f"leaders were not elected: {answer.error_code} {refused}")


def reassign(address: str, places: Mapping[tuple[str, int], Sequence[int]]) -> None:
    """Give partitions these replicas, in this order; returns when that has begun. Raises RefusedError."""
    topics: dict[str, list[Any]] = {}
    for (topic, number), replicas in places.items():
        topics.setdefault(topic, []).append((number, list(replicas), {}))
    wanted = [(topic, partitions, {}) for topic, partitions in topics.items()]
    answer = ask(address, _AlterReassignments(int(CHANGE_S * 1000), wanted, {}), CHANGE_S + ANSWER_S)
    refused = [
        (topic, number, code, message)
        for topic, found, _ in answer.topics
        for number, code, message, _ in found
        if code
    ]
    if answer.error_code or refused:
        raise RefusedError(f"replicas were not reassigned: {answer.error_code} {answer.error_message} {refused}")
