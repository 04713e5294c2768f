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


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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


# --- what goes on ------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def away(clock: Clock) -> logs.Ongoing:
    return logs.Ongoing(log, "broker 2 does not answer", clock=clock)


def test_what_goes_on_is_said_when_it_begins_every_thirty_seconds_and_when_it_is_over(
    clock: Clock, away: logs.Ongoing, caplog: pytest.LogCaptureFixture
) -> None:
    away.over()
    assert not caplog.messages
    for _ in range(400):
        away.happens(TimeoutError())
        clock.now += 0.1
    assert away.goes_on
    away.over()
    away.over()
    assert not away.goes_on
    assert caplog.messages == [
        "broker 2 does not answer: TimeoutError()",
        "broker 2 does not answer: TimeoutError() (for 30 s, 300 times since the last line)",
        "broker 2 does not answer: over after 40 s",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_what_comes_and_goes_is_said_to_begin_once_in_thirty_seconds(
    clock: Clock, away: logs.Ongoing, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(7 * 60):
        away.happens()
        clock.now += 0.5
        away.over()
        clock.now += 0.5
    begins = [text for text in caplog.messages if "over" not in text]
    assert len(begins) == 7 * 60 / 30
    assert begins[0] == "broker 2 does not answer"
    assert set(begins[1:]) == {"broker 2 does not answer (30 times since the last line)"}
    assert len(caplog.messages) == 2 * len(begins)


def test_what_begins_anew_soon_and_stays_is_said_later_and_its_end_only_if_it_was_said(
    clock: Clock, away: logs.Ongoing, caplog: pytest.LogCaptureFixture
) -> None:
    away.happens()
    away.over()
    caplog.clear()
    clock.now += 1
    away.happens()
    clock.now += 20
    away.over()
    assert not caplog.messages, "began within thirty seconds of the last line, and is over"
    away.happens("again")
    clock.now += 20
    away.happens("still")
    away.over()
    assert caplog.messages == [
        "broker 2 does not answer: still (3 times since the last line)",
        "broker 2 does not answer: over after 20 s",
    ]


def test_a_detail_is_made_text_only_where_it_is_logged(away: logs.Ongoing, caplog: pytest.LogCaptureFixture) -> None:
    class Detail:
        asked = 0

        def __str__(self) -> str:
            self.asked += 1
            return "50 % of all"

    detail = Detail()
    for _ in range(10):
        away.happens(detail, extra=logs.about("t", 3))
    assert detail.asked == 1
    assert caplog.messages == ["broker 2 does not answer: 50 % of all"]
    assert vars(caplog.records[0])["partition"] == 3


def test_each_key_goes_on_by_itself(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    leaderless = logs.OngoingBy(log, "%s-%d has no leader", clock=clock)
    leaderless.over(("t", 0))
    for number in (0, 1, 0, 1):
        leaderless.happens(("t", number))
    assert leaderless.going_on == [("t", 0), ("t", 1)]
    leaderless.over(("t", 0))
    assert leaderless.going_on == [("t", 1)]
    assert caplog.messages == ["t-0 has no leader", "t-1 has no leader", "t-0 has no leader: over after 0 s"]


def test_keys_that_are_over_or_not_heard_of_are_forgotten(clock: Clock) -> None:
    away = logs.OngoingBy(log, "broker %s does not answer", clock=clock)
    for number in range(1000):
        away.happens(number)
        if number % 2:
            away.over(number)
        clock.now += 1
    assert len(away) <= 300 / 2 + 60, "what was seen in the last 300 s, and what was over in the last 30 to 60 s"
    clock.now += 1000
    away.happens("another")
    assert away.going_on == ["another"]
    assert len(away) == 1


def test_a_key_that_is_over_is_remembered_for_as_long_as_it_may_not_be_said_again(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    away = logs.OngoingBy(log, "broker %s does not answer", clock=clock)
    for number in range(29):
        away.happens(2)
        away.over(2)
        away.happens(f"other {number}")
        clock.now += 1
    assert [text for text in caplog.messages if "broker 2 " in text] == [
        "broker 2 does not answer",
        "broker 2 does not answer: over after 0 s",
    ]


# --- what libraries say ------------------------------------------------------------------------------


@pytest.fixture
def seldom(clock: Clock, caplog: pytest.LogCaptureFixture) -> Iterator[logs.Seldom]:
    held = logs.Seldom(clock=clock)
    caplog.handler.addFilter(held)
    yield held
    caplog.handler.removeFilter(held)


def test_a_library_says_the_same_once_in_thirty_seconds_with_how_often_it_was_held_back(
    clock: Clock, seldom: logs.Seldom, caplog: pytest.LogCaptureFixture
) -> None:
    conn = logging.getLogger("aiokafka.conn")
    for _ in range(301):
        conn.error("Unable connect to %r: %s", 9092, OSError(111, "refused"))
        clock.now += 0.1
    conn.error("Unable to request metadata from %s", "node 1")
    assert caplog.messages == [
        "Unable connect to 9092: [Errno 111] refused",
        "Unable connect to 9092: [Errno 111] refused (and 299 more like it)",
        "Unable to request metadata from node 1",
    ]


def test_messages_that_differ_in_numbers_alone_are_alike(
    seldom: logs.Seldom, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        logging.getLogger("faust.transport").error(f"No active partitions for t-{number}")
    assert caplog.messages == ["No active partitions for t-0"]


def test_what_is_alike_is_of_the_same_logger_and_level(seldom: logs.Seldom, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("aiokafka", "aiokafka.conn", "mode.services", "streams.app"):
        logging.getLogger(name).error("lost")
        logging.getLogger(name).warning("lost")
        logging.getLogger(name).error("lost")
    assert len(caplog.messages) == 8


def test_another_exception_is_not_alike(seldom: logs.Seldom, caplog: pytest.LogCaptureFixture) -> None:
    for kind in (ValueError, KeyError, ValueError):
        try:
            raise kind("odd")
        except kind:
            logging.getLogger("mode.services").exception("crashed")
    assert len(caplog.messages) == 2


def test_our_own_lines_and_those_below_a_warning_are_not_held_back(
    seldom: logs.Seldom, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        log.warning("dead letter")
        logging.getLogger("streams.application").warning("another logger than streams.app")
        logging.getLogger("uvicorn.error").error("Exception in ASGI application")
        logging.getLogger("aiokafka.consumer").info("a step of a rebalance")
    assert len(caplog.messages) == 12


def test_messages_without_end_are_not_all_remembered(seldom: logs.Seldom, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3000):
        logging.getLogger("aiokafka").warning("of another kind: " + "x" * number)
    assert len(seldom._passed) == 1000


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_worker_holds_the_libraries_back(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", kind)
    for _ in range(20):
        logging.getLogger("aiokafka").error("Unable connect to node with id %s", 2)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_our_modules_say_of_one_partition_holds_back_nothing_of_another() -> None:
    seldom = logs.Seldom()
    told = [
        seldom.filter(logging.LogRecord(name, logging.WARNING, "", 0, "partition %d is damaged", (number,), None))
        for name in ("streams.engine.table", "faust.tables")
        for number in (1, 2, 2)
    ]
    assert told == [True, True, False, True, False, False]


def test_what_passes_soon_is_not_logged_where_that_is_no_news(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one = logs.Ongoing(logging.getLogger("here"), "it is away", after_s=1.0, clock=clock)
    for _ in range(3):
        one.happens("soon over")
        clock.now += 0.5
        one.happens("soon over")
        one.over()
    assert caplog.messages == []
    for _ in range(4):
        one.happens("not yet back")
        clock.now += 0.5
    one.over()
    assert caplog.messages == ["it is away: not yet back (for 1 s, 9 times)", "it is away: over after 2 s"]
