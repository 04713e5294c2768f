"""Links in messages: GET shows what will happen and changes nothing, POST does it (domain section 7, RFC 8058).

Whoever holds a token may use it; there are no other credentials here, no cookies and no redirects.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from schemas.base import format_instant
from streams.config import Config
from streams.domain.keys import customer_key
from streams.domain.orgs import Org
from streams.domain.state import decode_state
from streams.engine.outputs import RefusedError
from streams.http.intake import Intake
from streams.http.limits import Limiter, retry_after
from streams.http.owners import Owners
from streams.http.pages import HEADERS, accepted, action_page, fault_page, language_of
from streams.links import Link, LinkError, Links, secret_of

log = logging.getLogger(__name__)

#: RFC 8058: what a mail program posts for its user.
ONE_CLICK = ("List-Unsubscribe", "One-Click")
#: A BCP 47 tag, as events take it.
_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}")
#: Field of our own form: the language of the page on which the button was pressed.
_SHOWN_IN = "shown_in"
_FIELD_BYTES = 1_024
#: Kafka is waited for this long; who presses again after that does no harm.
PATIENCE_S = 10.0
#: One link is good for so many presses at once, then for one in so many seconds: the log keeps each for ever.
BURST, EVERY_S = 10, 10.0
#: Links whose presses are counted.
LINKS = 10_000

_READ: dict[int | str, dict[str, object]] = {
    404: {"description": "The token is not ours", "content": {"text/html": {}}},
    410: {"description": "The token has expired", "content": {"text/html": {}}},
}
_WRITE = _READ | {
    400: {"description": "One-Click for a link that does not opt out", "content": {"text/plain": {}}},
    429: {"description": "This link is used too often", "content": {"text/html": {}}},
    503: {"description": "Kafka does not take the event now", "content": {"text/html": {}}},
}


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class LinkPages:
    """Routes under `/u/`. `clock` gives milliseconds since the epoch. Raises ConfigError for a secret that is none."""

    def __init__(self, config: Config, owners: Owners, intake: Intake, clock: Callable[[], int] = now_ms) -> None:
        self._links = Links(secret_of(config))
        self._owners = owners
        self._intake = intake
        self._clock = clock
        self._presses = Limiter(1 / EVERY_S, BURST, LINKS)

    def router(self) -> APIRouter:
        """The routes, to be included in the worker's."""
        router = APIRouter(tags=["links"], default_response_class=HTMLResponse)
        at = "/u/{token}"
        router.add_api_route(at, self.show, methods=["GET"], summary="What a link will do", responses=_READ)
        router.add_api_route(at, self.show, methods=["HEAD"], include_in_schema=False)
        router.add_api_route(at, self.act, methods=["POST"], summary="Use a link", responses=_WRITE)
        return router

    async def show(self, token: str, request: Request) -> Response:
        """The page with the button. Only the customer's owner knows the customer's language, so it is asked first."""
        try:
            link = self._links.read(token, self._clock())
        except LinkError as error:
            return _refused(error, request)
        number = self._owners.number_of(customer_key(link.org_id, link.customer_id))
        found = self._owners.here(number)
        if found is None:
            answer = await self._owners.pass_on(number, request)
            if answer.status_code == 200:
                answer.headers.update(HEADERS)
                return answer
        else:
            try:
                await asyncio.wait_for(self._owners.catch_up(found), PATIENCE_S)
            except TimeoutError:
                log.warning("a link's page shows what was known before Kafka went silent")
        return self._page(link, request, done=False)

    async def act(self, token: str, request: Request) -> Response:
        """The button, or a mail program's one click. Written here, whoever owns the customer: it needs no state."""
        form = await _form(request)
        at = self._clock()
        try:
            link = self._links.read(token, at)
        except LinkError as error:
            return _refused(error, request)
        one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        if one_click and link.action != "OPTOUT":
            return PlainTextResponse("This link does not unsubscribe; open it instead.\n", 400, headers=HEADERS)
        wait_s = self._presses.take(token)
        if wait_s or not await self._write(link, event_of(link, token, at, _named_language(request))):
            language = language_of([form.get(_SHOWN_IN), *_wishes(request, link)])
            return fault_page("later", language, 429 if wait_s else 503, retry_after(wait_s))
        if one_click:
            return PlainTextResponse("You have unsubscribed.\n", headers=HEADERS)
        return self._page(link, request, done=True, shown_in=form.get(_SHOWN_IN))

    async def _write(self, link: Link, event: dict[str, object]) -> bool:
        """Whether the event is in the log. An unknown org or customer is the stream's business, not the caller's."""
        # Not cancelled when the time is up: the event may be on its way.
        writing = asyncio.ensure_future(self._intake.publish(link.org_id, link.customer_id, [event]))
        try:
            await asyncio.wait_for(asyncio.shield(writing), PATIENCE_S)
        except (TimeoutError, RefusedError) as error:
            log.warning("a link's event %s is not written: %r", event["event_id"], error)
            return False
        return True

    def _page(self, link: Link, request: Request, *, done: bool, shown_in: str | None = None) -> Response:
        org, customers = self._known(link)
        default = org.settings.default_language if org else None
        language = language_of([shown_in, *_wishes(request, link), customers, default])
        return action_page(link, org, language, done=done)

    def _known(self, link: Link) -> tuple[Org | None, str | None]:
        """The org's settings, which every partition holds, and the customer's language, which only its home does."""
        key = customer_key(link.org_id, link.customer_id)
        home = self._owners.here(self._owners.number_of(key))
        if home is None:
            orgs = (partition.org(link.org_id) for partition in self._owners.all_here())
            return next((org for org in orgs if org is not None), None), None
        state = decode_state(home.states([key])[key])
        return home.org(link.org_id), state.about.get("l") if state else None


