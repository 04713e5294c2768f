"""What customers are told, as the changes agent writes it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from schemas.notifications import NOTIFICATION
from streams.agents.changes import Changes
from streams.agents.notices import Notices
from streams.agents.writing import Scribe
from streams.domain.messages import keyword_of
from streams.engine.outputs import Outputs
from streams.engine.partition import Partition, View
from streams.engine.records import keys_of
from streams.kafka.records import Record
from streams.links import Link, LinkError, Links
from tests.memory import Memory
from tests.model.generate import BASE_MS
from tests.written import Message, by_place

Doc = dict[str, Any]

LINKS = Links("s3cret")
URL = "https://consent.example/"
DAY_MS = 86_400_000
WRITTEN_AT = BASE_MS + 4_321

TIME = {"occurred_at": "2026-11-21T10:00:00.000Z"}
INSTORE = {"source": "INSTORE", "account_id": "01", "channels": ["MOBILE", "EMAIL"]}
WEB = {"source": "WEB_ENGAGE", "account_id": "01", "channels": ["MOBILE", "EMAIL"]}
DOCUMENT: Doc = {
    "org_id": 100, "version": 1, "name": "Shop", "require_registration": False, "accounts": [INSTORE, WEB],
    "opt_in_types": [{"source": "WEB_ENGAGE", "type": "DOUBLE"}],
    "messages": [
        {"kind": "confirm_opt_out", "texts": {"en": "{org}: bye", "de": "{org}: tschüß"}},
        {"kind": "verify", "channel": "MOBILE", "texts": {"en": "{org}: reply {keyword} or see {link}"}},
    ],
}  # fmt: skip
CHANGE: Doc = {
    "event": "consent.changed", "event_id": "e-1", "org_id": 100, "customer_id": "c", "source": "INSTORE",
    "account_id": "01", "channel": "MOBILE", "priority": "BULK", "type": "OPTOUT", "org_unit_id": -1,
} | TIME  # fmt: skip
PENDING: Doc = CHANGE | {"source": "WEB_ENGAGE", "type": "OPTIN"}


def agent(notices: Notices | None, **written: set[int]) -> Changes:
    scribe = Scribe("consent.changes", 0, "p-")
    scribe.written = {f"consent.{name}": offsets for name, offsets in written.items()}
    return Changes(scribe, 1, 20_000, notices)


def outputs_of(agent: Changes, *events: Doc, **settings: Any) -> dict[tuple[str, int], list[Message]]:
    """What the agent writes of the settings at offset 0 and of the events from offset 1 on."""
    document = {"event": "settings.changed", "event_id": "s", "org_id": 100, "settings": DOCUMENT | settings} | TIME
    records = [Record(0, WRITTEN_AT, b"100:", orjson.dumps(document), [])]
    records += [Record(n, WRITTEN_AT, b"100:c", orjson.dumps(event), []) for n, event in enumerate(events, 1)]
    view, outputs = View(Partition(0, Memory()), keys_of(records)), Outputs()  # type: ignore[arg-type]
    for record in records:
        agent.apply(view, record, outputs)
    return by_place(outputs)


def notes(*events: Doc, **settings: Any) -> list[Doc]:
    """The notifications that the events cause."""
    found = outputs_of(agent(Notices(LINKS, URL)), *events, **settings)
    assert len(found["p-consent.audit", 0]) == len(events) + 1, "every event has its audit all the same"
    bodies = [orjson.loads(value or b"") for _, value, _ in found.get(("p-consent.notifications", 0), [])]
    for body in bodies:
        NOTIFICATION.validate_python(body)
    return bodies


def test_a_confirmation_is_written_in_full_under_the_records_key_and_names_it() -> None:
    found = outputs_of(agent(Notices(LINKS, URL)), CHANGE | {"language": "de"})
    ((key, value, headers),) = found["p-consent.notifications", 0]
    assert key == b"100:c"
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"consent.notification"),
        ("ce_source", b"consent-streams/notifications"),
        ("content-type", b"application/json"),
        ("ce_id", b"consent.changes/0/1"),
    ]
    assert value is not None
    assert b"\n" not in value
    body = orjson.loads(value)
    assert NOTIFICATION.validate_python(body)
    assert list(body) == list(NOTIFICATION.json_schema()["properties"])
    assert body.pop("notification_id")
    assert body == {
        "kind": "confirm_opt_out", "org_id": 100, "customer_id": "c", "channel": "MOBILE", "source": "INSTORE",
        "account_id": "01", "priority": "BULK", "org_unit_id": -1, "language": "de", "text": "Shop: tschüß",
        "event_id": "e-1", "position": {"partition": 0, "offset": 1}, "token": None, "link": None, "keyword": None,
        "expires_at": None,
    }  # fmt: skip


def test_a_verification_holds_a_token_that_verifies_this_entry_until_its_time_is_up() -> None:
    (body,) = notes(PENDING | {"language": "de"})
    expires = WRITTEN_AT + 7 * DAY_MS
    assert LINKS.read(body["token"], expires) == Link(
        org_id=100, customer_id="c", source="WEB_ENGAGE", account_id="01", channel="MOBILE", priority="BULK",
        org_unit_id=-1, action="VERIFY", expires_at=expires, verifies="e-1", language="de",
    )  # fmt: skip
    with pytest.raises(LinkError, match="expired"):
        LINKS.read(body["token"], expires + 1)
    assert NOTIFICATION.validate_python(body)["expires_at"] == expires
    assert body["link"] == f"https://consent.example/u/{body['token']}"
    assert body["keyword"] == keyword_of(100, "c", "e-1")
    assert body["text"] == f"Shop: reply {body['keyword']} or see {body['link']}"


def test_the_org_says_how_long_a_verification_is_good_for() -> None:
    (body,) = notes(PENDING, verification_ttl_ms=DAY_MS)
    assert NOTIFICATION.validate_python(body)["expires_at"] == WRITTEN_AT + DAY_MS


def test_only_what_can_be_replied_to_has_a_keyword() -> None:
    (body,) = notes(PENDING | {"channel": "EMAIL"})
    assert body["keyword"] is None
    assert body["text"] == f"Shop: please confirm that you want to receive our messages: {body['link']}"


def test_a_pending_opt_in_is_asked_for_even_by_an_org_without_messages() -> None:
    assert [note["kind"] for note in notes(PENDING, CHANGE | {"event_id": "e-2"}, messages=[])] == ["verify"]


def test_each_of_many_records_causes_its_own_message_and_a_repeat_causes_none() -> None:
    verified = PENDING | {"event": "consent.verified", "event_id": "e-3", "verifies": "e-1"}
    welcome = {"kind": "confirm_opt_in", "texts": {"en": "{org}: welcome"}}
    found = notes(PENDING, PENDING, CHANGE | {"event_id": "e-2"}, verified, messages=[*DOCUMENT["messages"], welcome])
    assert [(note["kind"], note["event_id"], note["position"]["offset"]) for note in found] == [
        ("verify", "e-1", 1),
        ("confirm_opt_out", "e-2", 3),
        ("confirm_opt_in", "e-3", 4),
    ]
    assert len({note["notification_id"] for note in found}) == 3


def test_the_same_record_always_causes_the_same_bytes() -> None:
    first, second = (outputs_of(agent(Notices(LINKS, URL)), PENDING, CHANGE) for _ in range(2))
    assert first == second


def test_what_a_restart_found_written_is_not_written_again_each_output_by_itself() -> None:
    found = outputs_of(agent(Notices(LINKS, URL), notifications={1}), PENDING, CHANGE | {"event_id": "e-2"})
    assert len(found["p-consent.audit", 0]) == 3
    assert [orjson.loads(value or b"")["event_id"] for _, value, _ in found["p-consent.notifications", 0]] == ["e-2"]
    found = outputs_of(agent(Notices(LINKS, URL), audit={0, 1, 2}), PENDING, CHANGE | {"event_id": "e-2"})
    assert list(found) == [("p-consent.notifications", 0)]
    assert len(found["p-consent.notifications", 0]) == 2


def test_records_that_are_replayed_to_explain_a_decision_tell_customers_nothing() -> None:
    assert set(outputs_of(agent(None), PENDING, CHANGE | {"event_id": "e-2"})) == {("p-consent.audit", 0)}


@pytest.mark.parametrize("url", ["https://consent.example", "https://consent.example/", "https://x.example/a/b//"])
def test_a_link_has_one_slash_behind_the_address(url: str) -> None:
    found = outputs_of(agent(Notices(LINKS, url)), PENDING)
    ((_, value, _),) = found["p-consent.notifications", 0]
    body = orjson.loads(value or b"")
    assert body["link"] == f"{url.rstrip('/')}/u/{body['token']}"


def test_the_largest_message_that_settings_allow_can_be_written() -> None:
    from streams.topics import OUTPUT_BYTES

    most = "\x01" * 128
    event = PENDING | {"event_id": most, "customer_id": most, "language": "\x01" * 35}
    record = Record(1, WRITTEN_AT, f"100:{most}".encode(), orjson.dumps(event), [])
    settings = DOCUMENT | {"name": "\x01" * 9_000, "messages": [{"kind": "verify", "texts": {"en": "{link}" * 333}}]}
    document = {"event": "settings.changed", "event_id": "s", "org_id": 100, "settings": settings} | TIME
    records = [Record(0, WRITTEN_AT, b"100:", orjson.dumps(document), []), record]
    writer = Changes(Scribe("consent.changes", 0, ""), 1, 200_000, Notices(LINKS, URL))
    view, outputs = View(Partition(0, Memory()), keys_of(records)), Outputs()  # type: ignore[arg-type]
    for one in records:
        writer.apply(view, one, outputs)
    ((_, value, _),) = by_place(outputs)["consent.notifications", 0]
    assert value is not None
    assert len(value) < OUTPUT_BYTES / 2
