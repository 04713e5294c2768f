"""Kafka in a container, through testcontainers, where a Docker engine answers.

testcontainers' own KafkaContainer is made for another image, keeps no data, and finds its port only after the start;
the plain container with the project's own image needs less.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from .address import remove_address, write_address
from .errors import BrokerError
from .folder import BrokerFolder
from .jars import KAFKA_VERSION
from .ports import free_port
from .probe import answers
from .progress import Progress, Say, say_on_stderr
from .settings import CLIENTS, CONTROLLER, server_properties

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
DATA_IN_CONTAINER = "/var/lib/kafka/data"
CONTROLLER_PORT = 9093
ENGINE_TIMEOUT_S = 3
POLL_S = 0.1


def docker_answers() -> bool:
    """Whether testcontainers is installed and a Docker engine answers it within three seconds; never raises."""
    try:
        from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415  it is an extra

        return bool(DockerClient(timeout=ENGINE_TIMEOUT_S).client.ping())
    except Exception:  # every way of not answering means the same: no Docker here
        return False


class DockerBroker:
    """One Kafka node in a container; its data is a named volume that belongs to the data folder and outlives it."""

    def __init__(
        self, data_dir: Path | str, port: int = 0, *, start_timeout_s: float = 120.0, say: Say = say_on_stderr
    ) -> None:
        self._folder = BrokerFolder(data_dir)
        self._port = port or free_port()
        self._start_timeout_s = start_timeout_s
        self._say = say
        self._host = "127.0.0.1"
        self._container: Any = None

    @property
    def bootstrap(self) -> str:
        """ "HOST:PORT" as clients on this machine reach it."""
        return f"{self._host}:{self._port}"

    def start(self) -> DockerBroker:
        """Fetch the image if needed, start, and wait until Kafka answers; returns itself.

        Raises BrokerError with one line when the engine refuses or Kafka is not ready in time.
        """
        self._folder.take()
        try:
            with Progress(lambda: f"starting {IMAGE} in Docker (its first start fetches the image)", self._say):
                self._run()
        except BrokerError:
            self.stop()
            raise
        except Exception as error:  # docker, requests and testcontainers each have errors of their own
            self.stop()
            raise BrokerError(f"Docker cannot start {IMAGE}: {' '.join(str(error).split())}") from error
        except BaseException:
            self.stop()
            raise
        # A second command on the same data folder finds it as it finds an embedded one: by us, who own the container.
        write_address(self._folder.path, self.bootstrap, os.getpid())
        return self

    def stop(self) -> None:
        """Remove the container; the volume with the data stays. Nothing if it does not run."""
        if self._container is not None:
            self._container.stop()
            self._container = None
            remove_address(self._folder.path)
        self._folder.leave()

    def _run(self) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  it is an extra

        container = DockerContainer(IMAGE)
        local = container.get_docker_client().host() in ("localhost", "127.0.0.1")
        if not local:
            self._host = container.get_docker_client().host()
        # The port is the same inside and outside, so that the address Kafka advertises is right in advance.
        container.ports[self._port] = ("127.0.0.1", self._port) if local else self._port
        container.with_volume_mapping(self._volume(), DATA_IN_CONTAINER, "rw")
        container.with_envs(CLUSTER_ID=self._folder.cluster_id(), **self._environment())
        self._container = container
        container.start()
        deadline = time.monotonic() + self._start_timeout_s
        while not answers(self.bootstrap):
            if time.monotonic() > deadline:
                raise BrokerError(f"{IMAGE} in Docker was not ready within {self._start_timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _volume(self) -> str:
        return "consent-streams-" + hashlib.sha256(str(self._folder.data_dir).encode()).hexdigest()[:16]

    def _environment(self) -> dict[str, str]:
        """Our server properties in the image's spelling: KAFKA_, upper case, underscores for dots."""
        listeners = f"{CLIENTS}://0.0.0.0:{self._port},{CONTROLLER}://0.0.0.0:{CONTROLLER_PORT}"
        extra = {"listeners": listeners, "advertised.listeners": f"{CLIENTS}://{self.bootstrap}"}
        properties = server_properties(Path(DATA_IN_CONTAINER), self._port, CONTROLLER_PORT, extra)
        return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}
