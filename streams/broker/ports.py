"""Ports on loopback."""

from __future__ import annotations

import os
import random
import socket

from .errors import BrokerError

KAFKA_PORT = 9092
BELOW_OUTGOING = (20_000, 32_000)
PORT_VARIABLE = "CONSENT_BROKER_PORT"


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as candidate:
        # As Java's server sockets do: connections of a broker just ended do not keep its port.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(other_than: int = 0) -> int:
    """A port of 127.0.0.1 that is free now; it may be taken by someone else in the next moment.

    It lies below the ports that systems give to outgoing connections: a client that keeps calling a killed broker could
    otherwise be given the broker's own port, connect to itself, and keep the broker from coming back.
    """
    for _ in range(1000):
        port = random.randrange(*BELOW_OUTGOING)  # noqa: S311  no secret
        if port != other_than and is_free(port):
            return port
    raise BrokerError("no free port on 127.0.0.1")


def default_port() -> int:
    """The port for a broker nobody named one for: `CONSENT_BROKER_PORT`, else 9092 if it is free, else 0 (any).

    Raises BrokerError when the variable is no port number.
    """
    given = os.environ.get(PORT_VARIABLE)
    if given:
        if not given.isdecimal() or int(given) > 65535:
            raise BrokerError(f"{PORT_VARIABLE} is {given!r}, not a port number")
        return int(given)
    return KAFKA_PORT if is_free(KAFKA_PORT) else 0
