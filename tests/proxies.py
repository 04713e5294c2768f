"""TCP proxies that can be cut, in a process of their own: `Proxies` starts it, `python -m tests.proxies` is it.

A proxy that is cut drops nothing and resets nothing: bytes that are on their way are held, new connections are taken
and not passed on, and an end of one side is not told to the other. For both sides it is as if packets were lost. Once
it is joined again, all of that goes on.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple, cast

CHECKOUT = Path(__file__).parents[1]
ANSWER_S = 10.0


class Way(NamedTuple):
    """From an address on this machine to another one, under a name."""

    name: str
    host: str
    port: int
    to_host: str
    to_port: int


class Proxies:
    """The proxies of some ways. The process ends with this one, however that ends."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.proxies"], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._answers: Queue[bytes] = Queue()
        threading.Thread(target=self._read, name="proxies", daemon=True).start()
        self._tell(ways)

    def cut(self, names: Iterable[str]) -> None:
        """Let nothing pass on these ways; when this returns, nothing does."""
        self._tell(["cut", *names])

    def join(self, names: Iterable[str]) -> None:
        """Let everything pass again, what was held included."""
        self._tell(["join", *names])

    def close(self) -> None:
        """End the process, and all connections with it."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)

    def _tell(self, message: Sequence[object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
            self._answers.get(timeout=ANSWER_S)
        except (OSError, Empty):
            self.close()
            raise RuntimeError(f"the proxies do not answer to {message}") from None


# --- the process -------------------------------------------------------------------------------------


class _Side(asyncio.Protocol):
    """One of the two connections of a client that is passed on. It is read while the other one can take it."""

    def __init__(self, proxy: _Proxy) -> None:
        self.proxy = proxy
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._full = False
        self._lost = False
        self._reading = True
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.proxy.sides.add(self)
        self.update()

    def data_received(self, data: bytes) -> None:
        # uvloop begins to read a new connection whatever it was told.
        self._early.append(data)
        self._pass_on_early()

    def _pass_on_early(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.proxy.is_cut and self._early:
            self.other.transport.write(b"".join(self._early))
            self._early.clear()

    def pause_writing(self) -> None:
        self._full = True
        self.update_other()

    def resume_writing(self) -> None:
        self._full = False
        self.update_other()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.update_other()

    def update_other(self) -> None:
        if self.other is not None:
            self.other.update()
        elif self._lost:
            self.proxy.sides.discard(self)

    def update(self) -> None:
        """Read, do not read, or end, as the proxy and the other side have it."""
        assert self.transport is not None
        self._pass_on_early()
        other, is_cut = self.other, self.proxy.is_cut
        if other is not None and other._lost and not is_cut:
            self.transport.close()
            self.proxy.sides -= {self, other}
            return
        wanted = not is_cut and other is not None and not other._full and not other._lost
        if wanted != self._reading and not self._lost:
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()


class _Incoming(_Side):
    """A client's connection, which is passed on as soon as the proxy lets it."""

    def __init__(self, proxy: _Proxy) -> None:
        super().__init__(proxy)
        self._passing_on: asyncio.Task[None] | None = None

    def update(self) -> None:
        if self._passing_on is None and not self.proxy.is_cut and not self._lost:
            self._passing_on = asyncio.create_task(self._pass_on())
        super().update()

    async def _pass_on(self) -> None:
        assert self.transport is not None
        other, way = _Side(self.proxy), self.proxy.way
        try:
            await asyncio.get_running_loop().create_connection(lambda: other, way.to_host, way.to_port)
        except OSError:
            self.transport.abort()
            return
        self.other, other.other = other, self
        self.update()
        other.update()


class _Proxy:
    def __init__(self, way: Way) -> None:
        self.way = way
        self.is_cut = False
        self.sides: set[_Side] = set()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_server(lambda: _Incoming(self), self.way.host, self.way.port)

    def set(self, is_cut: bool) -> None:
        self.is_cut = is_cut
        for side in list(self.sides):
            side.update()


async def _serve() -> None:
    """Ways first, then commands, each one line; each is answered by a line. Ends with its standard input."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    proxies = {way[0]: _Proxy(Way(*way)) for way in json.loads(await lines.readline())}
    for proxy in proxies.values():
        await proxy.listen()
    print("ready", flush=True)
    while line := await lines.readline():
        command, *names = json.loads(line)
        for name in names:
            proxies[name].set(command == "cut")
        print("done", flush=True)


if __name__ == "__main__":
    import uvloop

    with suppress(KeyboardInterrupt):
        uvloop.run(_serve())
