"""Which checkout a worker is started from, and at which commit it is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.plan import BenchError

ROOT = Path(__file__).resolve().parents[2]
GIT_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with the product's source, and the interpreter that has its dependencies."""

    root: Path
    python: str

    @property
    def commit(self) -> str:
        """The short hash of its commit; says so where files were changed since, or where it cannot be told."""
        commit = _git(self.root, "rev-parse", "--short", "HEAD")
        if not commit:
            return "unknown commit"
        return commit + (" with changes" if _git(self.root, "status", "--porcelain") else "")


#: This checkout, run by the interpreter of the bench.
HERE = Checkout(ROOT, sys.executable)


def other_checkout(folder: Path) -> Checkout:
    """Another checkout of this repository, with a .venv of its own. Raises BenchError where one of them is missing."""
    root = folder.resolve()
    python = root / ".venv" / "bin" / "python"
    if not (root / "streams" / "__main__.py").is_file():
        raise BenchError(f"--against {folder}: this is no checkout of consent-streams, there is no streams/__main__.py")
    if not python.exists():
        raise BenchError(f"--against {folder}: there is no .venv/bin/python, run `make setup` there first")
    return Checkout(root, str(python))


def command_line(arguments: Sequence[str]) -> str:
    """How the bench was called, for the tables."""
    return shlex.join(["python", "-m", "tests.bench", *arguments])


def _git(root: Path, *words: str) -> str:
    """What git prints, or nothing where it cannot tell."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=GIT_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
