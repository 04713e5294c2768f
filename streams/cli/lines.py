"""Lines of a file or of stdin as they arrive, without blocking the event loop."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

CHUNK = 65_536
BOM = b"\xef\xbb\xbf"  # some editors put it before the first line


async def numbered_lines(stream: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    """Number (from 1) and text of every line that is not blank, each as soon as it is there."""
    number, rest = 0, b""
    while True:
        data = await _read(stream)
        *whole, rest = (rest + data).split(b"\n")
        if not data and rest:
            whole, rest = [rest], b""
        for line in whole:
            number += 1
            text = (line.removeprefix(BOM) if number == 1 else line).strip()
            if text:
                yield number, text
        if not data:
            return


async def _read(stream: BinaryIO) -> bytes:
    try:
        fd = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return stream.read(CHUNK)
    await _readable(fd)
    return os.read(fd, CHUNK)


async def _readable(fd: int) -> None:
    # Not a thread: one that waits for a terminal would keep Ctrl-C from ending the command.
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except (PermissionError, ValueError):  # a regular file (which never blocks) cannot be waited for
        await asyncio.sleep(0)
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
