"""Questions to a worker over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from streams.config import Config

from .root import Failure

TIMEOUT_S = 10.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a worker listens on; this is where to ask


class NoWorker(Failure):
    """Nothing answers at the worker's address."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            f"no worker answers at {base_url(config)}: start one with `consent-streams worker` "
            "(or `consent-streams up`), or set CONSENT_HTTP_HOST and CONSENT_HTTP_PORT"
        )


class NotFound(Failure):
    """The worker knows no such thing; the message is its own."""


def base_url(config: Config) -> str:
    """Where this machine reaches the worker with these options. Raises Failure for port 0."""
    if config.http_port == 0:
        raise Failure("CONSENT_HTTP_PORT is 0 (any free port): give the port that the worker's ready line names")
    host = ANY_ADDRESS.get(config.http_host, config.http_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.http_port}"


def get(config: Config, *path: str | int, timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON at a path, whose parts are quoted here. Raises NoWorker, NotFound or another Failure with one line."""
    url = "/".join([base_url(config), *(quote(str(part), safe="") for part in path)])
    headers = {"Authorization": f"Bearer {config.http_token}"} if config.http_token else {}
    try:
        # A proxy of the environment has no business on the way to a worker on this machine.
        answer = httpx.get(url, headers=headers, timeout=timeout_s, trust_env=not config.listens_on_loopback)
    except httpx.TransportError as error:
        raise NoWorker(config) from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise NotFound(_reason(answer))
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise Failure("the worker asks for a token: set CONSENT_HTTP_TOKEN to the one it was started with")
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Failure(f"the worker is not ready yet: {_reason(answer)}; try again in a moment")
    if answer.is_error:
        raise Failure(f"the worker answered {answer.status_code}: {_reason(answer)}")
    try:
        return answer.json()
    except ValueError as error:
        raise Failure(f"what answers at {base_url(config)} is no worker of consent-streams") from error


def is_ready(config: Config, timeout_s: float) -> bool:
    """Whether the worker's partitions are restored."""
    try:
        answer = httpx.get(f"{base_url(config)}/readyz", timeout=timeout_s, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def _reason(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    if isinstance(body, dict):
        body = body.get("detail") or body.get("error") or body
    return " ".join(str(body).split())[:300] or answer.reason_phrase
