"""Going on where the last owner of a partition stopped: nothing lost, nothing said twice.

The state's own position says which changes are done. The outputs of the one checkpoint that may be unfinished are
found at the ends of their topics and are not written again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import Any, NamedTuple

import msgspec

from streams import topics
from streams.config import Config
from streams.engine.records import FORWARDED, POSITION, PROGRESS, Arrivals, was_forwarded
from streams.engine.requests import MOST_AHEAD, Progress
from streams.kafka.log_reader import LogReader
from streams.topics import TopicSpec

OffsetsOf = Callable[[list[Any]], list[int]]

#: An output was not written before its input was read: look back so much further than that, for clocks that differ.
SKEW_MS = 60_000
#: A record that is sent home again was first sent within a request's longest wait and a session: look back so far,
#: or so many records.
FORWARDS_BACK_S = 120
MOST_FORWARDS = 16_000


class Forwarded(NamedTuple):
    """What was sent home lately: its offsets, by the partition it was found in; and what came to each home."""

    offsets: dict[int, set[int]]
    arrived: dict[int, Arrivals]


async def forwarded_records(reader: LogReader, config: Config, source: str) -> Forwarded:
    """A topic's misrouted records that were sent home lately."""
    oldest = (time.time() - FORWARDS_BACK_S) * 1000
    tails = await asyncio.gather(
        *(
            reader.tail(config.topic(source), number, _never, was_forwarded, since=oldest, most=MOST_FORWARDS)
            for number in range(config.partitions)
        )
    )
    found = Forwarded({}, {number: Arrivals() for number in range(config.partitions)})
    for number, record in chain.from_iterable(zip(repeat(at), tail) for at, tail in enumerate(tails)):
        found.arrived[number].is_repeated(record)
        mark = (_header(record, FORWARDED) or b"").decode(errors="replace").rpartition(f"{source}/")[2].split("/")
        if len(mark) == 2 and mark[0].isdigit() and mark[1].isdigit():
            found.offsets.setdefault(int(mark[0]), set()).add(int(mark[1]))
    return found


async def outputs_of_changes(reader: LogReader, config: Config, partition: int, applied: int) -> dict[str, set[int]]:
    """Offsets at or above `applied` of `consent.changes` whose outputs are in place already, by output topic."""
    outputs = (topics.AUDIT, topics.NOTIFICATIONS, topics.DEADLETTER)
    return await _outputs_of(topics.CHANGES.name, outputs, reader, config, partition, applied)


async def outputs_of_inbound(reader: LogReader, config: Config, partition: int, committed: int) -> dict[str, set[int]]:
    """The same of `consent.inbound`: a record whose audit is in place is done, for that is written last."""
    outputs = (topics.AUDIT, topics.DEADLETTER)
    return await _outputs_of(topics.INBOUND.name, outputs, reader, config, partition, committed)


async def _outputs_of(
    source: str, outputs: Iterable[TopicSpec], reader: LogReader, config: Config, partition: int, first: int
) -> dict[str, set[int]]:
    written_at = await reader.written_at(config.topic(source), partition, first)
    if written_at is None:
        return {}
    found: dict[str, set[int]] = {}
    for spec in outputs:
        inputs = _buried if spec is topics.DEADLETTER else _caused
        offsets_of = partial(inputs, source=source, config=config, partition=partition)
        enough = partial(_reach_back, offsets_of=offsets_of, offset=first)
        # Beside them are those of other sources, as many as there were requests: no number of them is enough.
        keep = partial(_is_among, offsets_of=offsets_of)
        records = await reader.tail(config.topic(spec.name), partition, enough, keep, since=written_at - SKEW_MS)
        offsets = {offset for offset in offsets_of(records) if offset >= first}
        if offsets:
            found[spec.name] = offsets
    return found


