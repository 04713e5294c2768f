"""Does a Kafka answer? Two requests of its protocol by hand, so that a start can be awaited without a client."""

from __future__ import annotations

import socket
import struct

_API_VERSIONS = 18
_METADATA = 3
_CORRELATION = 7


def answers(address: str, *, plaintext: bool = True, timeout_s: float = 1.0) -> bool:
    """Whether the broker at `address` ("host:port") is ready for clients; never raises.

    It must answer ApiVersions, which every listener does without a login (not behind TLS), and where `plaintext` is
    true also name at least one live broker, itself, in its metadata.
    """
    try:
        with _connect(address, timeout_s) as connection:
            (error,) = struct.unpack_from(">h", _ask(connection, _API_VERSIONS, 0, b""))
            if error or not plaintext:
                return not error
            no_topics = struct.pack(">i?", 0, False)
            _, brokers = struct.unpack_from(">ii", _ask(connection, _METADATA, 4, no_topics))
            return bool(brokers > 0)
    except (OSError, struct.error):
        return False


def listens(address: str, timeout_s: float = 1.0) -> bool:
    """Whether anything accepts a TCP connection at `address` ("host:port"); never raises."""
    try:
        _connect(address, timeout_s).close()
    except OSError:
        return False
    return True


def _connect(address: str, timeout_s: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout_s)


def _ask(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """Send one request and return its response's body."""
    client = b"consent-streams"
    header = struct.pack(">hhih", api, version, _CORRELATION, len(client)) + client
    connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    (correlation,) = struct.unpack(">i", _exactly(connection, 4))
    if correlation != _CORRELATION:
        raise ConnectionError("not a Kafka broker")
    return _exactly(connection, size - 4)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = connection.recv(min(size - len(received), 65536))
        if not chunk:
            raise ConnectionError("closed")
        received += chunk
    return received
