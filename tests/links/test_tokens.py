"""Tokens of links: what they promise whoever signs, holds or forges one."""

from __future__ import annotations

import string
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config import Config, ConfigError
from streams.links import MIN_SECRET, SECRET_FILE, Link, LinkError, Links, secret_of

SECRET = "a secret of the tests"  # noqa: S105
LINKS = Links(SECRET)
URL_SAFE = string.ascii_letters + string.digits + "-_."

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
times = st.integers(0, 2**53)


@st.composite
def any_link(draw: st.DrawFn) -> Link:
    action = draw(st.sampled_from(["OPTIN", "OPTOUT", "VERIFY"]))
    return Link(
        org_id=draw(st.integers(-(2**63), 2**63 - 1)),
        customer_id=draw(texts),
        source=draw(texts),
        account_id=draw(texts),
        channel=draw(texts),
        priority=draw(texts),
        org_unit_id=draw(st.integers(-1, 2**63 - 1)),
        action=action,
        expires_at=draw(times),
        verifies=draw(texts) if action == "VERIFY" else None,
        language=draw(st.none() | texts),
    )


def refusal(token: str, now_ms: int = 0, links: Links = LINKS) -> str:
    with pytest.raises(LinkError) as caught:
        links.read(token, now_ms)
    return caught.value.reason


@given(any_link())
def test_a_token_gives_back_its_link_and_fits_into_a_path(link: Link) -> None:
    token = LINKS.token(link)
    assert LINKS.read(token, link.expires_at) == link
    assert set(token) <= set(URL_SAFE)


@given(any_link())
def test_the_same_link_is_the_same_token_whoever_makes_it(link: Link) -> None:
    assert LINKS.token(link) == Links(SECRET).token(replace(link))


@given(any_link(), st.data())
def test_links_that_differ_in_one_field_have_different_tokens(link: Link, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([field.name for field in fields(Link)]))
    other = replace(link, **{name: data.draw(st.integers() | texts)})
    assert (LINKS.token(link) == LINKS.token(other)) == (link == other)


@given(any_link(), st.data())
def test_a_token_with_any_one_character_changed_is_invalid(link: Link, data: st.DataObject) -> None:
    token = LINKS.token(link)
    # The last one is where base64 is lenient: there, nothing is left to chance.
    for at in (data.draw(st.integers(0, len(token) - 2)), len(token) - 1):
        for changed in set(URL_SAFE) - {token[at]}:
            assert refusal(token[:at] + changed + token[at + 1 :]) == "invalid"


@given(any_link(), st.data())
def test_a_token_with_something_put_in_or_left_out_is_invalid(link: Link, data: st.DataObject) -> None:
    token = LINKS.token(link)
    at = data.draw(st.integers(0, len(token)))
    more = data.draw(st.text(min_size=1, max_size=3) | st.sampled_from(["=", " ", "\n", "!"]))
    assert refusal(token[:at] + more + token[at:]) == "invalid"
    assert refusal(token[:at]) == "invalid" if at < len(token) else True


@given(st.text() | st.text(URL_SAFE))
def test_whatever_is_no_token_is_invalid(text: str) -> None:
    assert refusal(text) == "invalid"


@given(any_link())
def test_a_token_signed_with_another_secret_is_invalid(link: Link) -> None:
    assert refusal(LINKS.token(link), links=Links(SECRET + "!")) == "invalid"


@given(any_link())
def test_a_token_is_good_up_to_its_last_millisecond_and_expired_after_it(link: Link) -> None:
    token = LINKS.token(link)
    assert LINKS.read(token, link.expires_at) == link
    assert refusal(token, link.expires_at + 1) == "expired"


@pytest.mark.parametrize(
    "fault", [{"action": "DELETE"}, {"action": "VERIFY", "verifies": None}, {"action": "OPTIN", "verifies": "e-1"}]
)
def test_what_was_signed_for_an_action_that_is_none_is_invalid(fault: dict[str, str | None]) -> None:
    link = Link(1, "c", "INSTORE", "01", "EMAIL", "BULK", -1, "OPTIN", 10)
    assert refusal(LINKS.token(replace(link, **fault))) == "invalid"  # type: ignore[arg-type]


# --- the secret --------------------------------------------------------------------------------------


def test_the_variable_is_the_secret_and_makes_no_file(tmp_path: Path) -> None:
    assert secret_of(Config(link_secret=SECRET, datadir=tmp_path)) == SECRET
    assert list(tmp_path.iterdir()) == []


def test_the_folder_s_secret_is_made_once_for_the_owner_s_eyes(tmp_path: Path) -> None:
    config = Config(datadir=tmp_path / "new" / "folder")
    first = secret_of(config)
    assert secret_of(config) == first
    assert len(first) >= MIN_SECRET
    assert first != secret_of(Config(datadir=tmp_path / "another"))
    (only,) = config.datadir.iterdir()
    assert only.stat().st_mode & 0o777 == 0o600


def test_who_starts_at_the_same_time_has_the_same_secret(tmp_path: Path) -> None:
    starters = 8
    for attempt in range(20):
        config, barrier = Config(datadir=tmp_path / str(attempt)), Barrier(starters)

        def start(config: Config = config, barrier: Barrier = barrier) -> str:
            barrier.wait()
            return secret_of(config)

        with ThreadPoolExecutor(starters) as pool:
            found = {future.result() for future in [pool.submit(start) for _ in range(starters)]}
        assert len(found) == 1
        assert [file.name for file in config.datadir.iterdir()] == [SECRET_FILE]


@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_a_secret_that_is_none_is_refused_by_its_file_s_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / SECRET_FILE
    file.write_text(content)
    with pytest.raises(ConfigError, match=str(file)):
        secret_of(Config(datadir=tmp_path))


def test_a_variable_that_is_too_short_is_refused_without_being_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CONSENT_LINK_SECRET") as caught:
        secret_of(Config(link_secret="hunter2", datadir=tmp_path))  # noqa: S106
    assert "hunter2" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="CONSENT_LINK_SECRET can be set instead"):
        secret_of(Config(datadir=tmp_path / "file" / "folder"))
