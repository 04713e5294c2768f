"""The report of rows that were not imported: where, why, and the row as it was."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import orjson

from .rows import NDJSON, Row
from .run import note

#: Without a report so many are shown.
SHOWN = 10


class Rejects:
    """A context manager that writes rejected rows to a file (CSV, or NDJSON by its name) or shows the first of them."""

    def __init__(self, path: Path | None, columns: list[str] | None) -> None:
        self.count = 0
        self._path = path
        self._columns = columns
        self._file: TextIO | None = None
        self._csv: Any = None

    def __enter__(self) -> Rejects:
        if self._path is not None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
            if self._path.suffix.lower() not in NDJSON:
                self._csv = csv.writer(self._file)
                self._csv.writerow(["row", "fault", *(["data"] if self._columns is None else self._columns)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row, fault: str) -> None:
        """One row that was left out."""
        self.count += 1
        if self._csv is not None:
            columns = self._columns
            data = [_text(row.fields)] if columns is None else [row.fields.get(name, "") for name in columns]
            self._csv.writerow([row.line, fault, *data])
        elif self._file is not None:
            self._file.write(_text({"row": row.line, "fault": fault, "data": row.fields}) + "\n")
        elif self.count <= SHOWN:
            note(f"row {row.line}: {fault}")
        elif self.count == SHOWN + 1:
            note("further rejected rows are only counted: --rejects FILE has all of them")


def _text(document: Any) -> str:
    return orjson.dumps(document).decode()