async def progress_of_requests(
    reader: LogReader, config: Config, partition: int, committed: int
) -> tuple[Progress, dict[str, set[int]]]:
    """How far the requests of a partition are answered, and which of their dead letters are in place."""
    if await reader.end(config.topic(topics.REQUESTS.name), partition) <= committed:
        return Progress(committed, committed), {}
    decisions = await reader.tail(config.topic(topics.DECISIONS.name), partition, lambda r: _before(r, committed))
    marks = [(_input(r, topics.REQUESTS.name, partition), _mark(r)) for r in decisions]
    ours = [(offset, mark) for offset, mark in marks if offset is not None and mark is not None]
    floor = max([committed, *(mark[0] for _, mark in ours[-1:])])
    bodies = {offset: record.value for record, offset in _of_requests(decisions, partition) if offset >= floor}
    audit = config.topic(topics.AUDIT.name)
    # Among them are as many of changes as there were changes, which may be far more than memory has room for.
    keep = partial(_is_of_requests, partition=partition)
    audits = await reader.tail(audit, partition, lambda r: _before(r, floor), keep)
    audited = {offset: record.value for record, offset in _of_requests(audits, partition) if offset >= floor}
    promised = {o: bytes(_read_audit(audited[o]).decision) for o in audited.keys() - bodies.keys()}
    # An audit that was not looked for may be there.
    complete = _before(audits, floor) or await reader.is_within_tail(audit, partition)
    unexplained = {o: bodies[o] for o in bodies.keys() - audited.keys()} if complete else {}
    offsets_of = partial(_buried, source=topics.REQUESTS.name, config=config, partition=partition)
    # They are written when the request is read, up to so far ahead.
    enough = partial(_reach_back, offsets_of=offsets_of, offset=floor - MOST_AHEAD)
    keep = partial(_is_among, offsets_of=offsets_of)
    # Nor were they written before anybody had looked at these requests.
    since = decisions[0].timestamp - SKEW_MS if _before(decisions, committed) else 0.0
    dead = await reader.tail(config.topic(topics.DEADLETTER.name), partition, enough, keep, since=since)
    offsets = {offset for offset in offsets_of(dead) if offset >= floor}
    known = 1 + max(bodies.keys() | audited.keys() | offsets, default=floor - 1)
    progress = Progress(floor, floor, frozenset(bodies), promised, unexplained, known)
    return progress, {topics.DEADLETTER.name: offsets} if offsets else {}


class _Audit(msgspec.Struct):
    decision: msgspec.Raw


_read_audit = msgspec.json.Decoder(_Audit).decode


def _is_of_requests(output: Any, partition: int) -> bool:
    return _input(output, topics.REQUESTS.name, partition) is not None


def _of_requests(outputs: list[Any], partition: int) -> Iterator[tuple[Any, int]]:
    """Outputs of the requests of a partition, with the offset of each request."""
    for record in outputs:
        offset = _input(record, topics.REQUESTS.name, partition)
        if offset is not None:
            yield record, offset


def _reach_back(records: list[Any], offsets_of: OffsetsOf, offset: int) -> bool:
    """Whether the records reach back beyond one checkpoint's outputs: to one that was done before."""
    return any(o < offset for o in offsets_of(records))


def _is_among(record: Any, offsets_of: OffsetsOf) -> bool:
    return bool(offsets_of([record]))


def _never(_: list[Any]) -> bool:
    return False


def _before(records: list[Any], offset: int) -> bool:
    """Whether the records reach back to a time when no request at or above `offset` had been looked at."""
    first = next((mark for mark in map(_mark, records) if mark is not None), None)
    return first is not None and first[1] <= offset


def _header(record: Any, name: str) -> bytes | None:
    """The last header of that name: a dead letter may hold the original's before ours."""
    return next((value for key, value in reversed(record.headers) if key == name), None)


def _input(record: Any, source: str, partition: int) -> int | None:
    place = _header(record, POSITION)
    head = f"{source}/{partition}/".encode()
    return int(place[len(head) :]) if place is not None and place.startswith(head) else None


def _caused(records: Iterable[Any], source: str, config: Config, partition: int) -> list[int]:  # noqa: ARG001
    """Offsets of the inputs that caused these audit records or notifications."""
    return [offset for record in records if (offset := _input(record, source, partition)) is not None]


def _buried(records: Iterable[Any], source: str, config: Config, partition: int) -> list[int]:
    """Offsets of the inputs whose dead letters these are. Only our own headers count, not what the original brought."""
    place = (config.topic(source).encode(), b"%d" % partition)
    return [
        int(_header(record, "__connect.errors.offset") or b"-1")
        for record in records
        if (_header(record, "__connect.errors.topic"), _header(record, "__connect.errors.partition")) == place
    ]


def _mark(record: Any) -> tuple[int, int] | None:
    raw = _header(record, PROGRESS)
    if raw is None:
        return None
    floor, high = raw.split(b"/")
    return int(floor), int(high)
