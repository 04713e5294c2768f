"""Pages behind links, over HTTP within this process: a partition in memory, and a list in place of the log."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from html import unescape
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import format_instant
from schemas.events import EVENTS
from schemas.settings import OrgSettings
from streams.config import Config
from streams.domain.keys import customer_key, settings_key
from streams.domain.state import ERASED, REGISTERED, State
from streams.engine.outputs import RefusedError
from streams.engine.partition import Partition
from streams.http import links as http_links
from streams.http.links import LinkPages
from streams.http.owners import Owners
from streams.http.pages import LAST_RESORT, TEXTS, accepted, language_of
from streams.links import Link, Links
from tests.memory import Memory

SECRET = "a secret of the tests"  # noqa: S105
NOW = 1_795_254_259_123
NORTH, NAMELESS = 1001, 1002
ORG = {
    "org_id": 7,
    "version": 1,
    "name": "Example Retail",
    "default_language": "fr",
    "org_units": [{"id": NORTH, "name": "North"}, {"id": NAMELESS}],
}
OPTOUT = Link(7, "c", "WEB_ENGAGE", "01", "EMAIL", "BULK", -1, "OPTOUT", NOW)
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
#: Nobody listens on the port for discarding.
NOWHERE = "http://127.0.0.1:9"


def changed(link: Link, **fields: Any) -> Link:
    return Link(**{name: getattr(link, name) for name in Link.__slots__} | fields)


OPTIN = changed(OPTOUT, action="OPTIN")
VERIFY = changed(OPTOUT, action="VERIFY", verifies="e-1")


class Desk:
    """The routes of a worker that holds partition 0 of `partitions`, and what they wrote."""

    def __init__(self, partitions: int = 1, languages: dict[str, str] | None = None, **org: Any) -> None:
        self.written: list[dict[str, Any]] = []
        self.now = NOW
        self.refuse = False
        self.config = Config(link_secret=SECRET, partitions=partitions)
        store = Memory()
        settings = OrgSettings.model_validate(ORG | org)
        store.values[settings_key(settings.org_id)] = settings.model_dump_json().encode()
        for customer, language in (languages or {}).items():
            state = State(REGISTERED)
            state.update(l=language)
            store.values[customer_key(settings.org_id, customer)] = state.encode()
        store.values[customer_key(settings.org_id, "erased")] = State(ERASED).encode()

        async def find_ends(numbers: set[int], on_end: Callable[[int, int], None]) -> None:
            for number in numbers:
                on_end(number, 0)

        engine = SimpleNamespace(partitions={0: Partition(0, store)}, find_ends=find_ends)  # type: ignore[arg-type]
        owners = Owners(self.config, engine, lambda _: NOWHERE)  # type: ignore[arg-type]
        self._app = FastAPI()
        pages = LinkPages(self.config, owners, self, lambda: self.now)  # type: ignore[arg-type]
        self._app.include_router(pages.router())

    async def publish(self, org_id: int, customer_id: str, events: list[dict[str, Any]]) -> None:
        """In place of Intake's: the events are in the log, unless the broker is told to refuse them."""
        if self.refuse:
            raise RefusedError("the broker refuses")
        for event in events:
            assert (event["org_id"], event["customer_id"]) == (org_id, customer_id)
            EVENTS[event["event"]].validate_python(orjson.loads(orjson.dumps(event)))
        self.written += events

    def call(self, method: str, link: Link | str, query: str = "", **request: Any) -> httpx.Response:
        token = link if isinstance(link, str) else Links(SECRET).token(link)

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
                return await client.request(method, f"/u/{token}{query}", **request)

        return asyncio.run(ask())

    def get(self, link: Link | str, query: str = "", **headers: str) -> httpx.Response:
        return self.call("GET", link, query, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def post(self, link: Link | str, query: str = "", **request: Any) -> httpx.Response:
        return self.call("POST", link, query, **request)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def language(page: httpx.Response) -> str:
    found = re.search(r'<html lang="(\w+)" dir="(\w+)">', page.text)
    assert found
    assert found[2] == ("rtl" if found[1] == "ar" else "ltr")
    assert page.headers["content-language"] == found[1]
    return found[1]


# --- GET and HEAD ------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [OPTOUT, OPTIN, VERIFY], ids=lambda link: link.action)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_changes_nothing(desk: Desk, method: str, link: Link) -> None:
    answer = desk.call(method, link, "?lang=en", data=ONE_CLICK)
    assert answer.status_code == 200
    assert desk.written == []


@pytest.mark.parametrize(("unit", "scope"), [(-1, "The whole company"), (NORTH, "North"), (NAMELESS, str(NAMELESS))])
@pytest.mark.parametrize(("priority", "kind"), [("BULK", "Promotional messages"), ("TRANS", "Transactional messages")])
def test_the_page_says_what_will_happen(desk: Desk, unit: int, scope: str, priority: str, kind: str) -> None:
    page = desk.get(changed(OPTOUT, org_unit_id=unit, priority=priority, channel="WHATSAPP"), "?lang=en")
    seen = re.findall(r"<(?:h1|bdi|button type=\"submit\")>([^<]*)<", page.text)
    assert seen == ["Example Retail", "Unsubscribe", kind, "WhatsApp", scope, "Unsubscribe"]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "A & B \"quoted\" 'co'", "{{ 7 * 7 }}", "</title><b>"])
