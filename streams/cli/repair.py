"""Repairs of dead letters: fields set, values replaced, and the check before they are sent again."""

from __future__ import annotations

from typing import Any

import click
import orjson

from streams import topics
from streams.config import Config
from streams.engine.records import FORWARDED
from streams.kafka.client import Header

from .events import Checked, RecordError, check_event, check_request, read_object
from .letters import Letter
from .root import Failure

REPLAYED_FROM = "consent.replayed_from"


class AssignmentType(click.ParamType):
    """`FIELD=JSON`; the field may be a path, such as settings.accounts.0.active."""

    name = "field=json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Path and value, or a usage error."""
        path, equals, text = str(value).partition("=")
        if not path or not equals:
            self.fail(f"{value!r} is not FIELD=JSON", param, ctx)
        try:
            return path, orjson.loads(text)
        except orjson.JSONDecodeError:
            self.fail(f"{text!r} is not JSON; a text needs its quotes: {path}='\"{text}\"'", param, ctx)


def repaired(letter: Letter, value: bytes, assignments: list[tuple[str, Any]], config: Config) -> Checked:
    """A letter's new value with the fields set, checked against its topic's schema. Raises RecordError."""
    if assignments:
        body = read_object(value, config.max_record_bytes)
        for path, new in assignments:
            _assign(body, path, new)
        value = orjson.dumps(body)
    if letter.topic == config.topic(topics.CHANGES.name):
        return check_event(value, config.max_record_bytes)
    if letter.topic == config.topic(topics.REQUESTS.name):
        return check_request(value, config.max_record_bytes)
    if letter.topic == config.topic(topics.INBOUND.name):
        if letter.record.key is None:
            raise RecordError("no key, and one cannot be computed for this topic")
        read_object(value, config.max_record_bytes)
        return Checked("", 0, letter.record.key, value)
    raise RecordError(f"its topic {letter.topic} is none that the worker reads")


def headers_of(letter: Letter) -> list[Header]:
    """The original's headers, and where the dead letter lies."""
    own = [(name, value) for name, value in letter.own_headers if name not in {REPLAYED_FROM, FORWARDED}]
    return [*own, (REPLAYED_FROM, letter.place.encode())]


def edited_values(content: bytes, letters: list[Letter]) -> list[bytes]:
    """The values of an edit file, one line for each letter. Raises Failure if their numbers differ."""
    values = [line.strip() for line in content.splitlines() if line.strip()]
    if len(values) != len(letters):
        raise Failure(f"--edit has {len(values)} lines for {len(letters)} dead letters: one line each, in their order")
    return values


def _assign(body: Any, path: str, new: Any) -> None:
    *parents, last = path.split(".")
    try:
        for name in parents:
            body = body[int(name)] if isinstance(body, list) else body[name]
        body[int(last) if isinstance(body, list) else last] = new
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise RecordError(f"--set {path}: there is no such place in the value") from error
