"""Real Kafka on a JVM of our own: one KRaft node on loopback, its data in the product's data folder."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .address import remove_address, write_address
from .errors import BrokerError
from .folder import BrokerFolder
from .jars import KAFKA_VERSION, kafka_jars
from .java import find_java
from .ports import free_port, is_free
from .probe import answers
from .process import Child
from .progress import Progress, Say, say_on_stderr
from .settings import CLIENTS, LOG_FLAGS, SMALL_JVM, as_properties_file, server_properties

POLL_S = 0.05
FORMAT_TIMEOUT_S = 60.0
PORT_TRIES = 3  # a port found free may be taken before the JVM has bound it
PORT_WAS_TAKEN = "Address already in use"
TELLING = re.compile(r"^(?!\s+at ).*(Exception|Error|ERROR)")


class EmbeddedBroker:
    """A Kafka of our own; `start()` and `stop()`, or a `with` block. Every method blocks; use one thread at a time.

    What it holds lies in `<data_dir>/broker` and outlives it: a later start on the same folder has the same cluster id,
    topics and records, after `kill()` as well. On Linux the JVM never outlives this process, however that ends.

    :param data_dir: the product's data folder; made if it is missing.
    :param port: the port on 127.0.0.1; 0 takes any free one, which this object keeps from its first start on.
    :param properties: server properties that win over ours (`streams.broker.settings`).
    :param format_options: more words for Kafka's own tool that prepares the data folder, such as `--add-scram`.
    :param jvm_flags: heap and compiler flags, `SMALL_JVM` or `FAST_JVM` or any other.
    :param start_timeout_s: seconds until a start that is not ready counts as failed.
    :param stop_timeout_s: seconds until a stop that is not done becomes a kill.
    :param say: takes progress lines, of what takes longer than a second; default stderr.
    :param version: the Kafka to run, 3.9 or newer; for tests. An older one cannot go on with what a newer one has left.
    """

    def __init__(
        self,
        data_dir: Path | str,
        port: int = 0,
        *,
        properties: Mapping[str, str] | None = None,
        format_options: Sequence[str] = (),
        jvm_flags: Sequence[str] = SMALL_JVM,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 20.0,
        say: Say = say_on_stderr,
        version: str = KAFKA_VERSION,
    ) -> None:
        self._folder = BrokerFolder(data_dir)
        self._port = port
        self._port_may_change = port == 0
        self._properties = dict(properties or {})
        self._format_options = list(format_options)
        self._jvm_flags = list(jvm_flags)
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._say = say
        self._version = version
        self._child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """ "127.0.0.1:PORT". Raises BrokerError before the first start if the port was left open."""
        if self._port == 0:
            raise BrokerError("the embedded Kafka has no address before its first start")
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The JVM's process id. Raises BrokerError if it was never started."""
        return self._jvm.pid

    @property
    def running(self) -> bool:
        """Whether the JVM lives; a suspended one does."""
        return self._child is not None and self._child.running

    @property
    def log_file(self) -> Path:
        """What the JVM printed since its last start, warnings and errors; the run before has its own beside it."""
        return self._folder.log

    @property
    def cluster_id(self) -> str:
        """The id of the cluster in this data folder, the same for every start."""
        return self._folder.cluster_id()

    def start(self) -> EmbeddedBroker:
        """Start and wait until Kafka answers its protocol; returns itself. Nothing if it runs already.

        Raises BrokerError with one line (and the log's tail as its `detail`) when another broker runs on the folder,
        the port is taken, jars or Java are missing, or Kafka is not ready in time. Nothing stays behind then.
        """
        if self.running:
            return self
        java, jars = find_java(), kafka_jars(self._say, self._version)
        jvm = [str(java), *self._jvm_flags, *LOG_FLAGS, "-cp", os.pathsep.join(map(str, jars))]
        self._folder.take()
        try:
            with Progress(lambda: f"starting Kafka {self._version}", self._say):
                self._start(jvm)
            write_address(self._folder.path, self.bootstrap, self.pid)
        except BaseException:  # a signal handler may raise at any point
            self.kill()
            raise
        self._port_may_change = False
        return self

    def stop(self) -> None:
        """End Kafka in an orderly way, or kill it after `stop_timeout_s`; nothing if it does not run."""
        if self._child is not None:
            self._child.terminate(self._stop_timeout_s)
        if self._folder.ours:  # after a kill() someone else may have it by now
            remove_address(self._folder.path)
        self._folder.leave()

    def kill(self) -> None:
        """End Kafka with SIGKILL, as a crash would; `start()` may follow, on the same port."""
        if self._child is not None:
            self._child.kill()
        self._folder.leave()

    def suspend(self) -> None:
        """Stop the JVM's clock (SIGSTOP): connections stay open, nothing answers."""
        self._jvm.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended JVM go on (SIGCONT)."""
        self._jvm.send(signal.SIGCONT)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the JVM's end, at most `timeout_s` seconds; its exit code, or None if it still runs."""
        self._jvm.wait(timeout_s)
        return self._jvm.exit_code

    def __enter__(self) -> EmbeddedBroker:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _jvm(self) -> Child:
        if self._child is None:
            raise BrokerError("the embedded Kafka was not started")
        return self._child

    def _start(self, jvm: list[str]) -> None:
        if self._port and not is_free(self._port):
            raise BrokerError(f"port {self._port} of 127.0.0.1 is taken by another program")
        for last in (*[False] * (PORT_TRIES - 1), True):
            if self._port_may_change:
                self._port = free_port()
            controller_port = free_port(other_than=self._port)
            properties = server_properties(self._folder.kafka_data, self._port, controller_port, self._properties)
            self._folder.properties.write_text(as_properties_file(properties), "utf-8")
            if not self._folder.is_formatted():
                self._format(jvm)
            self._folder.turn_log()
            self._child = Child(
                [*jvm, "kafka.Kafka", str(self._folder.properties)], self._folder.log, self._folder.path
            )
            plaintext = f"{CLIENTS}:PLAINTEXT" in properties["listener.security.protocol.map"].split(",")
            if self._becomes_ready(self._child, plaintext):
                return
            if last or not any(PORT_WAS_TAKEN in line for line in self._folder.log_tail()):
                raise self._failure(f"ended with code {self._child.exit_code}")

    def _format(self, jvm: list[str]) -> None:
        """Let Kafka's tool prepare the data folder. An id may begin with "-", hence the equals sign."""
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={self.cluster_id}", "--ignore-formatted"]
        command = [*jvm, *tool, "--config", str(self._folder.properties), *self._format_options]
        child = Child(command, self._folder.log, self._folder.path)
        self._child = child
        if not child.wait(FORMAT_TIMEOUT_S):
            raise self._failure(f"could not prepare its data folder within {FORMAT_TIMEOUT_S:.0f} s")
        if child.exit_code:
            raise self._failure("could not prepare its data folder")

    def _becomes_ready(self, child: Child, plaintext: bool) -> bool:
        """Wait until Kafka answers; False if it ended instead."""
        deadline = time.monotonic() + self._start_timeout_s
        while child.running:
            if answers(self.bootstrap, plaintext=plaintext):
                return True
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {self._start_timeout_s:.0f} s")
            child.wait(POLL_S)
        return False

    def _failure(self, what: str) -> BrokerError:
        """One line with the line of the log that tells most: the last that names an exception, else the last."""
        tail = self._folder.log_tail()
        telling = next((line for line in reversed(tail) if TELLING.search(line)), tail[-1] if tail else "")
        reason = f": {telling.strip()}" if telling else ""
        return BrokerError(f"Kafka {self._version} {what}{reason} (log: {self._folder.log})", "\n".join(tail))
