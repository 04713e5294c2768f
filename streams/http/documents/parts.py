"""What the operations are made of: parameters, bodies, and what several of them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.answers import Problem
from schemas.base import INT64_MAX
from schemas.subscriptions import SubscriptionRefusal
from streams.http.documents import examples
from streams.http.repeats import MOST_CHARACTERS

JSON = ("application/json",)
TEXT, HTML = ("text/plain",), ("text/html",)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `where` is path, query or header."""

    name: str
    where: str
    description: str
    schema: dict[str, Any]
    example: Any
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A body: of an answer, or of a request. Several models: one of them; none: text, or what `schema` says."""

    description: str
    example: Any
    models: tuple[Any, ...] = ()
    media: tuple[str, ...] = JSON
    schema: dict[str, Any] | None = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `open`: it asks for no credentials."""

    id: str
    tag: str
    summary: str
    description: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Answer | None = None
    open: bool = False


def problem(description: str, detail: str, **more: Any) -> Answer:
    return Answer(description, {"detail": detail, **more}, (Problem,))


def refused(description: str, code: int, message: str) -> Answer:
    return Answer(description, examples.refusal(code, message), (SubscriptionRefusal,))


#: What `Access` may answer in place of any operation that is not open.
GUARDED: dict[int, Answer] = {
    401: problem("No credentials, or wrong ones", "wrong credentials: a user of the users file, or Authorization: "
                  "Bearer <CONSENT_HTTP_TOKEN>"),
    429: problem("Too many requests of this user, or failed logins from this address",
                  "too many requests from this user (rate_limit)"),
    503: problem("Not now: the partition is being moved or restored, or too many logins wait",
                  "partition 3 is being moved or restored"),
}  # fmt: skip
FOREIGN = problem("The user may not act for this org, be it known or not", "this user may not act for org 100")
NO_ORG = problem("The org has no settings", "no settings are in force for org 100")
LARGE = problem("The body is too large", "the body is larger than 1048576 bytes (max_body_bytes)")
UNREADABLE = problem(
    "The body cannot be read; `code` is that of a dead letter", "channel: Field required", code="invalid_field"
)
MISUSED = problem("A parameter is missing or wrong", "org_id: Input should be a valid integer")
INT64 = {"type": "integer", "format": "int64", "minimum": -INT64_MAX - 1, "maximum": INT64_MAX}
ORG = Parameter("org_id", "path", "The org", INT64, 100, required=True)
CUSTOMER = Parameter(
    "customer_id", "path", "The customer's id in the org; a slash in it may be written as it is or as %2F",
    {"type": "string", "minLength": 1, "maxLength": 128}, "565039505", required=True,
)  # fmt: skip
TOKEN = Parameter(
    "token", "path", "The signed token, as `consent-streams link` or a message gives it",
    {"type": "string", "minLength": 1}, "WzEsMTAwXQ.c2ln", required=True,
)  # fmt: skip
LANGUAGE = Parameter("lang", "query", "Language of the page, before all others", {"type": "string"}, "de")
ACCEPTED = Parameter(
    "Accept-Language", "header", "Languages that the browser prefers", {"type": "string"}, "de-AT,de;q=0.9,en;q=0.5"
)
WHICH_ORG = (
    Parameter("org_id", "query", "The org; needed where it is not clear from the credentials or there being only one; "
              "stronger than the header X-Org-Id", INT64, 100),
    Parameter("X-Org-Id", "header", "The org, if the query does not name it", INT64, 100),
)  # fmt: skip
ONCE = Parameter(
    "Idempotency-Key", "header", "The same key with the same request gives the same answer and no second event",
    {"type": "string", "minLength": 1, "maxLength": MOST_CHARACTERS}, "b6c9a1de-0001",
)  # fmt: skip
SOURCE = Parameter(
    "source", "query", "Source of entries that name none; else that of the org's default profile",
    {"type": "string"}, "FACEBOOK",
)  # fmt: skip
KINDS = ["id", "mobile", "email", "external_id", "externalId", "phone"]
IDENTIFIER = (
    Parameter("identifierName", "query", "Kind of the identifier, in any case",
              {"type": "string", "enum": KINDS}, "mobile", required=True),
    Parameter("identifierValue", "query", "The identifier; mobile numbers in E.164, or as dialled in the org's region",
              {"type": "string", "minLength": 1}, "+15550100505", required=True),
    Parameter("accountId", "query", "Taken and not weighed: each entry names its account", {"type": "string"}, "01"),
)  # fmt: skip
