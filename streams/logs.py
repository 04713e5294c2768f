"""How a worker logs: lines for people, or one JSON object a line; of customers nothing but the record's place.

A record that a line is about is named by its topic, partition and offset, given as `extra=about(...)`. Whoever may read
the topic finds the customer there; nobody else needs to.

What goes on for long is said once when it begins, every 30 seconds, and once when it is over: `Ongoing`, and
`OngoingBy` where it is one of many brokers or partitions. What libraries say goes through `Seldom`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Final

#: What libraries say at these levels is for their makers, or names URLs and headers, which hold tokens and identifiers.
_QUIET: Final = {
    # What ends of a rebalance or a coordinator mean for the worker is told by ours.
    "aiokafka.consumer.group_coordinator": logging.ERROR,
    "mode.timers": logging.ERROR,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "python_multipart": logging.ERROR,
}
#: Faust and aiokafka tell every step of a rebalance at info, and build a debug record for every send. A service of
#: Faust's logs under the name of the module that subclasses it.
_VERBOSE: Final = (
    "faust", "mode", "aiokafka", "uvicorn", "streams.app", "streams.engine.transport", "streams.engine.table",
)  # fmt: skip

#: The loggers whose warnings go through `Seldom`, each with those below it. What uvicorn logs is one request's error.
_FLOODING: Final = tuple(f"{name}." for name in _VERBOSE if name != "uvicorn")
#: Seconds between two lines that say the same.
EVERY_S: Final = 30.0
#: After so many times `EVERY_S` without a word from its caller a condition is forgotten.
_FORGOTTEN_AFTER: Final = 10
#: Messages that `Seldom` remembers, far more than libraries have.
_REMEMBERED: Final = 1000
_DIGITS: Final = re.compile(r"\d+")

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
    handler.addFilter(Seldom())
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


class Ongoing:
    """One condition that may go on, such as a broker that does not answer.

    Its caller says `happens` each time that it sees the condition, and `over` whenever it sees that there is none.
    Logged are the first of these times, one every `every_s` seconds with how often it happened, and the end:

        broker 2 does not answer: TimeoutError()
        broker 2 does not answer: TimeoutError() (for 30 s, 14 times since the last line)
        broker 2 does not answer: over after 41 s

    A condition that comes and goes is begun at most once every `every_s` seconds as well; what begins in between is
    logged, and its end, only if it still goes on by then. `over` costs one comparison while there is nothing to end.

    :param log: where the lines go, all at `level`.
    :param what: the condition, as the line's beginning.
    :param after_s: seconds that it must have gone on for before it is logged; what passes sooner is not.
    :param every_s: seconds between two lines.
    :param clock: monotonic seconds.
    """

    __slots__ = (
        "_after_s", "_clock", "_every_s", "_level", "_log", "_said_at", "_said_now", "_seen_at", "_since", "_times",
        "_what",
    )  # fmt: skip

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        *,
        after_s: float = 0.0,
        every_s: float = EVERY_S,
        level: int = logging.WARNING,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._log = log
        self._after_s = after_s
        self._what = what
        self._every_s = every_s
        self._level = level
        self._clock = clock
        #: When the condition began; None while there is none.
        self._since: float | None = None
        #: When it was seen last, and when a line last said that it is there.
        self._seen_at = self._said_at = -math.inf
        #: Whether a line said so since it began.
        self._said_now = False
        #: How often it was seen since that line.
        self._times = 0

    @property
    def goes_on(self) -> bool:
        """Whether it was seen and is not over."""
        return self._since is not None

    def happens(self, detail: object = "", **more: Any) -> None:
        """The condition is there. `detail` is made text only if logged; `more` goes to the logger (`extra`)."""
        now = self._seen_at = self._clock()
        if self._since is None:
            self._since = now
        self._times += 1
        if now - self._said_at < self._every_s or now - self._since < self._after_s:
            return
        text = repr(detail) if isinstance(detail, BaseException) else str(detail)
        line = f"{self._what}: {text}" if text else self._what
        if self._times > 1:
            is_first = self._said_at == -math.inf
            started = f"for {now - self._since:.0f} s, " if self._said_now or is_first else ""
            line = f"{line} ({started}{self._times} times{'' if is_first else ' since the last line'})"
        self._said_at, self._said_now, self._times = now, True, 0
        self._log.log(self._level, "%s", line, **more)

    def over(self, **more: Any) -> None:
        """The condition is not there: logged if a line said that it was."""
        if self._since is None:
            return
        lasted, said = self._clock() - self._since, self._said_now
        self._since, self._said_now = None, False
        if said:
            self._log.log(self._level, "%s: over after %.0f s", self._what, lasted, **more)

    def is_forgettable(self, now: float) -> bool:
        """Whether a new one may take its place: it is over and was not logged lately, or was not seen for long."""
        quiet_since = self._said_at if self._since is None else self._seen_at + self._every_s * (_FORGOTTEN_AFTER - 1)
        return now - quiet_since >= self._every_s


class OngoingBy:
    """The same condition of many: one `Ongoing` for each key, such as a broker's id or a topic and partition.

    Keys whose condition is over are forgotten, and so are those of which nothing was heard for ten times `every_s`:
    what is remembered is what goes on now, and what went on a moment ago.

    :param what: the condition with the key in it, in `%` form: `"broker %s does not answer"`, `"%s-%s has no leader"`.
    """

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        *,
        after_s: float = 0.0,
        every_s: float = EVERY_S,
        level: int = logging.WARNING,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._make: Callable[[str], Ongoing] = partial(
            Ongoing, log, after_s=after_s, every_s=every_s, level=level, clock=clock
        )
        self._what = what
        self._every_s = every_s
        self._clock = clock
        self._found: dict[Hashable, Ongoing] = {}
        self._looked_at = -math.inf

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._found)

    @property
    def going_on(self) -> list[Hashable]:
        """The keys whose condition was seen and is not over."""
        return [key for key, one in self._found.items() if one.goes_on]

    def happens(self, key: Hashable, detail: object = "", **more: Any) -> None:
        """The condition of this key is there; see `Ongoing.happens`."""
        one = self._found.get(key)
        if one is None:
            self._forget()
            one = self._found[key] = self._make(self._what % key)
        one.happens(detail, **more)

    def over(self, key: Hashable, **more: Any) -> None:
        """The condition of this key is not there; see `Ongoing.over`."""
        one = self._found.get(key)
        if one is not None:
            one.over(**more)

    def _forget(self) -> None:
        """Drop what is over or not heard of any more, once every `every_s`."""
        now = self._clock()
        if now - self._looked_at >= self._every_s:
            self._looked_at = now
            self._found = {key: one for key, one in self._found.items() if not one.is_forgettable(now)}


class Seldom(logging.Filter):
    """Lets a warning or error of a library through once, then at most every `every_s` seconds.

    Two lines are alike if logger, level, exception's type, and the message without arguments and numbers are; of our
    own modules under whose names Faust's services log, if the whole messages are. The next one that passes says how
    many were held back: `... (and 37 more like it)`. Other loggers of ours are not touched; neither is what is logged
    below the level of a warning.

    For a handler: a logger's filter does not see what is logged to the loggers below it.
    """

    def __init__(self, *, every_s: float = EVERY_S, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        #: When a line like it passed, and how many were held back since.
        self._passed: dict[tuple[str, int, type | None, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; notes on it how many were not."""
        if record.levelno < logging.WARNING or not f"{record.name}.".startswith(_FLOODING):
            return True
        raised = record.exc_info[0] if record.exc_info else None
        # Our modules among them name partitions and files, of which each is news.
        ours = record.name.startswith("streams.")
        text = record.getMessage() if ours else _DIGITS.sub("#", str(record.msg))
        alike = (record.name, record.levelno, raised, text)
        now = self._clock()
        at, held = self._passed.pop(alike, (-math.inf, 0))
        if now - at < self._every_s:
            self._passed[alike] = at, held + 1
            return False
        if held:
            record.msg, record.args = f"{record.getMessage()} (and {held} more like it)", ()
        if len(self._passed) >= _REMEMBERED:
            self._passed.pop(next(iter(self._passed)), None)  # that which was seen last longest ago
        self._passed[alike] = now, 0
        return True


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
