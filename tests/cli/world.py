"""What the commands' tests share: running a command, and a broker with topics of a test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from click.testing import CliRunner, Result

from streams.cli import cli
from streams.config import Config
from streams.kafka.client import Producer, Reader, Record

PARTITIONS = 3
#: What was acknowledged must be readable by then.
SEEN_WITHIN_S = 20.0


def invoke(*arguments: str, text: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(cli, list(arguments), input=text, env=env)


@dataclass
class World:
    """A broker with topics of this test's own."""

    config: Config
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, text: str | bytes | None = None) -> Result:
        """One command on this broker and prefix."""
        return invoke(*arguments, text=text, env=self.env)

    def read(self, topic: str) -> list[Record]:
        """All committed records of a topic, named without prefix."""

        async def read() -> list[Record]:
            async with Reader(self.config, self.config.topic(topic)) as reader:
                return [record async for bundle in reader.bundles(follow=False) for record in bundle]

        return asyncio.run(read())

    def read_all(self, topic: str, count: int) -> list[Record]:
        """As many records as are known to be there: the end of a transaction is seen a moment after its commit."""
        deadline = time.monotonic() + SEEN_WITHIN_S
        while len(found := self.read(topic)) < count:
            assert time.monotonic() < deadline, f"{topic}: {len(found)} of {count} records"
        return found

    def write(self, topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Any:
        """One record into a topic, named without prefix; where it lies."""

        async def write() -> Any:
            async with Producer(self.config) as producer:
                return await (await producer.send(self.config.topic(topic), key, value, headers=headers or []))

        return asyncio.run(write())
