"""How commands run: which broker they talk to, and progress on stderr while something takes longer than a second."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from streams.broker import running_address
from streams.broker.progress import Progress
from streams.config import Config

from .root import Failure

T = TypeVar("T")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:,\[\]]+):(\d{1,5})")


def reachable(config: Config) -> Config:
    """The options with a broker's address: the one given, else that of the broker running on the data folder."""
    if config.bootstrap_servers:
        for address in config.bootstrap_servers.split(","):
            found = _ADDRESS.fullmatch(address.strip())
            if found is None or not 0 < int(found[2]) < 65_536:
                raise click.UsageError(f"CONSENT_BOOTSTRAP_SERVERS (--bootstrap-servers): {address!r} is not HOST:PORT")
        return config
    running = running_address(config.datadir)
    if running is None:
        raise Failure(
            "no broker: start one with `consent-streams up` (or `consent-streams broker`), "
            "or set CONSENT_BOOTSTRAP_SERVERS to a Kafka that runs"
        )
    return dataclasses.replace(config, bootstrap_servers=running)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C cancels it and raises KeyboardInterrupt."""
    return asyncio.run(coroutine)


def note(text: str) -> None:
    """A line for people, on stderr, so that stdout holds only results."""
    click.echo(text, err=True)


def progress(line: Callable[[], str]) -> Progress:
    """While the block runs, say `line()` on stderr after a second and then every five, if it changed."""
    last: list[str] = []

    def say(text: str) -> None:
        if last[-1:] != [text]:
            last.append(text)
            print(text, file=sys.stderr, flush=True)

    return Progress(line, say)
