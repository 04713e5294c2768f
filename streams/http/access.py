"""Who may ask what: some paths are open, the others need a user or the token, and a user acts only for their orgs."""

from __future__ import annotations

import time

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from streams import metrics
from streams.config import Config
from streams.http.limits import Clock, Limiter, retry_after
from streams.http.logins import Logins, RefusedError, User, address_of

PROBES = frozenset({"/livez", "/readyz"})
#: Customers' links: the token in the path is the credential.
LINKS = "/u/"
#: What other systems write by. With a users file these need credentials on loopback too: a proxy may stand in front.
WRITING = ("/v2/", "/v1.1/", "/v1/inbound/")

#: Whoever asks on an open path, and whoever asks a loopback address without credentials where none are needed.
NOBODY, LOCAL = User("(nobody)", frozenset()), User("(loopback)", None)
#: Users whose rate is remembered.
USERS = 10_000


class Access:
    """Middleware that sets `request.state.user` to who asks, or answers 401, 429 or 503."""

    def __init__(self, app: ASGIApp, config: Config, logins: Logins, clock: Clock = time.monotonic) -> None:
        self._app = app
        self._users = bool(config.users_file)
        self._open = config.listens_on_loopback and not config.http_token
        self._checks = bool(config.http_token or config.users_file)
        self._logins = logins
        self._rates = Limiter(config.rate_limit, config.rate_limit, USERS, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["user"] = await self._admitted(scope)
            except RefusedError as refused:
                await self._answer(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admitted(self, scope: Scope) -> User:
        path = scope["path"]
        if path in PROBES or path.startswith(LINKS):
            return NOBODY
        given = Headers(scope=scope).get("authorization")
        if given is None or not self._checks:
            if self._open and not (self._users and path.startswith(WRITING)):
                return LOCAL
            raise RefusedError(401, "credentials are needed", {})
        host = scope["client"][0] if scope["client"] else ""
        user = await self._logins.user(given.encode("latin-1"), address_of(host))
        if user.orgs is not None and (wait_s := self._rates.take(user.name)):
            metrics.RATE_LIMITED.labels(user.name).inc()
            raise RefusedError(429, "too many requests from this user (rate_limit)", retry_after(wait_s))
        return user

    def _answer(self, refused: RefusedError) -> JSONResponse:
        headers = refused.headers
        detail = refused.detail
        if refused.status == 401:
            headers = {"WWW-Authenticate": 'Basic realm="consent-streams"' if self._users else "Bearer"}
            wanted = "a user of the users file, or " if self._users else ""
            detail = f"{detail}: {wanted}Authorization: Bearer <CONSENT_HTTP_TOKEN>"
        return JSONResponse({"detail": detail}, refused.status, headers=headers)


def may_act_for(request: Request, org_id: int) -> bool:
    """Whether who asks may see and change this org, be it known or not."""
    orgs = asking(request).orgs
    return orgs is None or org_id in orgs


def asking(request: Request) -> User:
    """Who asks; always known behind `Access`."""
    user: User = request.state.user
    return user


def forbidden(org_id: int) -> Response:
    """The same for an org that exists and for one that does not."""
    return JSONResponse({"detail": f"this user may not act for org {org_id}"}, 403)


def token_headers(config: Config) -> dict[str, str]:
    """What one worker sends to another."""
    return {"Authorization": f"Bearer {config.http_token}"} if config.http_token else {}
