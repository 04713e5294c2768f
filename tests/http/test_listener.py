"""The worker's socket: answers leave at once, without waiting for more to send or for an acknowledgement."""

from __future__ import annotations

import asyncio
import socket

import pytest

from streams.config import Config
from streams.worker import _listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_do_without_nagles_algorithm(host: str) -> None:
    async def nodelay() -> int:
        connected: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Seen(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                sock = transport.get_extra_info("socket")
                connected.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        listener = _listen(Config(http_host=host, http_port=0))
        server = await asyncio.get_running_loop().create_server(Seen, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(host, listener.getsockname()[1])
            writer.close()
            return await connected

    assert asyncio.run(nodelay()) != 0
