"""Lines of a worker's log, as text and as JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator

import pytest

from streams import logs
from streams.config import ConfigError, from_environment

log = logging.getLogger("streams.tests")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Handlers and levels, put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The one JSON line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    document: dict[str, object] = json.loads(line)
    return document


def test_a_json_line_has_the_time_in_utc_the_level_the_logger_the_message_and_the_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up("info", "json")
    log.info("read %d", 7, extra=logs.about("consent.changes", 3, 17))
    document = said(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(document.pop("time")))
    assert document == {
        "level": "info", "logger": "streams.tests", "message": "read 7",
        "topic": "consent.changes", "partition": 3, "offset": 17,
    }  # fmt: skip


def test_offset_zero_is_an_offset_and_none_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    log.info("first", extra=logs.about("t", 0, 0))
    log.info("all", extra=logs.about("t", 0))
    first, everything = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["partition"], first["offset"]) == (0, 0)
    assert "offset" not in everything


def test_a_text_line_ends_in_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text")
    log.warning("odd", extra=logs.about("consent.changes", 0, 17))
    assert capsys.readouterr().err.endswith(" WARNING streams.tests: odd [consent.changes/0/17]\n")


def test_an_exception_is_a_field_of_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    try:
        raise ValueError("of\nthree\nlines")
    except ValueError:
        log.exception("it failed")
    document = said(capsys)
    assert document["message"] == "it failed"
    assert str(document["exception"]).startswith("Traceback")
    assert str(document["exception"]).endswith("ValueError: of\nthree\nlines")


def test_text_that_no_encoding_has_and_warnings_are_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    log.info("a lone \ud800 and\nanother line")
    assert said(capsys)["message"] == "a lone \ud800 and\nanother line"
    warnings.warn("of a library", stacklevel=1)
    assert said(capsys)["logger"] == "py.warnings"


def test_the_error_that_ends_a_worker_is_the_last_line_in_both_formats(capsys: pytest.CaptureFixture[str]) -> None:
    logs.last_line("the port is taken", "text")
    assert capsys.readouterr().err == "Error: the port is taken\n"
    logs.last_line("the port is taken", "json")
    line = capsys.readouterr().err
    document = json.loads(line)
    assert (document["level"], document["message"]) == ("error", "the port is taken")
    assert logs.message_of(line) == "the port is taken"
    assert logs.message_of("Error: the port is taken") == "Error: the port is taken"


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize(
    ("private", "shown"),
    [
        ("Illegal header value b'Bearer 0ebf-c0ffee_=='", "Bearer [credentials]"),
        ("authorization: basic bWU6bXkgc2VjcmV0", "basic [credentials]"),
        ("GET http://127.0.0.1:6066/u/WzEsMTAwXQ.c2lnbmVk_by-us failed", ":6066/u/[token] failed"),
        ("input_value='anna.o+shop@mail.example.org'", "input_value='[e-mail]'"),
        ("no number: +491701234567", "no number: [number]"),
        ("no number: '+49 (170) 123-4567'", "no number: '[number]'"),
    ],
)
def test_what_an_error_quotes_is_left_out(
    kind: str, private: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("info", kind)
    try:
        raise ValueError(private)
    except ValueError as error:
        log.warning("it failed: %s", error, exc_info=sys.exc_info())
    logs.last_line(private, kind)
    err = capsys.readouterr().err
    assert private not in err
    assert err.count(shown) == 3


@pytest.mark.parametrize(
    "text", ["consent.changes-3 begins at 1234567", "2026-11-21T10:00:00.000+00:00", "http://worker-1:6066/readyz"]
)
def test_what_is_not_private_stays(text: str) -> None:
    assert logs.without_private(text) == text


def test_what_libraries_say_of_urls_and_headers_is_not_logged_at_any_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("debug", "text")
    for name in ("httpx", "httpcore.http11", "httpcore.connection", "python_multipart.multipart", "aiokafka.conn"):
        logging.getLogger(name).debug("said by %s", name)
    logging.getLogger("httpx").info("HTTP Request: GET http://worker/v2/customers/lookup")
    assert capsys.readouterr().err == ""


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="CONSENT_LOG_FORMAT: 'xml' is not one of text, json"):
        from_environment({"CONSENT_LOG_FORMAT": "xml"})
