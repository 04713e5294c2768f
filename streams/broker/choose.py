"""Which broker to use: the one that is named, one that runs already, a container, or the embedded one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .address import running_address
from .docker import DockerBroker, docker_answers
from .embedded import EmbeddedBroker
from .ports import default_port
from .progress import Say, say_on_stderr

BOOTSTRAP_VARIABLE = "CONSENT_BOOTSTRAP_SERVERS"
Kind = Literal["given", "running", "docker", "embedded"]


@dataclass(frozen=True)
class ChosenBroker:
    """A broker to work with.

    `bootstrap` is "HOST:PORT", or a list of them with commas between. `kind` is `given` (named by
    `CONSENT_BOOTSTRAP_SERVERS`; not checked whether it answers), `running` (one that another command started on this
    data folder), `docker` or `embedded` (both started here).
    """

    bootstrap: str
    kind: Kind
    _stop: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """End the broker if it was started here; nothing otherwise, or the second time."""
        self._stop()


def find_or_start(data_dir: Path | str, port: int | None = None, *, say: Say = say_on_stderr) -> ChosenBroker:
    """Find a broker, or start one that keeps its data with the data folder; ready for clients on return.

    :param data_dir: the product's data folder.
    :param port: for a broker that has to be started; None is `CONSENT_BROKER_PORT`, else 9092 if free, else any; 0 is
        any, for tests.
    :param say: takes progress lines, of what takes longer than a second.

    Raises BrokerError with one line.
    """
    given = os.environ.get(BOOTSTRAP_VARIABLE, "").strip()
    if given:
        return ChosenBroker(given, "given")
    running = running_address(data_dir)
    if running:
        return ChosenBroker(running, "running")
    port = default_port() if port is None else port
    if docker_answers():
        container = DockerBroker(data_dir, port, say=say).start()
        return ChosenBroker(container.bootstrap, "docker", container.stop)
    embedded = EmbeddedBroker(data_dir, port, say=say).start()
    return ChosenBroker(embedded.bootstrap, "embedded", embedded.stop)
