"""The command `consent-streams broker`: the embedded broker in the foreground."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .embedded import EmbeddedBroker
from .errors import BrokerError
from .jars import KAFKA_VERSION
from .ports import default_port
from .progress import Say, say_on_stderr

ENDING = (signal.SIGINT, signal.SIGTERM)


class _StopRequested(BaseException):
    """Raised in the main thread by the first SIGINT or SIGTERM, wherever it is."""


def run_foreground(*, data_dir: Path | str, port: int | None = None, say: Say = say_on_stderr) -> int:
    """Run the embedded broker until SIGINT or SIGTERM; the exit code of the command.

    The first line on stdout ends in the address, `127.0.0.1:PORT`, once Kafka answers there; everything else goes to
    `say`. Returns 0 after a signal, at any point, with the JVM gone; 1, after one line that says why, when Kafka cannot
    be started or ends by itself. Only for the main thread, whose handlers are put back at the end.

    :param port: None is `CONSENT_BROKER_PORT`, else 9092 if free, else any; 0 is any.
    """
    try:
        with _signals_raise():
            return _run(data_dir, port, say)
    except _StopRequested:
        return 0


def _run(data_dir: Path | str, port: int | None, say: Say) -> int:
    broker: EmbeddedBroker | None = None
    try:
        broker = EmbeddedBroker(data_dir, default_port() if port is None else port, say=say)
        broker.start()
        print(f"Kafka {KAFKA_VERSION} is ready at {broker.bootstrap}", flush=True)
        code = broker.wait()
    except BrokerError as error:
        say(f"error: {error}")
        return 1
    finally:
        if broker is not None:
            broker.stop()
    say(f"error: Kafka ended by itself with code {code} (log: {broker.log_file})")
    return 1


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within the block the first ending signal raises `_StopRequested`; the others find the stop under way."""
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not asked.is_set():
            asked.set()
            raise _StopRequested

    before = {number: signal.signal(number, stop) for number in ENDING}
    try:
        yield
    finally:
        asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)
