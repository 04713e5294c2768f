"""Who answers for a customer: this worker, or the one that owns the customer's partition."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import httpx
import orjson
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from schemas.eligibility import MAX_WAIT_MS
from streams.config import Config
from streams.domain.keys import partition_of
from streams.engine.core import Engine
from streams.engine.partition import Partition
from streams.http.access import token_headers
from streams.http.tls import trusted

log = logging.getLogger(__name__)

#: Beyond a request's own waiting time: for its way through the log.
ANSWER_MARGIN_S = 5.0
#: Set on a question that one worker passes on to another, which must then answer it itself.
HOP = "x-consent-passed-on"
#: What of a question's headers goes along.
PASSED = ("authorization", "content-type", "accept-language", "idempotency-key", "x-org-id")

OwnerOf = Callable[[int], str | None]


class Owners:
    """Finds the partition of a key here, or passes the question on. `owner_of` names another owner's URL, if known."""

    def __init__(self, config: Config, engine: Engine, owner_of: OwnerOf) -> None:
        self._config = config
        self._engine = engine
        self._owner_of = owner_of
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

    async def catch_up(self, partition: Partition) -> None:
        """Who has just published wants to see it: wait for the log's end, but answer with what there is after that."""
        ends = await self._engine.ends_of_changes([partition.number])
        await asyncio.wait([partition.reached(ends[partition.number])], timeout=self._config.max_wait_ms / 1000)

    async def know_everybody(self, number: int) -> None:
        """The same for the identity table: whoever was registered before shall be found."""
        deadline = time.monotonic() + self._config.max_wait_ms / 1000
        await self._engine.everybody_is_known(number, lambda: time.monotonic() > deadline)

    async def pass_on(self, number: int, request: Request) -> Response:
        """Ask the partition's owner; a question that was passed on before stays here."""
        if HOP in request.headers:
            return retry(f"partition {number} is being moved or restored")
        path = request.scope["raw_path"].decode("ascii")
        if query := request.scope["query_string"].decode("ascii"):
            path += f"?{query}"
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        return await self.ask(number, request.method, path, await request.body(), headers)

    async def ask(self, number: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> Response:
        """Ask the owner of a partition, with the asker's own credentials."""
        url = self._owner_of(number)
        if url is None:
            return retry(f"partition {number} is being moved or restored")
        try:
            target = url.rstrip("/") + path
            answer = await self._client.request(method, target, content=body, headers={**headers, HOP: "1"})
        except httpx.HTTPError as exc:
            log.warning("%s does not answer for partition %d: %r", url, number, exc)
            return retry(f"the worker of partition {number} does not answer")
        kept = {name: answer.headers[name] for name in ("content-type", "retry-after") if name in answer.headers}
        return Response(answer.content, answer.status_code, headers=kept)


def as_json(document: object, status: int = 200) -> Response:
    """A document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


def problem(status: int, detail: str, **more: object) -> Response:
    """What is wrong, in one line."""
    return JSONResponse({"detail": detail, **more}, status_code=status)


def retry(detail: str) -> Response:
    """Not now: ask again in a second."""
    return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": "1"})
