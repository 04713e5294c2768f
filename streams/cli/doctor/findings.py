"""What the doctor found: one line for each check, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. A `problem` must be put right; `skipped` says why a check could not be made."""

    check: str
    status: Status
    text: str
    remedy: str = ""

    def line(self) -> str:
        """The finding, for people."""
        return f"{self.status:<8} {self.check}: {self.text}" + (f" -> {self.remedy}" if self.remedy else "")

    def document(self) -> dict[str, str]:
        """The finding, for machines."""
        return asdict(self)


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, "warning", text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, "problem", text, remedy)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)


def some(names: list[str], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
