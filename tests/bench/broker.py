"""The run's broker: the product's embedded Kafka in a folder of this run, or one that is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.plan import BenchError


@contextmanager
def broker(folder: Path, given: str | None) -> Iterator[tuple[str, str]]:
    """Yield address and version of a running broker; ours ends with the block, a given one is left alone.

    Raises BenchError when ours cannot be started.
    """
    if given:
        yield given, "given by --bootstrap"
        return
    from streams.broker import FAST_JVM, KAFKA_VERSION, BrokerError, EmbeddedBroker

    # Not the product's small JVM: a bench must not measure the broker's garbage collector or a cheap compiler.
    embedded = EmbeddedBroker(folder, jvm_flags=FAST_JVM)
    try:
        embedded.start()
    except BrokerError as error:
        raise BenchError(str(error)) from error
    try:
        yield embedded.bootstrap, f"{KAFKA_VERSION} (embedded)"
    finally:
        embedded.stop()
