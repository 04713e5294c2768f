"""A progress bar on stderr where that is a terminal, plain lines where it is not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from .run import progress

EVERY_S = 0.2


@contextmanager
def progress_bar(line: Callable[[], str], done: Callable[[], int | None], total: int | None) -> Iterator[None]:
    """While the block runs, show `line()` and how much of `total` is `done()`; None is unknown."""
    if not sys.stderr.isatty():
        with progress(line):
            yield
        return
    text = TextColumn("{task.description}")
    columns = (SpinnerColumn(), text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    ended = threading.Event()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(line(), total=total)

        def refresh() -> None:
            while not ended.wait(EVERY_S):
                shown.update(task, description=line(), completed=done() or 0)

        thread = threading.Thread(target=refresh, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
