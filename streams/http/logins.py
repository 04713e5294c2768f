"""Who asks: names and passwords, and the token, checked without letting anyone guess or wait for it."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import secrets
import time
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from streams import metrics
from streams.config import Config
from streams.http.limits import Clock, Limiter, retry_after
from streams.http.users import Accounts, UsersError, is_password, read_users

log = logging.getLogger(__name__)

#: Failed logins that one address has free; then one more each time a minute divided by them has passed.
FAILURES, FAILURES_PER_S = 10, 10 / 60
#: Addresses whose failed logins are remembered.
ADDRESSES = 10_000
#: Passwords verified at once; each takes a core for tens of milliseconds, and 19 MiB.
VERIFIED_AT_ONCE = 2
#: Credentials that may wait for that: about a second's worth.
WAITING = 64
#: What was verified is remembered so long after it was used last, and so much of it.
REMEMBERED_S, REMEMBERED = 60.0, 4_096
#: How often the users file is looked at.
LOOK_EVERY_S = 1.0


#: Why credentials are refused, as `consent_login_failures_total` counts it.
Refusal = Literal["wrong_token", "malformed", "unknown_user", "wrong_password", "blocked", "busy"]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, and the orgs that they may act for; None: every org. Only users of the file have a plain name."""

    name: str
    orgs: frozenset[int] | None


#: Whoever has CONSENT_HTTP_TOKEN.
OPERATOR = User("(token)", None)


class RefusedError(Exception):
    """The request is answered with this status, detail and headers instead."""

    def __init__(self, status: int, detail: str, headers: dict[str, str]) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


@dataclass(slots=True)
class _Known:
    """The users as the file had them once, and the credentials that were verified, or are being, against them."""

    accounts: Accounts
    stamp: tuple[int, ...]
    verified: OrderedDict[bytes, tuple[User, float]] = field(default_factory=OrderedDict)
    in_hand: dict[bytes, asyncio.Task[User | Refusal]] = field(default_factory=dict)


class Logins:
    """Tells who sends an `Authorization` header. Raises UsersError if there is a users file that cannot be used.

    A change of the file counts within LOOK_EVERY_S; while it is faulty, the users of before stay.
    """

    def __init__(self, config: Config, clock: Clock = time.monotonic) -> None:
        self._token = config.http_token.encode()
        self._file = Path(config.users_file).expanduser() if config.users_file else None
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._failures = Limiter(FAILURES_PER_S, FAILURES, ADDRESSES, clock)
        self._turn = asyncio.Semaphore(VERIFIED_AT_ONCE)
        self._looked_at = clock()
        self._known = _Known(read_users(self._file) if self._file else {}, self._stamp())

    async def user(self, given: bytes, address: str) -> User:
        """The user of an `Authorization` header that came from this address. Raises RefusedError: 401, 429 or 503.

        What was verified a moment ago is known again by its keyed digest, for a microsecond of CPU and even while the
        address is blocked: a neighbour's wrong password does not lock out whoever is at work.
        """
        self._look()
        known, digest = self._known, self._digest(given)
        user, used = known.verified.pop(digest, (None, 0.0))
        if user is not None and self._clock() - used <= REMEMBERED_S:
            known.verified[digest] = user, self._clock()
            return user
        found = "blocked" if self._failures.wait_s(address) else await self._in_hand(known, digest, given, address)
        if isinstance(found, User):
            return found
        metrics.LOGIN_FAILURES.labels(found).inc()
        if found == "busy":
            raise RefusedError(503, "too many logins at once: try again", retry_after(1))
        if found == "blocked":
            wait_s = self._failures.wait_s(address)
            raise RefusedError(429, "too many failed logins from this address: try again later", retry_after(wait_s))
        raise RefusedError(401, "wrong credentials", {})

    async def _in_hand(self, known: _Known, digest: bytes, given: bytes, address: str) -> User | Refusal:
        """The outcome of the one check of these credentials, whoever else waits for it already."""
        if digest not in known.in_hand:
            if len(known.in_hand) >= WAITING:
                return "busy"
            known.in_hand[digest] = asyncio.create_task(self._check(known, digest, given, address), name="login")
        return await asyncio.shield(known.in_hand[digest])

    async def _check(self, known: _Known, digest: bytes, given: bytes, address: str) -> User | Refusal:
        """The user, or why not. Guesses made at the same time take turns, so that each counts before the next."""
        try:
            async with self._turn:
                if self._failures.wait_s(address):
                    return "blocked"
                found = await self._verify(known.accounts, given)
                if isinstance(found, User):
                    known.verified[digest] = found, self._clock()
                    if len(known.verified) > REMEMBERED:
                        known.verified.popitem(last=False)
                else:
                    self._failures.take(address)
                    if self._failures.wait_s(address):
                        log.warning("too many failed logins from %s", address)
                return found
        finally:
            del known.in_hand[digest]

    async def _verify(self, accounts: Accounts, given: bytes) -> User | Refusal:
        scheme, _, value = given.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            right = bool(self._token) and hmac.compare_digest(value.strip(), self._token)
            return OPERATOR if right else "wrong_token"
        try:
            name, colon, password = b64decode(value.strip(), validate=True).partition(b":")
        except ValueError:
            colon = b""
        if scheme.lower() != b"basic" or not colon:
            return "malformed"
        if not accounts:
            return "unknown_user"
        account = accounts.get(name.decode("utf-8", "replace"))
        # A name that is not there costs as much as one that is: it is tried on somebody, always the same.
        other = list(accounts.values())[int.from_bytes(self._digest(name)) % len(accounts)]
        right = await asyncio.to_thread(is_password, (account or other).hash, password)
        if account is None:
            return "unknown_user"
        return User(account.name, frozenset(account.orgs)) if right else "wrong_password"

    def _digest(self, secret: bytes) -> bytes:
        return hmac.digest(self._key, secret, "sha256")

    def _look(self) -> None:
        """Take the users anew, and forget what was verified, if the file has changed."""
        if self._file is None or self._clock() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = self._clock()
        stamp = self._stamp()
        if stamp == self._known.stamp:
            return
        try:
            self._known = _Known(read_users(self._file), stamp)
        except UsersError as error:
            self._known.stamp = stamp
            log.error("%s; the users of before stay", error)  # noqa: TRY400 - the line says it all
        else:
            log.info("users file %s: %d users", self._file, len(self._known.accounts))

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._file or "")
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino


def address_of(host: str) -> str:
    """Whose failed logins are counted together: an IPv4 address, or the /64 of an IPv6 one, which has one owner."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
