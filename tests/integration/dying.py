"""A command that is killed on its way: `python -m tests.integration.dying MODULE:NAME:COUNT COMMAND ...`.

SIGKILL comes at the COUNTth call of the function of that name in the module (in `streams`), before it runs.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import reduce
from itertools import count
from typing import Any

from streams.__main__ import main


def die_at(place: str) -> None:
    """Put a function in the place of the one that is named."""
    module, path, times = place.split(":")
    *names, last = path.split(".")
    owner: Any = reduce(getattr, names, importlib.import_module(f"streams.{module}"))
    real, calls = getattr(owner, last), count(1)

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls) == int(times):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(owner, last, dying)


if __name__ == "__main__":
    die_at(sys.argv.pop(1))
    main()
