"""The texts of messages: what a settings document may say, and in which language a customer is written to."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.messages import PLACEHOLDERS, MessageKind, in_language, text_faults
from schemas.settings import OrgSettings, faults_of
from tests.schemas.samples import SETTINGS, Doc

NORTH = 200031782
KINDS: tuple[MessageKind, ...] = get_args(MessageKind)


def entry(text: str = "Welcome to {org}", **changes: Any) -> Doc:
    return {"kind": "confirm_opt_in", "texts": {"en": text}} | changes


def faults(*messages: Any, **changes: Any) -> list[str]:
    try:
        OrgSettings.model_validate(copy.deepcopy(SETTINGS) | {"messages": list(messages)} | changes)
    except ValidationError as error:
        return faults_of(error)
    return []


def test_texts_of_every_kind_and_place_are_accepted_and_kept_with_what_is_not_known() -> None:
    messages = [
        entry("{org} {org_unit} {channel}", source="INSTORE", account_id="01", channel="EMAIL", org_unit_id=NORTH),
        entry(org_unit_id=-1),
        entry("Bye", kind="confirm_opt_out", not_known=1),
        entry("{link}", kind="verify"),
        entry("{keyword}, {{once}}", kind="verify", channel="MOBILE"),
    ]
    assert faults(*messages) == []
    read = OrgSettings.model_validate(SETTINGS | {"messages": messages})
    assert OrgSettings.model_validate_json(read.model_dump_json()) == read
    assert read.model_dump()["messages"][2]["not_known"] == 1
    assert read.verification_ttl_ms == 7 * 86_400_000


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (entry(kind="verified"), "messages[0].kind: "),
        (entry(texts={"en": ""}), "messages[0].texts.en: "),
        (entry(texts={"en": "x" * 2001}), "messages[0].texts.en: "),
        (entry(texts={"en": 5}), "messages[0].texts.en: "),
        ({"kind": "verify"}, "messages[0].texts: "),
        ("Hello", "messages[0]: "),
        (entry(channel="FAX"), "messages[0].channel: "),
        (entry(org_unit_id=7), "messages[0].org_unit_id: no org unit has the id 7"),
        (entry(source="TMALL"), "messages[0].source: no account TMALL"),
        (entry(account_id="99"), "messages[0].account_id: no account of any source 99"),
        (
            entry(source="INSTORE", account_id="01", channel="LINE"),
            "messages[0].channel: INSTORE 01 is not mapped to LINE",
        ),
        (entry("{name}"), "messages[0].texts.en: {name} is none of {org}, {org_unit}, {channel}"),
        (entry("{link}"), "messages[0].texts.en: {link} is none of {org}, {org_unit}, {channel}"),
        (entry("{}"), "messages[0].texts.en: {} is none of "),
        (entry("{0}"), "messages[0].texts.en: {0} is none of "),
        (entry("{org.__class__}"), "messages[0].texts.en: {org.__class__} is none of "),
        (entry("{org!r:>9}"), "messages[0].texts.en: {org!r:>9} is none of "),
        (entry("a {org"), "messages[0].texts.en: a single { at character 3; a brace is written {{"),
        (entry("a }"), "messages[0].texts.en: a single } at character 3; a brace is written }}"),
        (entry(kind="verify"), "messages[0].texts.en: without {link} or {keyword} nobody can verify"),
        (entry("{{link}}", kind="verify"), "messages[0].texts.en: without {link} or {keyword} nobody can verify"),
        (entry("{keyword}", kind="verify"), "messages[0].texts.en: {keyword} is for entries of channel MOBILE"),
        (
            entry("{link} {keyword}", kind="verify", channel="EMAIL"),
            "messages[0].texts.en: {keyword} is for entries of channel MOBILE",
        ),
        (entry(texts={"en": "a", "EN": "b"}), "messages[0].texts.EN: the same language as en"),
        (entry(texts={}), "messages[0].texts: none in the default language (en) or in English (en)"),
        (entry(texts={"de": "Hallo"}), "messages[0].texts: none in the default language (en) or in English (en)"),
    ],
)
def test_a_fault_of_a_message_is_named_by_its_path(message: Any, fault: str) -> None:
    (found,) = faults(message)
    assert found.startswith(fault)


def test_a_place_is_given_once_for_each_kind() -> None:
    twice = [entry(channel="EMAIL"), entry("Bye", kind="confirm_opt_out", channel="EMAIL"), entry(channel="EMAIL")]
    assert faults(*twice) == [
        "messages[2]: confirm_opt_in any any EMAIL any is already given by messages[0]",
    ]


def test_every_fault_of_every_text_is_listed() -> None:
    texts = {"en": "{a} {b} }", "de": "{"}
    assert [fault.split(": ")[0] for fault in faults(entry(texts=texts), entry("{c}", channel="EMAIL"))] == [
        "messages[0].texts.en", "messages[0].texts.en", "messages[0].texts.en", "messages[0].texts.de",
        "messages[1].texts.en",
    ]  # fmt: skip


@pytest.mark.parametrize("texts", [{"pt": "Olá"}, {"PT-br": "Olá"}, {"EN": "Hello"}, {"en": "Hello"}])
def test_a_text_in_the_default_language_or_in_english_is_enough_however_the_tag_is_written(texts: Doc) -> None:
    assert faults(entry(texts=texts), default_language="pt-BR") == []


def test_a_more_special_language_than_the_default_is_not_enough() -> None:
    assert len(faults(entry(texts={"pt-BR": "Olá"}), default_language="pt")) == 1


@pytest.mark.parametrize("ttl", [59_999, "1", None, 31_536_000_001])
def test_how_long_a_verification_is_good_for_has_bounds(ttl: object) -> None:
    assert [fault.split(":")[0] for fault in faults(verification_ttl_ms=ttl)] == ["verification_ttl_ms"]


NAMES = sorted({name for names in PLACEHOLDERS.values() for name in names})
PIECES = st.one_of(
    st.text(max_size=5),
    st.sampled_from(("{", "}", "{{", "}}", "{}", "{0}", "{org!r}", "{org:>5}", "{org[0]}", "{org.x}", "{ org }")),
    st.sampled_from([f"{{{name}}}" for name in NAMES]),
)


@given(st.sampled_from(KINDS), st.sampled_from((None, "MOBILE", "EMAIL")), st.lists(PIECES, max_size=8).map("".join))
def test_any_text_is_either_refused_or_becomes_a_message(kind: MessageKind, channel: str | None, text: str) -> None:
    if list(text_faults(kind, channel, text)):
        return
    filled = text.format_map(dict.fromkeys(PLACEHOLDERS[kind], "\0"))
    placeholders = filled.count("\0") - text.count("\0")
    assert text.count("{") + text.count("}") - 2 * placeholders == 2 * (filled.count("{") + filled.count("}"))


@given(st.lists(st.sampled_from(NAMES) | st.text("ab <>", max_size=4), min_size=1, max_size=8))
def test_a_text_of_known_placeholders_and_written_braces_is_not_refused(pieces: list[str]) -> None:
    text = "".join(f"{{{piece}}}{{{{" if piece in NAMES else piece for piece in [*pieces, "link"])
    assert list(text_faults("verify", "MOBILE", text)) == []
    filled = text.format_map({name: name.upper() for name in NAMES})
    assert filled == "".join(f"{piece.upper()}{{" if piece in NAMES else piece for piece in [*pieces, "link"])


TEXTS = {"en": 1, "pt": 2, "zh-hant": 3}


@pytest.mark.parametrize(
    ("languages", "found"),
    [
        (["pt"], 2),
        (["PT"], 2),
        (["pt-BR", "en"], 2),
        (["zh-Hant-TW"], 3),
        (["zh-Hans", "pt"], 2),
        (["zh", "en"], 1),
        ([None, "", "fr", "pt", "en"], 2),
        (["ptx", "-", "en"], 1),
        (["fr"], None),
        ([], None),
    ],
)
def test_the_first_language_that_there_is_a_text_for_wins_and_a_tag_is_shortened_before_the_next(
    languages: list[str | None], found: int | None
) -> None:
    assert in_language(TEXTS, languages) == found
