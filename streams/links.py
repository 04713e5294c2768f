"""Links that let a customer act: signed tokens, each bound to an org, a customer, a place and an action."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal, get_args

from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from streams.config import Config, ConfigError

Action = Literal["OPTIN", "OPTOUT", "VERIFY"]

#: What is signed begins with this, so that later versions can tell old tokens from theirs.
_VERSION = 1
#: Separates these signatures from any others made with the same secret.
_SALT = "consent-streams/link"
SECRET_FILE = "link.secret"  # noqa: S105
_SECRET_BYTES = 32
#: A shorter secret could be guessed, and with it anybody's consent be changed.
MIN_SECRET = 16


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
        self._signer = Signer(secret, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)

    def token(self, link: Link) -> str:
        """The token, fit for a URL's path: letters, digits, `-`, `_` and one dot."""
        body = json.dumps([_VERSION, *astuple(link)], ensure_ascii=False, separators=(",", ":"))
        return self._signer.sign(base64_encode(body)).decode()

    def read(self, token: str, now_ms: int) -> Link:
        """The link that a token stands for. Raises LinkError."""
        try:
            body = self._signer.unsign(token)
            # Base64 can spell one signature in several ways; events take their ids from the token, so it has one only.
            if self._signer.sign(body).decode() != token:
                raise LinkError("invalid")
            link = _link(json.loads(base64_decode(body)))
        except (BadData, ValueError):
            raise LinkError("invalid") from None
        if now_ms > link.expires_at:
            raise LinkError("expired")
        return link


def _link(signed: list[object]) -> Link:
    """What was signed is ours, but perhaps another version's."""
    version, *fields = signed
    if version != _VERSION:
        raise LinkError("invalid")
    link = Link(*fields)  # type: ignore[arg-type]
    if link.action not in get_args(Action) or (link.action == "VERIFY") != (link.verifies is not None):
        raise LinkError("invalid")
    return link


def secret_of(config: Config) -> str:
    """The secret that signs links: CONSENT_LINK_SECRET, else one that is made once in the data folder.

    Raises ConfigError for one that cannot be read or made, or is too short to be a secret.
    """
    if config.link_secret:
        return _checked(config.link_secret, "CONSENT_LINK_SECRET")
    file = config.datadir / SECRET_FILE
    try:
        if not file.exists():
            _make_secret(file)
        found = file.read_text("utf-8", errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; CONSENT_LINK_SECRET can be set instead") from error
    return _checked(found, str(file))


def _make_secret(file: Path) -> None:
    """Whole or not at all, and never a second one: whoever starts at the same time reads the first one's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_hex(_SECRET_BYTES))
            out.flush()
            os.fsync(descriptor)
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _checked(secret: str, where: str) -> str:
    if len(secret) < MIN_SECRET:
        raise ConfigError(
            f"{where}: a secret that signs links needs {MIN_SECRET} characters or more, this one has {len(secret)}"
        )
    return secret
