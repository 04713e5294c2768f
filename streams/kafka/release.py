"""Which release of Kafka a broker is, as far as the protocol tells: it names no release, but a `metadata.version`."""

from __future__ import annotations

from io import BytesIO

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Schema, TaggedFields, UnsignedVarInt32

from streams.config import Config
from streams.kafka.admin import asked

#: `metadata.version` that a Kafka of each release brought.
_RELEASES = {7: "3.3", 8: "3.4", 11: "3.5", 14: "3.6", 19: "3.7", 20: "3.8", 21: "3.9", 25: "4.0", 27: "4.1", 29: "4.2",
             30: "4.3"}  # fmt: skip


class _ApiVersionsResponse(Response):  # type: ignore[misc]
    # aiokafka 0.14 stops at version 2; the features that a broker supports came with version 3.
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        ("versions", CompactArray(("key", Int16), ("least", Int16), ("most", Int16), ("tags", TaggedFields))),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ApiVersionsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ApiVersionsResponse
    SCHEMA = Schema(("software", CompactString()), ("version", CompactString()), ("tags", TaggedFields))

    def parse_response_header(self, read_buffer: BytesIO) -> ResponseHeader_v0:
        """This answer alone keeps the old header, so that every client can read it."""
        return ResponseHeader_v0.decode(read_buffer)


class _ApiVersionsRequest(Request[_ApiVersionsStruct]):  # type: ignore[misc]
    API_KEY = 18

    def build(self, request_struct_class: type[_ApiVersionsStruct]) -> _ApiVersionsStruct:
        return request_struct_class("consent-streams", "doctor", {})


async def release_of(config: Config) -> str:
    """The release of a broker of the cluster, such as "4.3", or what is known of it. Raises KafkaFault."""
    answer = await asked(config, lambda admin: admin._send_request(_ApiVersionsRequest()))
    return named(answer.tags.get(0, b"\x01"))


def named(features: bytes) -> str:
    """The release by the newest `metadata.version` among supported features: tag 0, (name, least, most, tags) each."""
    left = BytesIO(features)
    for _ in range(UnsignedVarInt32.decode(left) - 1):
        name, _least, most = CompactString().decode(left), Int16.decode(left), Int16.decode(left)
        TaggedFields.decode(left)
        if name == "metadata.version":
            known = [release for level, release in _RELEASES.items() if level <= most]
            return f"{known[-1]}{' or newer' if most > max(_RELEASES) else ''}" if known else "older than 3.3"
    return "older than 3.3, or with ZooKeeper"
