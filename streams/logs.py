"""How a worker logs: lines for people, or one JSON object a line; of customers nothing but the record's place.

A record that a line is about is named by its topic, partition and offset, given as `extra=about(...)`. Whoever may read
the topic finds the customer there; nobody else needs to.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Final

#: What libraries say at these levels is for their makers, or names URLs and headers, which hold tokens and identifiers.
_QUIET: Final = {
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "python_multipart": logging.ERROR,
}
#: Faust and aiokafka tell every step of a rebalance at info, and build a debug record for every send. A service of
#: Faust's logs under the name of the module that subclasses it.
_VERBOSE: Final = (
    "faust", "mode", "aiokafka", "uvicorn", "streams.app", "streams.engine.transport", "streams.engine.table",
)  # fmt: skip

_PLACE: Final = ("topic", "partition", "offset")
#: What has no business in a log, whatever error it came with: the text of an exception may quote what it was given.
_PRIVATE: Final = (
    (re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9._~+/=-]+"), r"\1 [credentials]"),
    (re.compile(r"/u/[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*"), "/u/[token]"),
    (re.compile(r"[^\s@'\"<>(),:;=/]+@[^\s@'\"<>(),:;=/]+\.[A-Za-z]{2,}"), "[e-mail]"),
    (re.compile(r"\+\d[\d ()/-]{5,}\d"), "[number]"),
)


def about(topic: str, partition: int, offset: int | None = None) -> dict[str, object]:
    """Where the record or the partition is that a line is about: `log.info(..., extra=about(...))`."""
    return {name: value for name, value in zip(_PLACE, (topic, partition, offset), strict=True) if value is not None}


def set_up(level: str, kind: str) -> None:
    """Log to stderr from `level` (debug, info, warning, error) on, as `kind` says: `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if kind == "json" else TextLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING if level != "debug" else logging.INFO)


def last_line(text: str, kind: str) -> None:
    """The error that ends a worker, whatever the level: `Error: ...`, or the same as a JSON object."""
    if kind == "json":
        record = logging.LogRecord("consent_streams", logging.ERROR, "", 0, text, None, None)
        text = JsonLine().format(record)
    else:
        text = f"Error: {without_private(text)}"
    print(text, file=sys.stderr, flush=True)


def message_of(line: str) -> str:
    """What a line of a worker's log says: its message if it is a JSON object, else the line."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, TypeError, KeyError):
        return line


def without_private(text: str) -> str:
    """The text without what looks like credentials, a link's token, an e-mail address or a phone number (`+..`)."""
    for pattern, instead in _PRIVATE:
        text = pattern.sub(instead, text)
    return text


class TextLine(logging.Formatter):
    """A line for people; the place at its end. An exception's traceback follows it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line, without the traceback."""
        place = "/".join(str(value) for name in _PLACE if (value := getattr(record, name, None)) is not None)
        return super().formatMessage(record) + (f" [{place}]" if place else "")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        return without_private(super().format(record))


class JsonLine(logging.Formatter):
    """One JSON object: time (UTC), level, logger, message; topic, partition, offset and exception where there are."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, on one line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document: dict[str, object] = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_private(record.getMessage()),
        }
        document |= {name: value for name in _PLACE if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            document["exception"] = without_private(self.formatException(record.exc_info))
        return json.dumps(document)