def event_of(link: Link, token: str, at_ms: int, language: str | None) -> dict[str, object]:
    """What using a link means, for `consent.changes`. `language`: one that the request names beside the token's.

    An opt-in or verification has one id per token, so that the stream takes it once: pressed again after a later
    opt-out, an old link must not undo that. An opt-out has one per press: a repeated one harms nobody, and
    pressed again after a new opt-in it must count.
    """
    occurred_at = format_instant(at_ms)
    seed = f"{token} {occurred_at}" if link.action == "OPTOUT" else token
    event: dict[str, object] = {
        "event": "consent.verified" if link.action == "VERIFY" else "consent.changed",
        "event_id": f"link-{hashlib.sha256(seed.encode()).hexdigest()[:32]}",
        "org_id": link.org_id,
        "customer_id": link.customer_id,
        "source": link.source,
        "account_id": link.account_id,
        "channel": link.channel,
        "priority": link.priority,
        "org_unit_id": link.org_unit_id,
        "occurred_at": occurred_at,
    }
    if link.action == "VERIFY":
        return event | {"verifies": link.verifies}
    event |= {"type": link.action, "origin": "EMAIL_LINK"}
    language = language or link.language
    return event | {"language": language} if language else event


def _refused(error: LinkError, request: Request) -> Response:
    return fault_page(error.reason, language_of(_wishes(request)), {"expired": 410, "invalid": 404}[error.reason])


def _named_language(request: Request) -> str | None:
    """`?lang=`, if it is a language's tag."""
    named = request.query_params.get("lang", "")
    return named if _TAG.fullmatch(named) else None


def _wishes(request: Request, link: Link | None = None) -> list[str | None]:
    """The languages that a request asks for, the strongest wish first."""
    wanted = accepted(request.headers.get("accept-language", ""))
    return [_named_language(request), link.language if link else None, *wanted]


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form; none of what is too large or no form: without them a POST is the button all the same."""
    try:
        async with request.form(max_files=0, max_fields=8, max_part_size=_FIELD_BYTES) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    except HTTPException:
        return {}
