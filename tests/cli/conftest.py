"""One prefix of topic names per test, so that all of them share the session's broker."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streams import admin
from streams.broker import ChosenBroker
from streams.cli import cli
from streams.client import Producer, Reader, Record
from streams.config import Config, from_environment

PARTITIONS = 3


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No option of the developer's own; a data folder without a broker; an HTTP port where nothing listens."""
    for name in [name for name in os.environ if name.startswith("CONSENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CONSENT_DATADIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONSENT_HTTP_PORT", "9")


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

    def write(self, topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Any:
        """One record into a topic, named without prefix; where it lies."""

        async def write() -> Any:
            async with Producer(self.config) as producer:
                return await (await producer.send(self.config.topic(topic), key, value, headers=headers or []))

        return asyncio.run(write())


@pytest.fixture
def bare_world(kafka: ChosenBroker) -> World:
    """The broker and a prefix without topics."""
    env = {
        "CONSENT_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "CONSENT_TOPIC_PREFIX": f"cli-{uuid.uuid4().hex[:8]}-",
        "CONSENT_PARTITIONS": str(PARTITIONS),
    }
    return World(from_environment({**os.environ, **env}), env)


@pytest.fixture
def world(bare_world: World) -> World:
    """The broker with all topics."""
    asyncio.run(admin.create_topics(bare_world.config))
    return bare_world


@pytest.fixture
def worker_http(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A stand-in for a worker's HTTP: what it answers, by path; `asked` lists the requests' headers."""
    answers: dict[str, Any] = {"asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            answers["asked"].append((self.path, dict(self.headers)))
            answer = answers.get(self.path, (404, {"detail": "not found"}))
            status, body = (answer() if isinstance(answer, Callable) else answer)  # type: ignore[arg-type]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("CONSENT_HTTP_PORT", str(server.server_address[1]))
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()
