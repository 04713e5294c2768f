"""One worker as one operating system process: started, watched from outside by its id, ended by its id."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.bench.checkout import ROOT
from tests.bench.plan import POLL_S, STOP_DEADLINE_S, BenchError

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LAST_LINES = 8
#: What a worker of the product says when it has its partitions.
READY = re.compile(r"worker ready at (\S+) ")


class Worker:
    """A running worker. Use it as a context manager: leaving ends the process, in order if it can."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], log: Path, folder: Path = ROOT) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.perf_counter()
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, a deadline, SIGKILL. Calling it again does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def check(self) -> None:
        """Raise with the end of its log when the process has died."""
        code = self._process.poll()
        if code is not None:
            raise BenchError(f"{self.name} ended with code {code}; the end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far, in seconds (the kernel counts in hundredths)."""
        self.check()
        # The command name is in brackets and may hold spaces: count fields from behind the last bracket.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def resident_bytes(self) -> int:
        """Resident memory now."""
        self.check()
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE

    def url(self) -> str:
        """Where a ready worker of the product answers HTTP."""
        found = READY.search(self.log.read_text(errors="replace"))
        if found is None:
            raise BenchError(f"{self.name} is not ready; the end of {self.log}:\n{self.tail()}")
        return found[1]

    def wait_for_log(self, words: str, deadline_s: float) -> float:
        """Wait for words in its log; returns the moment they were seen, on `perf_counter`."""
        end = time.perf_counter() + deadline_s
        while words not in self.log.read_text(errors="replace"):
            self.check()
            if time.perf_counter() > end:
                raise BenchError(f"{self.name} did not log {words!r} within {deadline_s:.0f} s")
            time.sleep(POLL_S)
        return time.perf_counter()
