"""What is done to workers and their broker, by name; a fault begins in a round that has workers and a load."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.driver import Round

Fault = Callable[[Round], None]

#: Faults by name. They leave workers and broker such that the round can go on.
FAULTS: dict[str, Fault] = {}


def fault(name: str) -> Callable[[Fault], Fault]:
    """Enter a fault under its name."""

    def enter(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return enter


@fault("kill -9 of a worker")
def kill(round_: Round) -> None:
    worker = round_.rng.choice([one for one in round_.workers if one.running])
    round_.later(0.1, 0.5)
    worker.kill()
    round_.later(0.5, 0.9)
    worker.start().ready()
