"""Progress on stderr, for work that takes longer than a second and only then."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType

QUIET_FOR_S = 1.0  # work that is over sooner deserves no line
REPEAT_EVERY_S = 5.0

Say = Callable[[str], None]


def say_on_stderr(line: str) -> None:
    """Print one line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """While the `with` block runs, says `line()` after one second and then every five seconds."""

    def __init__(self, line: Callable[[], str], say: Say = say_on_stderr) -> None:
        self._line = line
        self._say = say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-progress", daemon=True)

    def _run(self) -> None:
        pause = QUIET_FOR_S
        while not self._over.wait(pause):
            self._say(self._line())
            pause = REPEAT_EVERY_S

    def over(self) -> None:
        """Say no more, although the block goes on."""
        self._over.set()

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
