"""One prefix of topic names per test, so that all of them share the session's broker."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from streams.broker import ChosenBroker
from streams.config import from_environment
from streams.kafka import admin
from tests.cli.world import PARTITIONS, World


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No option of the developer's own; a data folder without a broker; an HTTP port where nothing listens."""
    for name in [name for name in os.environ if name.startswith("CONSENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CONSENT_DATADIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONSENT_HTTP_PORT", "9")


@pytest.fixture
def checkout_env() -> dict[str, str]:
    """The environment of a command run as a process, from whatever folder the tests are run in."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


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
        def do_GET(self) -> None:
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
