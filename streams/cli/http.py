"""Questions to a worker over HTTP."""

from __future__ import annotations

import ssl
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import httpx

from streams.config import Config, ConfigError
from streams.http.tls import trusted

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
    return f"{'https' if config.ssl_certfile else 'http'}://{f'[{host}]' if ':' in host else host}:{config.http_port}"


def get(config: Config, *path: str | int, timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON at a path, whose parts are quoted here. Raises NoWorker, NotFound or another Failure with one line."""
    return _answered(config, path, timeout_s, None)


def post(config: Config, *path: str | int, body: bytes, timeout_s: float = TIMEOUT_S) -> Any:
    """The same for a POST of JSON."""
    return _answered(config, path, timeout_s, body)


def _answered(config: Config, path: tuple[str | int, ...], timeout_s: float, body: bytes | None) -> Any:
    url = "/".join([base_url(config), *(quote(str(part), safe="") for part in path)])
    # A proxy of the environment has no business on the way to a worker on this machine.
    answer = _ask(config, url, timeout_s, credentials(config), trust_env=not config.listens_on_loopback, body=body)
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise NotFound(_reason(answer))
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise Failure(
            "the worker asks for credentials: set CONSENT_HTTP_TOKEN to the token it was started with, "
            "or CONSENT_HTTP_USER to NAME:PASSWORD of a user"
        )
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Failure(f"the worker is not ready yet: {_reason(answer)}; try again in a moment")
    if answer.is_error:
        raise Failure(f"the worker answered {answer.status_code}: {_reason(answer)}")
    try:
        return answer.json()
    except ValueError as error:
        raise Failure(f"what answers at {base_url(config)} is no worker of consent-streams") from error


def is_ready(config: Config, timeout_s: float) -> bool:
    """Whether the worker's partitions are restored. Raises Failure for a certificate that is not to be trusted."""
    try:
        return _ask(config, f"{base_url(config)}/readyz", timeout_s, trust_env=False).is_success
    except NoWorker:
        return False


def _ask(
    config: Config, url: str, timeout_s: float, headers: dict[str, str] | None = None, *, trust_env: bool,
    body: bytes | None = None,
) -> httpx.Response:  # fmt: skip
    """One GET, or the POST of a body. Raises NoWorker, or Failure for a certificate that is not to be trusted."""
    try:
        return httpx.request(
            "GET" if body is None else "POST", url, content=body, headers=headers, timeout=timeout_s,
            trust_env=trust_env, verify=trusted(config),
        )  # fmt: skip
    except ConfigError as error:
        raise Failure(str(error)) from error
    except httpx.TransportError as error:
        cause = error.__context__
        while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__context__
        if cause is None:
            raise NoWorker(config) from error
        raise Failure(
            f"the certificate of {base_url(config)} is not to be trusted: {cause.verify_message}; CONSENT_HTTP_HOST "
            "has to be a name that it is made out to, and CONSENT_SSL_CERTFILE the worker's certificate"
        ) from error


def credentials(config: Config) -> dict[str, str]:
    """The `Authorization` header of a command, if it was given a token or a user."""
    if config.http_token:
        return {"Authorization": f"Bearer {config.http_token}"}
    if config.http_user:
        return {"Authorization": f"Basic {b64encode(config.http_user.encode()).decode()}"}
    return {}


def _reason(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    if isinstance(body, dict):
        body = body.get("detail") or body.get("error") or body
    return " ".join(str(body).split())[:300] or answer.reason_phrase
