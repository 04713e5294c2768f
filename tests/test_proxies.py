"""A proxy that is cut holds what is on its way, resets nothing, and lets all of it pass once it is joined."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from streams.broker.ports import free_port
from tests.broker.helpers import alive, python
from tests.integration.harness import wait_for
from tests.proxies import Proxies, Way

NAME = "one to other"
#: How long is looked whether something passes that must not.
SILENCE_S = 0.3


class Echo:
    """A server that sends back what it gets, and keeps all connections."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self.socket.accept()[0])
                threading.Thread(target=self._echo, args=(self.connections[-1],), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        self.ended += 1

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        for each in (self.socket, *self.connections):
            each.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def way(echo: Echo) -> Way:
    return Way(NAME, "127.0.0.1", free_port(), "127.0.0.1", echo.port)


@pytest.fixture
def proxies(way: Way) -> Iterator[Proxies]:
    proxies = Proxies([way])
    yield proxies
    proxies.close()


@pytest.fixture
def client(proxies: Proxies, way: Way) -> Iterator[socket.socket]:
    with _connected(way) as client:
        yield client


def _connected(way: Way) -> socket.socket:
    return socket.create_connection((way.host, way.port), 5)


def _asked(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return _received(client, len(data))


def _received(client: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        chunk = client.recv(size - len(found))
        assert chunk, "the connection was ended"
        found += chunk
    return found


def _is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def test_what_is_larger_than_any_buffer_passes(client: socket.socket) -> None:
    data = bytes(range(256)) * 20_000
    threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
    assert _received(client, len(data)) == data


def test_what_is_written_while_it_is_cut_arrives_once_it_is_joined(proxies: Proxies, client: socket.socket) -> None:
    assert _asked(client, b"before") == b"before"
    proxies.cut([NAME])
    client.sendall(b"meanwhile")
    assert _is_silent(client)
    proxies.join([NAME])
    assert _received(client, 9) == b"meanwhile"
    assert _asked(client, b"after") == b"after"


def test_what_comes_back_is_held_as_well(proxies: Proxies, client: socket.socket, echo: Echo) -> None:
    assert _asked(client, b"before") == b"before"
    proxies.cut([NAME])
    echo.connections[0].sendall(b"unasked")
    assert _is_silent(client)
    proxies.join([NAME])
    assert _received(client, 7) == b"unasked"


def test_a_new_connection_is_taken_and_hangs(proxies: Proxies, way: Way, echo: Echo) -> None:
    proxies.cut([NAME])
    with _connected(way) as client:
        client.sendall(b"hello")
        assert _is_silent(client)
        assert not echo.connections
        proxies.join([NAME])
        assert _received(client, 5) == b"hello"


def test_an_end_is_not_told_while_it_is_cut(
    proxies: Proxies, way: Way, client: socket.socket, echo: Echo
) -> None:
    with _connected(way) as other:
        assert _asked(client, b"one") == b"one"
        assert _asked(other, b"two") == b"two"
        proxies.cut([NAME])
        other.close()
        echo.connections[0].shutdown(socket.SHUT_WR)
        assert _is_silent(client)
        assert echo.ended == 0
        proxies.join([NAME])
        wait_for("the server to hear of the client's end", lambda: echo.ended)
        assert client.recv(1) == b""


def test_a_server_that_is_not_there_ends_the_connection(proxies: Proxies, way: Way, echo: Echo) -> None:
    echo.close()
    with _connected(way) as client, suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_the_process_ends_with_the_one_that_started_it() -> None:
    code = "import time; from tests.proxies import Proxies; print(Proxies([])._process.pid, flush=True); time.sleep(60)"
    with python(code) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        wait_for("the proxies to end", lambda: not alive(pid))
