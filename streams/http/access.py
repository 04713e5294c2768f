"""Who may ask: the probes are open, everything else needs the token unless only this machine can reach us."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streams.config import Config

OPEN = frozenset({"/livez", "/readyz"})

Next = Callable[[Request], Awaitable[Response]]


class Access:
    """Middleware that answers 401 unless the request carries `Authorization: Bearer <CONSENT_HTTP_TOKEN>`."""

    def __init__(self, config: Config) -> None:
        self._expected = f"Bearer {config.http_token}".encode() if config.http_token else None
        self._loopback = config.listens_on_loopback

    async def __call__(self, request: Request, call_next: Next) -> Response:
        if request.url.path in OPEN or self._admits(request):
            return await call_next(request)
        return JSONResponse(
            {"detail": "credentials are needed: Authorization: Bearer <CONSENT_HTTP_TOKEN>"},
            status_code=401,
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _admits(self, request: Request) -> bool:
        if self._expected is None:
            return self._loopback
        return hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected)


def token_headers(config: Config) -> dict[str, str]:
    """What one worker sends to another."""
    return {"Authorization": f"Bearer {config.http_token}"} if config.http_token else {}
