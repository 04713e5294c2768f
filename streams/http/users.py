"""The file of the users who may use HTTP: one JSON object a line, with a name, the orgs and an argon2 hash."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import orjson
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from schemas.base import Int64
from schemas.settings import faults_of

#: What OWASP recommends for argon2id: as dear to guess as it has to be, and small beside what a worker holds.
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_ARGON2ID = re.compile(r"\$argon2id\$v=19\$m=\d{1,7},t=\d{1,3},p=\d{1,2}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}")
MAX_PASSWORD = 1_024


class UsersError(Exception):
    """The users file, a name or a password cannot be used; the message is one clear line."""


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", name):
        raise ValueError("1 to 64 letters, digits and . _ @ -, the first a letter or digit")
    return name


def _hash(text: str) -> str:
    if not _ARGON2ID.fullmatch(text):
        raise ValueError("no argon2id hash; `consent-streams users add --replace` makes one")
    return text


class Account(BaseModel):
    """One user: who may act for these orgs with the password of this hash."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_name)]
    orgs: Annotated[list[Int64], Field(min_length=1)]
    hash: Annotated[str, AfterValidator(_hash)]


Accounts = dict[str, Account]


def make_account(name: str, orgs: list[int], password: str) -> Account:
    """A user with a fresh hash; takes tens of milliseconds of CPU. Raises UsersError."""
    if not password:
        raise UsersError("the password is empty")
    if len(password) > MAX_PASSWORD or not password.isprintable():
        raise UsersError(f"the password has to be one line of at most {MAX_PASSWORD} printable characters")
    try:
        return Account(name=name, orgs=sorted(set(orgs)), hash=HASHER.hash(password))
    except ValidationError as error:
        raise UsersError(_faults(error)) from None


def is_password(hashed: str, password: bytes) -> bool:
    """Whether it is the password of this hash; takes tens of milliseconds of CPU, without the interpreter's lock."""
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def read_users(file: Path) -> Accounts:
    """The users by name, in the order of the file. Raises UsersError that names the line and the field."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UsersError(f"users file {file}: {error.strerror}") from None
    accounts: Accounts = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        account = _account(line, f"users file {file}, line {number}")
        if account.name in accounts:
            raise UsersError(f"users file {file}, line {number}: name: {account.name} is there twice")
        accounts[account.name] = account
    return accounts


def _account(line: bytes, place: str) -> Account:
    try:
        return Account.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise UsersError(f"{place}: no JSON: {error.msg} at column {error.colno}") from None
    except ValidationError as error:
        raise UsersError(f"{place}: {_faults(error)}") from None


def _faults(error: ValidationError) -> str:
    return "; ".join(fault.replace("Value error, ", "") for fault in faults_of(error))


@contextmanager
def changing(file: Path) -> Iterator[Accounts]:
    """The users, to be changed in the block and then written: a reader finds the old file or the new one, whole.

    Whoever changes the file at the same time waits. A file that is missing has no users. Raises UsersError.
    """
    file = file.resolve()
    try:
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            accounts = read_users(file) if file.exists() else {}
            yield accounts
            _write(file, accounts)
        finally:
            os.close(folder)
    except OSError as error:
        raise UsersError(f"users file {file}: {error.strerror}") from None


def _write(file: Path, accounts: Accounts) -> None:
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.writelines(orjson.dumps(account.model_dump()) + b"\n" for account in accounts.values())
            out.flush()
            os.fsync(descriptor)
            with suppress(OSError):  # root changes the file of the worker's user, who has to be able to read it
                os.fchown(descriptor, file.stat().st_uid, file.stat().st_gid)
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise
