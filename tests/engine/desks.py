"""Desks and their lane, without a broker: who asks what, what is written when, and where the changes end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from streams.engine.outputs import Outputs
from streams.engine.partition import Partition
from streams.engine.records import Batch
from streams.engine.requests import Answered, Asked, Desk, Progress, RequestsLane
from streams.kafka.records import Place, Record
from tests.memory import Memory
from tests.written import by_place

CHANGES = "p-changes"
#: A question for the ends that does not find them all takes this long.
ROUND_S = 1.0


class Clerk:
    """A question is its record's key: `needs/patience`; `-` is a dead letter, `>` before it sends the request home."""

    def __init__(self) -> None:
        #: The offsets that were decided, those decided again again.
        self.decided: list[int] = []

    def read(self, records: list[Record], aside: Outputs) -> list[Asked]:
        asked = []
        for record in records:
            if record.key == b"-":
                aside.add("dead", 0, record.key, b"%d" % record.offset)
            else:
                asked.append((record, record.key, int((record.key or b"").strip(b">").split(b"/")[0])))
        return asked

    def patience(self, question: Any) -> float:
        return float(question.split(b"/")[1])

    def decide(
        self,
        partition: Partition,
        asked: list[Asked],
        progress: Progress,
        out: Outputs,
        aside: Outputs,
        *,
        behind: bool,
    ) -> list[Answered]:
        answers: list[Answered] = []
        for record, question, needs in asked:
            assert behind or needs <= partition.applied
            self.decided.append(record.offset)
            if question.startswith(b">"):
                aside.add("home", 7, record.key, b"%d" % record.offset)
                answers.append((record.offset, None))
                continue
            made_at = b"%s@%d" % (progress.header(), partition.applied)
            out.add("decisions", partition.number, made_at, b"%d %d" % (record.offset, behind))
            answers.append((record.offset, b"behind" if behind else b"decided"))
        return answers


class Writer:
    """Writes when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.written: list[tuple[str, bytes]] = []
        #: The same with their partition and key.
        self.records: list[tuple[str, int, bytes, bytes]] = []

    def begin(self, outputs: Outputs) -> Awaitable[None]:
        return self.write(outputs)

    async def write(self, outputs: Outputs) -> None:
        await self.gate.wait()
        for (topic, number), messages in by_place(outputs).items():
            self.written += [(topic, value or b"") for _, value, _ in messages]
            self.records += [(topic, number, key or b"", value or b"") for key, value, _ in messages]


class Confirmation:
    """Says whether a leader was the newest when it is told."""

    def __init__(self, told: bool | None = None) -> None:
        self._told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked: list[Place] = []
        if told is not None:
            self.tell(told)

    def tell(self, told: bool) -> None:
        self._told.set_result(told)

    async def confirmed(self, place: Place) -> bool:
        self.asked.append(place)
        return self._told.result() if self._told.done() else await asyncio.shield(self._told)


class World:
    """A lane of some partitions, on the running loop. Their changes end at `end`, or where `ends` says of each."""

    def __init__(self, progress: Progress | None = None, partitions: int = 1) -> None:
        self.end = 0
        self.ends: dict[int, int] = {}
        #: Partitions whose end nobody knows; and how long it takes to find those of others.
        self.unknown: set[int] = set()
        self.takes_s = 0.0
        #: Which ends were asked for.
        self.questions: list[list[int]] = []
        self.cancelled = 0
        self.acked_of: dict[int, list[int]] = {number: [] for number in range(partitions)}
        self.told_of: dict[int, list[Answered]] = {number: [] for number in range(partitions)}
        self.errors: list[BaseException] = []
        self.writer = Writer()
        self.clerks = [Clerk() for _ in range(partitions)]
        self.states = [Partition(number, Memory()) for number in range(partitions)]  # type: ignore[arg-type]
        self.desks = {
            number: Desk(state, self.clerks[number], progress or Progress(0, 0))
            for number, state in enumerate(self.states)
        }
        self.lane = RequestsLane(
            self.desks,
            self.writer,  # type: ignore[arg-type]
            find_ends=self.find_ends,
            changes=CHANGES,
            tell=lambda number, answers: self.told_of[number].extend(answers),
            on_error=self.errors.append,
            pressure=lambda _partition, _full: None,
            lease=lambda: True,
        )
        self.lane.start()
        # Of the first partition, which is the only one in most tests.
        self.clerk, self.state, self.desk = self.clerks[0], self.states[0], self.desks[0]
        self.acked, self.told = self.acked_of[0], self.told_of[0]

    @property
    def asked(self) -> int:
        """How often ends were asked for."""
        return len(self.questions)

    async def find_ends(self, partitions: Iterable[int], on_end: Callable[[int, int], None]) -> None:
        numbers = list(partitions)
        self.questions.append(numbers)
        try:
            found = {number: self.ends.get(number, self.end) for number in numbers if number not in self.unknown}
            if self.takes_s:
                await asyncio.sleep(self.takes_s)
            for number, end in found.items():
                on_end(number, end)
            if len(found) < len(numbers):
                await asyncio.sleep(ROUND_S)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def put(self, first: int, *keys: bytes, **how: Any) -> None:
        self.lane.put(self.batch(first, *keys, **how))

    def batch(
        self, first: int, *keys: bytes, number: int = 0, end: int | None = None, confirmation: Any = None
    ) -> Batch:
        records = [Record(first + at, 0, key, b"", ()) for at, key in enumerate(keys)]
        after = first + len(keys)
        acked = self.acked_of[number]
        return Batch(number, records, first, after, 0.0, lambda: acked.append(after), end, confirmation)

    @property
    def answered(self) -> list[int]:
        return [offset for offset, _ in self.told]
