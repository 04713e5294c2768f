"""A child process that never outlives the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

# Runs in the child before the JVM replaces it. With PR_SET_PDEATHSIG (1) set, Linux sends SIGKILL (9) when the *thread*
# that forked it ends; this survives exec. A parent that died before the call is noticed by its changed pid.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """A process in its own session, its output in a file, killed by the kernel when this process ends (Linux).

    The thread that forks waits for the child's end and for nothing else: it lives exactly as long as the child does,
    so that a caller's thread may come and go. A session of its own keeps a terminal's Ctrl-C from the child: whoever
    started it ends it, in its own order.
    """

    def __init__(self, command: Sequence[str], log: Path, cwd: Path) -> None:
        """Start `command`, whose first word is an absolute path; all its output goes to `log`, which is emptied first.

        Raises OSError when it cannot be started.
        """
        self._started = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        keeper = threading.Thread(target=self._keep, args=(command, log, cwd), name="broker-child", daemon=True)
        keeper.start()
        try:
            self._started.wait()
        except BaseException:  # a signal handler raised: the child may be there a moment later
            self._started.wait()
            self.kill()
            raise
        if self._error is not None:
            raise self._error

    def _keep(self, command: Sequence[str], log: Path, cwd: Path) -> None:
        if sys.platform == "linux":
            here = str(os.getpid())
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, here, *command]
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd, start_new_session=True
                )
        except OSError as error:
            self._error = error
            self._started.set()
            return
        self._started.set()
        self._process.wait()
        self._ended.set()

    @property
    def pid(self) -> int:
        """The process id; it may belong to someone else once `running` is False."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet; a suspended one is running."""
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal's number; None while it runs."""
        return self._popen.returncode if self._ended.is_set() else None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end, at most `timeout_s` seconds; whether it has ended."""
        return self._ended.wait(timeout_s)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone; nothing if it has ended."""
        self.send(signal.SIGKILL)
        self._ended.wait()

    def terminate(self, patience_s: float) -> None:
        """End it with SIGTERM, or with SIGKILL after `patience_s` seconds; a suspended process is woken for it."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        if not self._ended.wait(patience_s):
            self.kill()

    @property
    def _popen(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the child was never started")
        return self._process
