"""`link` makes what the worker takes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from schemas.base import parse_instant
from streams.config import from_environment
from streams.links import SECRET_FILE, Link, Links, secret_of
from tests.cli.world import invoke

WHERE = ["--source", "INSTORE", "--account", "01", "--channel", "EMAIL"]
DAY_MS = 86_400_000


def read(url: str) -> Link:
    """What a worker with the same variables makes of a link."""
    token = url.strip().rpartition("/u/")[2]
    return Links(secret_of(from_environment())).read(token, int(time.time() * 1000))


def test_the_url_leads_to_the_worker_and_opts_out_of_promotion_for_a_year() -> None:
    result = invoke("link", "100", "565039505", *WHERE)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("http://127.0.0.1:9/u/")
    link = read(result.stdout)
    assert link == Link(100, "565039505", "INSTORE", "01", "EMAIL", "BULK", -1, "OPTOUT", link.expires_at)
    assert abs(link.expires_at - time.time() * 1000 - 365 * DAY_MS) < 60_000


def test_every_option_is_in_the_token() -> None:
    more = ["--priority", "trans", "--org-unit", "5", "--action", "OPTIN", "--language", "de", "--expires-days", "1"]
    link = read(invoke("link", *WHERE, *more, "--", "-7", "ü/ 1").stdout)
    assert link == Link(-7, "ü/ 1", "INSTORE", "01", "EMAIL", "TRANS", 5, "OPTIN", link.expires_at, language="de")
    assert link.expires_at - time.time() * 1000 < DAY_MS


def test_json_adds_the_headers_of_a_mail() -> None:
    result = invoke("link", "100", "1", *WHERE, "--json", "--public-url", "https://example.com/consent/")
    found = json.loads(result.stdout)
    assert found["url"] == "https://example.com/consent/u/" + found["token"]
    assert parse_instant(found["expires_at"]) == read(found["url"]).expires_at
    assert found["headers"] == {
        "List-Unsubscribe": f"<{found['url']}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def test_a_link_that_opts_in_has_no_headers_for_mail_programs() -> None:
    assert json.loads(invoke("link", "100", "1", *WHERE, "--action", "optin", "--json").stdout)["headers"] == {}


def test_the_secret_is_the_variable_s_or_the_folder_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invoke("link", "100", "1", *WHERE, "--datadir", str(tmp_path / "other"))
    assert (tmp_path / "other" / SECRET_FILE).exists()
    monkeypatch.setenv("CONSENT_LINK_SECRET", "a secret of the tests")
    assert read(invoke("link", "100", "1", *WHERE).stdout).customer_id == "1"
    assert not (from_environment().datadir / SECRET_FILE).exists()


@pytest.mark.parametrize(("variable", "value"), [("CONSENT_LINK_SECRET", "short"), ("CONSENT_HTTP_PORT", "0")])
def test_what_would_make_a_useless_link_is_a_failure(variable: str, value: str) -> None:
    result = invoke("link", "100", "1", *WHERE, env={variable: value})
    assert result.exit_code == 1
    assert variable in result.stderr
    assert result.stdout == ""
