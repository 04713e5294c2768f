"""The embedded broker's folder: one broker at a time, one cluster id for good, and the log of the JVM."""

from __future__ import annotations

import base64
import fcntl
import time
import uuid
from pathlib import Path
from typing import IO

from .address import broker_folder, running_broker
from .errors import BrokerError

ORPHAN_PATIENCE_S = 5.0  # how long the kernel may take to end the JVM of a launcher that was killed just now
POLL_S = 0.05
TAIL_LINES = 20
TAIL_BYTES = 64 * 1024


class BrokerFolder:
    """`<data_dir>/broker`: `data/` is Kafka's, the files beside it are ours."""

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.path = broker_folder(data_dir)
        self.kafka_data = self.path / "data"
        self.properties = self.path / "server.properties"
        self.log = self.path / "broker.log"
        self._lock: IO[str] | None = None

    @property
    def ours(self) -> bool:
        """Whether this object has taken the folder."""
        return self._lock is not None

    def take(self) -> None:
        """Make the folder ours alone until `leave()`, if it is not yet; the kernel frees it if this process dies.

        Raises BrokerError when another process has it, a broker still runs on it, or it cannot be written.
        """
        if self.ours:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise BrokerError(f"the data folder {self.data_dir} cannot be used: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._wait_for_orphan()
        except BlockingIOError as error:
            lock.close()
            raise self._taken() from error
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    def leave(self) -> None:
        """Let others have the folder; nothing if it is not ours."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def cluster_id(self) -> str:
        """The id of the cluster whose data lies here, made up the first time and kept."""
        file = self.path / "cluster-id"
        if not file.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=") + "\n", "ascii")
            part.replace(file)
        return file.read_text("ascii").strip()

    def is_formatted(self) -> bool:
        """Whether Kafka's own tool has prepared the data folder; it does so only once."""
        return (self.kafka_data / "meta.properties").exists()

    def turn_log(self) -> None:
        """Begin a new log and keep the one of the run before, as `broker.log.1`."""
        if self.log.exists():
            self.log.replace(self.log.with_name("broker.log.1"))

    def log_tail(self) -> list[str]:
        """The last lines of the JVM's log, blank ones left out."""
        try:
            text = self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-TAIL_LINES:]

    def _wait_for_orphan(self) -> None:
        deadline = time.monotonic() + ORPHAN_PATIENCE_S
        while running_broker(self.data_dir):
            if time.monotonic() > deadline:
                raise self._taken()
            time.sleep(POLL_S)

    def _taken(self) -> BrokerError:
        found = running_broker(self.data_dir)
        where = f" at {found[0]} (process {found[1]})" if found else ", or is just starting or stopping there"
        return BrokerError(f"a broker already runs on the data folder {self.data_dir}{where}")
