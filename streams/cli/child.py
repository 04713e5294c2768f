"""The worker that `up` starts: a process of its own, its output in a log file."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from streams.broker.process import Child
from streams.config import Config
from streams.logs import message_of

from .http import ANY_ADDRESS, base_url, is_ready
from .options import WORKER
from .root import Failure
from .run import progress

POLL_S = 0.1
PATIENCE_S = 12.0  # a worker has to be gone ten seconds after SIGTERM


class WorkerProcess:
    """One `consent-streams worker` with the same options as this command."""

    def __init__(self, config: Config) -> None:
        """Start it. Raises Failure at once if its HTTP port is taken."""
        _check_port(config)
        self._config = config
        self.log = config.datadir / "worker.log"
        config.datadir.mkdir(parents=True, exist_ok=True)
        options = [f"--{name.replace('_', '-')}={value}" for name in WORKER if (value := getattr(config, name)) != ""]
        # Secrets come to it with the environment.
        self._child = Child([sys.executable, "-m", "streams", "worker", *options], self.log, Path.cwd())

    def wait_ready(self) -> None:
        """Wait until its partitions are restored. Raises Failure if it ends instead."""
        started = time.monotonic()
        with progress(lambda: f"waiting for the worker to be ready: {time.monotonic() - started:.0f} s"):
            while not is_ready(self._config, timeout_s=1.0):
                self.check(wait_s=POLL_S)

    def check(self, wait_s: float) -> None:
        """Look at it for so many seconds. Raises Failure if it ends."""
        if self._child.wait(wait_s):
            raise Failure(f"the worker ended with code {self._child.exit_code}: {self._last_line()} (log: {self.log})")

    def stop(self) -> None:
        """End it in an orderly way."""
        self._child.terminate(PATIENCE_S)

    def _last_line(self) -> str:
        lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return message_of(lines[-1].strip()) if lines else "it said nothing"


def free_port(host: str) -> int:
    """A port that is free now."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _check_port(config: Config) -> None:
    # Otherwise the probe of the one that has the port would be taken for our worker's.
    host = ANY_ADDRESS.get(config.http_host, config.http_host)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        if probe.connect_ex((host, config.http_port)) == 0:
            raise Failure(
                f"something answers at {base_url(config)} already: is `consent-streams up` or a worker running? "
                "End it, or give another --http-port"
            )
