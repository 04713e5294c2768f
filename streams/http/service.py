"""The routes, and the server that runs beside Faust on the same event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.eligibility import REQUEST
from streams import __version__
from streams.agents.reading import UnreadableError, check_nesting, checked_size, parse, validate
from streams.config import NOT_PROMISED, Config
from streams.domain.keys import customer_key
from streams.engine.core import Engine
from streams.engine.outputs import RefusedError
from streams.http.access import Access, asking, forbidden, may_act_for
from streams.http.answers import Answers
from streams.http.customers import customer_document
from streams.http.documents import openapi
from streams.http.identifiers import Identifiers
from streams.http.inbound import Webhooks
from streams.http.intake import Intake, not_written
from streams.http.legacy import LegacySubscriptions
from streams.http.limits import BodyLimit
from streams.http.links import LinkPages
from streams.http.logins import Logins
from streams.http.owners import ANSWER_MARGIN_S, OwnerOf, Owners, as_json, problem
from streams.http.paths import CUSTOMER, is_id
from streams.http.preview import Preview
from streams.http.subscriptions import Subscriptions
from streams.http.tls import check_certificate
from streams.kafka.records import Record

log = logging.getLogger(__name__)

class Service:
    """Answers HTTP for one worker. `owner_of` names the URL of the worker that owns a partition, if it is known.

    Raises ConfigError or UsersError if the certificate or the users file cannot be used.
    """

    def __init__(self, config: Config, engine: Engine, answers: Answers, owner_of: OwnerOf) -> None:
        check_certificate(config)
        self._logins = Logins(config)
        self._config = config
        self._engine = engine
        self._answers = answers
        self._owners = Owners(config, engine, owner_of)
        self._intake = Intake(config, engine.intake_writer)
        self._identifiers = Identifiers(self._owners)
        self._links = LinkPages(config, self._owners, self._intake)
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket, unready: Callable[[], str | None]) -> None:
        """Serve on a bound socket until `stop`. `unready` says why the worker is not ready, or None."""
        config = uvicorn.Config(
            self._routes(unready), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2,
            ws="none", ssl_certfile=self._config.ssl_certfile or None, ssl_keyfile=self._config.ssl_keyfile or None,
        )  # fmt: skip
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        await self._owners.close()

    def _routes(self, unready: Callable[[], str | None]) -> FastAPI:
        app = FastAPI(title="consent-streams", version=__version__, docs_url=None, redoc_url=None)
        app.openapi = openapi  # type: ignore[method-assign]
        app.add_middleware(BodyLimit, max_bytes=self._config.max_body_bytes)
        app.add_middleware(Access, config=self._config, logins=self._logins)

        @app.exception_handler(RequestValidationError)
        async def misused(_: Request, exc: RequestValidationError) -> Response:
            return problem(422, "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in exc.errors()))

        @app.exception_handler(RefusedError)
        async def refused(_: Request, exc: RefusedError) -> Response:
            return not_written(exc)

        app.include_router(self._links.router())

        @app.get("/livez", summary="The process answers")
        async def livez() -> PlainTextResponse:
            return PlainTextResponse("ok\n")

        @app.get("/readyz", summary="200 once every partition of this worker is restored and none is stuck")
        async def readyz() -> PlainTextResponse:
            reason = unready()
            unpromised = "" if self._config.read_barrier == "quorum" else f"; {NOT_PROMISED}"
            return PlainTextResponse(f"{reason or 'ready'}{unpromised}\n", status_code=503 if reason else 200)

        @app.get("/metrics", summary="Prometheus metrics")
        async def metrics(request: Request) -> Response:
            if asking(request).orgs is not None:
                return problem(403, "metrics name every org: they are for the token's owner")
            return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

        @app.get("/v1/customers/{org_id}/" + CUSTOMER, summary="A customer's cells")
        async def customer(org_id: int, customer_id: str, request: Request) -> Response:
            if not may_act_for(request, org_id):
                return forbidden(org_id)
            if not is_id(customer_id):
                return problem(422, "customer_id: 1 to 128 characters")
            return await self._customer(org_id, customer_id, request)

        @app.get("/v1/orgs/{org_id}/settings", summary="An org's settings in force")
        async def settings(org_id: int, request: Request) -> Response:
            if not may_act_for(request, org_id):
                return forbidden(org_id)
            return await self._settings(org_id, request)

        @app.post("/v1/eligibility", summary="One eligibility request, answered when it is decided")
        async def eligibility(request: Request) -> Response:
            return await self._eligibility(request)

        parts = (self._owners, self._intake, self._identifiers)
        webhooks = Webhooks(self._owners, self._intake, self._config.max_record_bytes)
        for feature in (
            self._identifiers, Subscriptions(*parts), LegacySubscriptions(*parts), webhooks, Preview(self._owners),
        ):  # fmt: skip
            app.include_router(feature.routes())
        return app

    async def _customer(self, org_id: int, customer_id: str, request: Request) -> Response:
        number = self._owners.number_of(customer_key(org_id, customer_id))
        found = self._owners.here(number)
        if found is None:
            return await self._owners.pass_on(number, request)
        await self._owners.catch_up(found)
        org = found.org(org_id)
        if org is None:
            return problem(404, f"no settings are in force for org {org_id}")
        document = customer_document(found, org, org_id, customer_id)
        if document is None:
            return problem(404, f"customer {customer_id!r} of org {org_id} is unknown")
        return as_json(document)

    async def _settings(self, org_id: int, request: Request) -> Response:
        versions = {}
        newest = None
        for partition in self._owners.all_here():
            await self._owners.catch_up(partition)
            org = partition.org(org_id)
            if org is not None:
                versions[str(partition.number)] = org.version
                newest = org if newest is None or org.version > newest.version else newest
        if not self._owners.all_here():
            return await self._owners.pass_on(0, request)
        if newest is None:
            return problem(404, f"no settings are in force for org {org_id}")
        document = newest.settings.model_dump(mode="json")
        return as_json({"org_id": org_id, "version": newest.version, "partitions": versions, "settings": document})

    async def _eligibility(self, request: Request) -> Response:
        body = await request.body()
        try:
            document = parse(Record(0, 0, None, body, ()), self._config.max_record_bytes)
            check_nesting(document)
            document.setdefault("request_id", str(uuid.uuid4()))
            checked = validate(document, REQUEST)
            key = customer_key(checked["org_id"], checked["customer_id"])
            value = checked_size(Record(0, 0, key, orjson.dumps(document), ()), self._config.max_record_bytes)
        except UnreadableError as exc:
            return problem(413 if exc.code == "too_large" else 422, str(exc), code=exc.code)
        if not may_act_for(request, checked["org_id"]):
            return forbidden(checked["org_id"])
        number = self._owners.number_of(key)
        if self._owners.here(number) is None:
            return await self._owners.pass_on(number, request)
        wait_ms = checked.get("max_wait_ms")
        patience = (self._config.max_wait_ms if wait_ms is None else wait_ms) / 1000 + ANSWER_MARGIN_S
        try:
            decision = await self._answers.ask(self._engine, number, key, value, patience)
        except TimeoutError:
            return problem(504, "not decided in time; the decision will be in eligibility.decisions")
        return Response(decision, media_type="application/json")


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the worker's SIGTERM is the engine's first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

