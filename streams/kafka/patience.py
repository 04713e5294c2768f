"""For how long a command goes on asking Kafka while a broker is away, a leader is elected or a coordinator moves."""

from __future__ import annotations

from contextvars import ContextVar

#: A broker that hangs is taken out of the cluster after its session (9 s by default), a leader is elected after that.
PATIENCE_S = 30.0

_patience_s = ContextVar("patience_s", default=PATIENCE_S)


def wait_at_most(seconds: float) -> None:
    """Set it for this thread's commands, or for the task that says so. It counts for each thing asked by itself."""
    _patience_s.set(seconds)


def patience_s() -> float:
    """In seconds."""
    return _patience_s.get()
