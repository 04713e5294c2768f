"""Who answers for a customer: this worker, or the one that owns the customer's partition."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx
import orjson
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from schemas.eligibility import MAX_WAIT_MS
from streams import topics
from streams.config import Config
from streams.domain.keys import partition_of
from streams.domain.orgs import Org
from streams.engine.core import Engine
from streams.engine.partition import Partition
from streams.http.access import token_headers
from streams.http.gathering import Gathering
from streams.http.tls import trusted
from streams.logs import OngoingBy, about

log = logging.getLogger(__name__)

#: Beyond a request's own waiting time: for its way through the log.
ANSWER_MARGIN_S = 5.0
#: Set on a question that one worker passes on to another, which must then answer it itself.
HOP = "x-consent-passed-on"
#: What of a question's headers goes along.
PASSED = {b"authorization", b"content-type", b"accept-language", b"idempotency-key", b"x-org-id"}

#: So many questions for the end of a partition share one to the broker.
MOST_AT_ONCE = 1_000

#: A leader and its replicas tell where a log ends in milliseconds; who takes longer is asked again, by itself.
ENDS_WITHIN_S = 0.1
ASK_AGAIN_S = 0.05
#: Reading back may take this long, however short the wait for the state is.
LEAST_WAIT_S = 1.0

OwnerOf = Callable[[int], str | None]
T = TypeVar("T")


class BehindError(Exception):
    """The state is not where it must be to answer; in a moment it will."""

    def __init__(self) -> None:
        super().__init__("the state is behind the log, or on its way to another worker: try again in a second")


class Owners:
    """Finds the partition of a key here, or passes the question on. `owner_of` names another owner's URL, if known."""

    def __init__(self, config: Config, engine: Engine, owner_of: OwnerOf) -> None:
        self._config = config
        self._engine = engine
        self._owner_of = owner_of
        self._away = OngoingBy(log, "the worker at %s does not answer")
        self._end_of = Gathering(self._ends_of, MOST_AT_ONCE)
        self._client = httpx.AsyncClient(
            headers=token_headers(config), timeout=MAX_WAIT_MS / 1000 + ANSWER_MARGIN_S, verify=trusted(config)
        )

    async def close(self) -> None:
        await self._client.aclose()

    def number_of(self, key: bytes) -> int:
        """The home partition of a key."""
        return partition_of(key, self._config.partitions)

    def here(self, number: int) -> Partition | None:
        """The partition, if it is this worker's."""
        return self._engine.partitions.get(number)

    def identities_here(self, number: int) -> Partition | None:
        """The partition of the identity table, if it is this worker's."""
        return self._engine.tables.identities.get(number)

    def all_here(self) -> list[Partition]:
        """Every partition of this worker, by number."""
        return [partition for _, partition in sorted(self._engine.partitions.items())]

    async def catch_up(self, partition: Partition) -> bool:
        """Wait for the log's end, for whoever has just published wants to see it; False if that takes too long."""
        deadline = time.monotonic() + self._config.max_wait_ms / 1000
        while (end := await self._end_of(partition.number)) is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(ASK_AGAIN_S)
        left = max(0.0, deadline - time.monotonic())
        done, _ = await asyncio.wait([partition.reached(end)], timeout=left)
        return bool(done)

    async def _ends_of(self, numbers: list[int]) -> list[int | None]:
        """The end of each partition; None where it is not known soon, so that none waits for another's leader."""
        found: dict[int, int] = {}
        asking = asyncio.create_task(self._engine.find_ends(set(numbers), found.__setitem__))
        done, _ = await asyncio.wait([asking], timeout=ENDS_WITHIN_S)
        if done:
            asking.result()
        else:
            asking.cancel()
        return [found.get(number) for number in numbers]

    async def caught_up(self, key: bytes) -> Partition | int:
        """The partition of a key at the log's end; its number, if another worker has it. Raises BehindError."""
        number = self.number_of(key)
        found = self.here(number)
        if found is None:
            return number
        if not await self.catch_up(found):
            raise BehindError
        return found

    async def org(self, org_id: int) -> Org | None:
        """The settings in force for an org, whoever owns its customers. Raises BehindError."""
        here = self.all_here()
        if not here or not await self.catch_up(here[0]):
            raise BehindError
        return here[0].org(org_id)

    async def know_everybody(self, number: int) -> None:
        """The same for the identity table: whoever was registered before is found after it. Raises BehindError."""
        deadline = time.monotonic() + self._config.max_wait_ms / 1000
        if not await self._engine.everybody_is_known([number], lambda: time.monotonic() > deadline):
            raise BehindError

    async def pass_on(self, number: int, request: Request) -> Response:
        """Ask the partition's owner; a question that was passed on before stays here."""
        if HOP in request.headers:
            return retry(f"partition {number} is being moved or restored")
        path = request.scope["raw_path"].decode("ascii")
        if query := request.scope["query_string"].decode("ascii"):
            path += f"?{query}"
        return await self._ask(number, request.method, path, await request.body(), request)

    async def ask_for(self, number: int, path: str, request: Request) -> Response:
        """GET a path of the partition's owner, in the name of who asks."""
        return await self._ask(number, "GET", path, b"", request)

    async def send_on(self, number: int, path: str, request: Request) -> Response:
        """POST the same body to a path of the partition's owner."""
        return await self._ask(number, "POST", path, await request.body(), request)

    async def _ask(self, number: int, method: str, path: str, body: bytes, request: Request) -> Response:
        # As they came: text in headers may have any bytes.
        headers = [(name, value) for name, value in request.headers.raw if name in PASSED]
        url = self._owner_of(number)
        if url is None:
            return retry(f"partition {number} is being moved or restored")
        try:
            target = url.rstrip("/") + path
            answer = await self._client.request(method, target, content=body, headers=[*headers, (HOP.encode(), b"1")])
        except httpx.HTTPError as exc:
            # Not its text: that may quote the headers, and with them who asks.
            self._away.happens(url, type(exc).__name__, extra=about(topics.CHANGES.name, number))
            return retry(f"the worker of partition {number} does not answer")
        self._away.over(url)
        kept = {name: answer.headers[name] for name in ("content-type", "retry-after") if name in answer.headers}
        return Response(answer.content, answer.status_code, headers=kept)

    async def read_back(
        self, number: int, key: bytes, step: int, most: int
    ) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
        """Offsets and events of a customer among the newest `step` records of `consent.changes`, then the next older.

        Ends after `most` records. Raises BehindError.
        """
        reader, topic = self._engine.reader, self._config.topic(topics.CHANGES.name)
        end = await self._in_time(reader.end(topic, number))
        first = await self._in_time(reader.beginning(topic, number))
        oldest = max(first, end - most)
        while end > oldest:
            start = max(oldest, end - step)
            yield await self._in_time(self._events(number, key, start, end))
            end = start

    async def _events(self, number: int, key: bytes, start: int, end: int) -> list[tuple[int, dict[str, Any]]]:
        found: list[tuple[int, dict[str, Any]]] = []
        topic = self._config.topic(topics.CHANGES.name)
        async for records in self._engine.reader.scan(topic, number, start, end, committed=True):
            found += ((r.offset, orjson.loads(r.value)) for r in records if r.key == key and r.value is not None)
        return found

    async def _in_time(self, answer: Awaitable[T]) -> T:
        """An answer of brokers that may be away. Raises BehindError if it takes too long."""
        try:
            async with asyncio.timeout(max(self._config.max_wait_ms / 1000, LEAST_WAIT_S)):
                return await answer
        except TimeoutError:
            raise BehindError from None


def as_json(document: object, status: int = 200) -> Response:
    """A document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


def problem(status: int, detail: str, **more: object) -> Response:
    """What is wrong, in one line."""
    return JSONResponse({"detail": detail, **more}, status_code=status)


def retry(detail: str) -> Response:
    """Not now: ask again in a second."""
    return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": "1"})