def test_names_are_text_whatever_is_in_them(name: str) -> None:
    desk = Desk(name=name, org_units=[{"id": NORTH, "name": name}])
    for page in (desk.get(changed(OPTOUT, org_unit_id=NORTH)), desk.post(changed(OPTOUT, org_unit_id=NORTH))):
        assert page.text.count("<script") == page.text.count("<b>") == 0
        assert [unescape(text) for text in re.findall(r"<bdi>(.*)</bdi>", page.text)].count(name) == 2
        assert len(re.findall("<title>", page.text)) == len(re.findall("</title>", page.text)) == 1


@pytest.mark.parametrize(
    ("method", "token", "now"),
    [("GET", OPTOUT, NOW), ("POST", OPTOUT, NOW), ("GET", OPTOUT, NOW + 1), ("GET", "x", NOW)],
)
def test_pages_are_not_stored_found_or_framed_and_load_nothing(
    desk: Desk, method: str, token: Link | str, now: int
) -> None:
    desk.now = now
    page = desk.call(method, token)
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-robots-tag"] == "noindex"
    assert page.headers["x-frame-options"] == "DENY"
    assert "set-cookie" not in page.headers
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    (style,) = re.findall(r"<style>(.*)</style>", page.text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert not re.search(r"<script|<link|<img|\bsrc=|\bhref=|url\(|@import|\bon\w+=| style=", page.text)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page.text


# --- the language ------------------------------------------------------------------------------------


def test_the_first_language_that_is_translated_wins_from_the_request_down_to_the_org() -> None:
    desk = Desk(languages={"c": "it-CH"})
    spanish = changed(OPTOUT, language="es")
    assert language(desk.get(spanish, "?lang=ja", accept_language="de")) == "ja"
    assert language(desk.get(spanish, "?lang=tlh", accept_language="de")) == "es"
    assert language(desk.get(spanish, accept_language="de")) == "es"
    assert language(desk.get(OPTOUT, accept_language="tlh, nl;q=0.3, de;q=0.7")) == "de"
    assert language(desk.get(OPTOUT, accept_language="tlh")) == "it"
    assert language(desk.get(changed(OPTOUT, customer_id="nobody"))) == "fr"
    assert language(Desk(default_language="tlh").get(OPTOUT)) == LAST_RESORT == "en"


def test_who_is_unknown_or_erased_and_an_org_without_settings_have_the_same_page(desk: Desk) -> None:
    known = Desk(languages={"c": "fr"}).get(OPTOUT).text
    for customer in ("nobody", "erased"):
        link = changed(OPTOUT, customer_id=customer)
        assert desk.get(link).text == known
        assert desk.post(link).status_code == 200
    strange = changed(OPTOUT, org_id=8)
    assert "Unsubscribe" in desk.get(strange).text
    assert desk.post(strange).status_code == 200
    assert [event["org_id"] for event in desk.written] == [7, 7, 8]


def test_the_page_after_the_button_is_in_the_language_of_the_button_s_page(desk: Desk) -> None:
    page = desk.post(OPTOUT, data={"shown_in": "ar"}, headers={"Accept-Language": "de"})
    assert language(page) == "ar"
    assert "language" not in desk.written[0]


@pytest.mark.parametrize("partitions", [2, 3, 5])
def test_a_customer_whose_owner_does_not_answer_has_a_page_all_the_same(partitions: int) -> None:
    desk = Desk(partitions)
    away = next(
        changed(OPTOUT, customer_id=str(number))
        for number in range(100)
        if Owners.number_of(SimpleNamespace(_config=desk.config), customer_key(7, str(number)))  # type: ignore[arg-type]
    )
    page = desk.get(away)
    assert (page.status_code, language(page)) == (200, "fr")
    assert "Example Retail" in page.text
    assert desk.post(away).status_code == 200
    assert len(desk.written) == 1


@pytest.mark.parametrize(("header", "tags"), [
    ("de-AT,de;q=0.9, en;q=0.8", ["de-AT", "de", "en"]),
    ("en;q=0.5,de", ["de", "en"]),
    ("de;q=0,fr", ["fr"]),
    ("de;q=much,fr; q=0.1", ["fr"]),
    ("", []),
])  # fmt: skip
def test_accepted_languages_come_by_their_weight(header: str, tags: list[str]) -> None:
    assert [tag for tag in accepted(header) if tag] == tags


@given(st.text())
def test_no_header_breaks_it(header: str) -> None:
    assert language_of(accepted(header)) in TEXTS


def _shape(texts: Any) -> Any:
    return {name: _shape(text) for name, text in texts.items()} if isinstance(texts, dict) else None


@pytest.mark.parametrize("tag", TEXTS)
def test_every_language_has_every_text(tag: str) -> None:
    ours, english = TEXTS[tag], TEXTS["en"]
    assert set(english["channel"]) <= set(ours["channel"])
    assert _shape(ours | {"channel": {}}) == _shape(english | {"channel": {}})
    assert tag == "en" or ours["OPTOUT"]["ask"] != english["OPTOUT"]["ask"]


# --- POST --------------------------------------------------------------------------------------------


def test_the_button_opts_out_at_the_token_s_place(desk: Desk) -> None:
    link = changed(OPTOUT, org_unit_id=NORTH)
    page = desk.post(link, "?lang=en")
    assert page.status_code == 200
    assert "You have unsubscribed" in page.text
    assert "<form" not in page.text
    (event,) = desk.written
    assert event == {
        "event": "consent.changed",
        "event_id": event["event_id"],
        "org_id": 7,
        "customer_id": "c",
        "source": "WEB_ENGAGE",
        "account_id": "01",
        "channel": "EMAIL",
        "priority": "BULK",
        "org_unit_id": NORTH,
        "type": "OPTOUT",
        "origin": "EMAIL_LINK",
        "occurred_at": format_instant(NOW),
        "language": "en",
    }


def test_a_verification_names_the_pending_entry(desk: Desk) -> None:
    assert desk.post(VERIFY).status_code == 200
    (event,) = desk.written
    assert (event["event"], event["verifies"]) == ("consent.verified", "e-1")
    assert {"type", "origin", "language"}.isdisjoint(event)


@pytest.mark.parametrize(("link", "ids"), [(OPTIN, 1), (VERIFY, 1), (OPTOUT, 2)], ids=["OPTIN", "VERIFY", "OPTOUT"])
def test_pressed_later_again_only_an_opt_out_is_a_new_event(desk: Desk, link: Link, ids: int) -> None:
    link = changed(link, expires_at=NOW + 1)
    desk.post(link)
    desk.now += 1
    desk.post(link)
    desk.post(changed(link, customer_id="d"))
    assert len({event["event_id"] for event in desk.written[:2]}) == ids
    assert desk.written[2]["event_id"] not in {event["event_id"] for event in desk.written[:2]}


@pytest.mark.parametrize(("query", "own", "recorded"), [
    ("", None, None), ("", "de", "de"), ("?lang=hu", "de", "hu"), ("?lang=%3Cb%3E", "de", "de"), ("?lang=", None, None),
])  # fmt: skip
def test_the_event_has_a_language_only_if_the_request_or_the_token_names_one(
    desk: Desk, query: str, own: str | None, recorded: str | None
) -> None:
    desk.post(changed(OPTOUT, language=own), query, headers={"Accept-Language": "es"})
    assert desk.written[0].get("language") == recorded


MULTIPART = {"content": b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
             "headers": {"Content-Type": "multipart/form-data; boundary=b"}}  # fmt: skip


@pytest.mark.parametrize("body", [{"data": ONE_CLICK}, MULTIPART], ids=["urlencoded", "multipart"])
def test_one_click_of_a_mail_program_opts_out_and_answers_in_one_line(desk: Desk, body: dict[str, Any]) -> None:
    answer = desk.post(OPTOUT, **body)
    assert (answer.status_code, answer.text) == (200, "You have unsubscribed.\n")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "set-cookie" not in answer.headers
    assert [event["type"] for event in desk.written] == ["OPTOUT"]


@pytest.mark.parametrize("link", [OPTIN, VERIFY], ids=lambda link: link.action)
def test_one_click_never_opts_in(desk: Desk, link: Link) -> None:
    assert desk.post(link, data=ONE_CLICK).status_code == 400
    assert desk.written == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_token_that_is_expired_or_no_token_does_nothing_and_says_so(desk: Desk, method: str) -> None:
    desk.now += 1
    for token, status, text in ((OPTOUT, 410, "abgelaufen"), ("no-token", 404, "ungültig")):
        page = desk.call(method, token, headers={"Accept-Language": "de"})
        assert (page.status_code, language(page)) == (status, "de")
        assert text in page.text
    assert desk.written == []


def test_a_refused_event_is_never_called_done(desk: Desk) -> None:
    desk.refuse = True
    for body in ({"shown_in": "en"}, ONE_CLICK):
        answer = desk.post(OPTOUT, data=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "unsubscribed" not in answer.text


def test_a_link_that_is_pressed_without_end_does_not_fill_the_log(desk: Desk) -> None:
    answers = [desk.post(OPTOUT, data=ONE_CLICK) for _ in range(http_links.BURST + 3)]
    assert [answer.status_code for answer in answers] == [200] * http_links.BURST + [429] * 3
    assert answers[-1].headers["retry-after"] in {"9", "10"}
    assert len(desk.written) == http_links.BURST
    assert desk.post(changed(OPTOUT, customer_id="d")).status_code == 200


def test_a_silent_broker_is_not_waited_for_without_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*event: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(http_links, "PATIENCE_S", 0.05)
    monkeypatch.setattr(desk, "publish", never)
    assert desk.post(OPTOUT).status_code == 503


CONTENT_TYPES = [
    "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=nonsense", "text/plain",
    "multipart/form-data", "multipart/form-data; boundary=b", "multipart/form-data; boundary=b; charset=nonsense", "",
]  # fmt: skip
PIECES = [
    b"List-Unsubscribe", b"One-Click", b"=", b"&", b"%", b"%zz", b"\xff", b"--b", b"--b--", b"\r\n", b"\0", b";",
    b"a" * 2_000,
    b'Content-Disposition: form-data; name="List-Unsubscribe"', b'; filename="x"', b"x: " + b"y" * 9_000,
]  # fmt: skip


@given(st.sampled_from(CONTENT_TYPES), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join) | st.binary())
def test_no_body_breaks_it_and_none_keeps_an_opt_out_from_the_log(kind: str, body: bytes) -> None:
    desk = Desk()
    answer = desk.post(OPTOUT, content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200
    assert [event["type"] for event in desk.written] == ["OPTOUT"]


def test_a_body_of_many_megabytes_is_not_read(desk: Desk) -> None:
    read = 0

    async def body() -> Any:
        nonlocal read
        for _ in range(1_000):
            read += 1
            yield b"a" * 65_536

    answer = desk.post(OPTOUT, content=body(), headers={"Content-Type": CONTENT_TYPES[0]})
    assert (answer.status_code, len(desk.written)) == (200, 1)
    assert read < 10
