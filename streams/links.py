"""Links that let a customer act: signed tokens, each bound to an org, a customer, a place and an action."""

from __future__ import annotations

import os
import secrets
from dataclasses import astuple, dataclass
from typing import Any, Literal, get_args

from itsdangerous import BadData, URLSafeSerializer

from streams.config import Config

Action = Literal["OPTIN", "OPTOUT", "VERIFY"]

#: What is signed begins with this, so that later versions can tell old tokens from theirs.
_VERSION = 1
#: Separates these signatures from any others made with the same secret.
_SALT = "consent-streams/link"
SECRET_FILE = "link.secret"  # noqa: S105
_SECRET_BYTES = 32


class LinkError(Exception):
    """The token cannot be used; `reason` is `invalid` or `expired`."""

    def __init__(self, reason: Literal["invalid", "expired"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Link:
    """What a token allows: one action at one place of one customer, until `expires_at` (milliseconds since the epoch).

    `verifies` is the pending entry's event id, for VERIFY only; `language` is that of the page, None: see domain
    section 8.
    """

    org_id: int
    customer_id: str
    source: str
    account_id: str
    channel: str
    priority: str
    org_unit_id: int
    action: Action
    expires_at: int
    verifies: str | None = None
    language: str | None = None


class Links:
    """Makes and reads tokens. The same link is always the same token: no clock and no random number is in it."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt=_SALT)

    def token(self, link: Link) -> str:
        """The token, fit for a URL's path."""
        token: str | bytes = self._serializer.dumps([_VERSION, *astuple(link)])
        return token if isinstance(token, str) else token.decode()

    def read(self, token: str, now_ms: int) -> Link:
        """The link that a token stands for. Raises LinkError."""
        try:
            version, *fields = self._serializer.loads(token)
        except (BadData, TypeError, ValueError):
            raise LinkError("invalid") from None
        if version != _VERSION:
            raise LinkError("invalid")
        link = _link(fields)
        if now_ms > link.expires_at:
            raise LinkError("expired")
        return link


def _link(fields: list[Any]) -> Link:
    try:
        link = Link(*fields)
    except TypeError:
        raise LinkError("invalid") from None
    if link.action not in get_args(Action) or not isinstance(link.expires_at, int):
        raise LinkError("invalid")
    return link


def secret_of(config: Config) -> str:
    """The secret that signs links: CONSENT_LINK_SECRET, else one that is made once in the data folder."""
    if config.link_secret:
        return config.link_secret
    file = config.datadir / SECRET_FILE
    config.datadir.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    with os.fdopen(descriptor, "w") as out:
        out.write(secrets.token_hex(_SECRET_BYTES))
    return file.read_text().strip()
