"""Faults by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.chaos.driver import Round

Do = Callable[[Round], None]


@dataclass(frozen=True)
class Fault:
    """What is done, and the workers it wants; `long`: it takes so long that only `make chaos` does it.

    `alone`: no other fault may be in the same round.
    """

    name: str
    do: Do
    workers: int = 2
    env: Mapping[str, str] = field(default_factory=dict)
    long: bool = False
    alone: bool = False
    late: bool = False


FAULTS: dict[str, Fault] = {}


def fault(name: str, **about: object) -> Callable[[Do], Do]:
    """Enter a function under a name."""

    def enter(do: Do) -> Do:
        FAULTS[name] = Fault(name, do, **about)  # type: ignore[arg-type]
        return do

    return enter
