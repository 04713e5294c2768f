"""Rows of a CSV or NDJSON file, one by one, with the line on which each begins."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .root import Failure

CHUNK = 1 << 20
DELIMITERS = ",;\t|"
NDJSON = (".ndjson", ".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line, its fields by column, and what is wrong with it as a row, if anything."""

    line: int
    fields: dict[str, Any]
    fault: str | None = None


class Table:
    """A file of rows. `columns` are those of a CSV's header; None for NDJSON, where each row has its own.

    Raises Failure for a file that cannot be read as what it is: empty, not UTF-8, a header without rows or with a
    column twice.
    """

    def __init__(self, path: Path, kind: str | None, delimiter: str | None) -> None:
        self.path = path
        self.kind = kind or ("ndjson" if path.suffix.lower() in NDJSON else "csv")
        self.size = path.stat().st_size
        #: Bytes read of the file so far, by the iteration that is under way.
        self.read = 0
        self.digest = _digest(path)
        self.columns: list[str] | None = None
        self.delimiter = delimiter
        if self.kind == "csv":
            self._read_header()
        if next(iter(self), None) is None:
            raise Failure(f"{path}: {'a header and no rows' if self.kind == 'csv' else 'the file has no rows'}")

    def _read_header(self) -> None:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if not first.strip():
                raise Failure(f"{self.path}: the first line must be a header with the names of the columns")
            self.delimiter = self.delimiter or _sniffed(first)
            file.seek(0)
            self.columns = [name.strip() for name in next(csv.reader(file, delimiter=self.delimiter))]
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise Failure(f"{self.path}: the header has {', '.join(map(repr, twice))} more than once")

    def __iter__(self) -> Iterator[Row]:
        with self.path.open("rb") as raw:
            self.read = 0
            rows = self._objects(raw) if self.columns is None else self._records(raw, self.columns)
            for row in rows:
                self.read = raw.tell()
                yield row
            self.read = self.size

    def _records(self, raw: io.BufferedReader, columns: list[str]) -> Iterator[Row]:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=self.delimiter or ",")
        line = 1
        while True:
            begin = line
            try:
                values = next(reader)
            except StopIteration:
                text.detach()
                return
            except csv.Error as error:
                line = reader.line_num + 1
                yield Row(begin, {}, f"not CSV: {error}")
                continue
            line = reader.line_num + 1
            if begin == 1 or not values:  # the header; a blank line
                continue
            fields: dict[str, Any] = dict(zip(columns, values, strict=False))
            fault = None
            if len(values) != len(columns):
                fault = f"{len(values)} fields, but the header has {len(columns)} columns"
            yield Row(begin, fields, fault)

    @staticmethod
    def _objects(raw: io.BufferedReader) -> Iterator[Row]:
        for number, line in enumerate(raw, 1):
            text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
            if not text:
                continue
            try:
                found = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield Row(number, {"": text.decode()}, f"not JSON: {error}")
                continue
            if isinstance(found, dict):
                yield Row(number, found)
            else:
                yield Row(number, {"": text.decode()}, "not a JSON object")


def _digest(path: Path) -> str:
    """SHA-256 of the file, which must be UTF-8 and not empty. Raises Failure."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                raise Failure(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from error
            line += chunk.count(b"\n")
        if not file.tell():
            raise Failure(f"{path}: the file is empty")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: the last line is not UTF-8; save the file as UTF-8") from error
    return digest.hexdigest()


def _sniffed(header: str) -> str:
    """The delimiter of a header line; a comma where there is nothing to tell it by."""
    try:
        return csv.Sniffer().sniff(header, DELIMITERS).delimiter
    except csv.Error:
        return ","
