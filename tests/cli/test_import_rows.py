"""Files of rows and how they become events, without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from streams.cli.mapping import Mapping, RowError
from streams.cli.root import Failure
from streams.cli.rows import Row, Table
from tests.cli.world import invoke

PLACE = {"source": "INSTORE", "account_id": "01", "channel": "email", "priority": "Bulk", "org_unit_id": "-1"}
ROW = {"customer_id": "c", "occurred_at": "2026-01-02T03:04:05Z", "type": "optin"} | PLACE
NEEDED = [part for name, value in PLACE.items() for part in ("--set", f"{name}={value}")]


def mapping(**options: Any) -> Mapping:
    return Mapping(100, "b-1", **({"columns": {}, "constants": {}} | options))


def event_of(row: dict[str, Any], **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mapping(**options).event(Row(2, row)).value)
    return found


def fault_of(row: dict[str, Any], **options: Any) -> str:
    with pytest.raises(RowError) as caught:
        mapping(**options).event(Row(2, row))
    return str(caught.value)


def table(tmp_path: Path, content: str | bytes, name: str = "rows.csv", **options: Any) -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table(path, options.get("kind"), options.get("delimiter"))


def test_a_row_becomes_an_event_with_words_in_capitals_and_its_batch() -> None:
    event = event_of(ROW)
    assert event.pop("event_id").startswith("import-")
    assert event == {
        "event": "consent.changed", "org_id": 100, "batch_id": "b-1", "origin": "IMPORT", "customer_id": "c",
        "occurred_at": "2026-01-02T03:04:05.000Z", "type": "OPTIN", "source": "INSTORE", "account_id": "01",
        "channel": "EMAIL", "priority": "BULK", "org_unit_id": -1,
    }  # fmt: skip


def test_the_same_row_is_the_same_event_wherever_it_stands_and_in_another_batch_another_one() -> None:
    def id_of(line: int, batch: str, **changes: Any) -> Any:
        return json.loads(Mapping(100, batch, {}, {}).event(Row(line, ROW | changes)).value)["event_id"]

    assert id_of(2, "b-1") == id_of(7, "b-1") == id_of(2, "b-1", type="OptIn")
    assert len({id_of(2, "b-1"), id_of(2, "b-2"), id_of(2, "b-1", type="OPTOUT"), id_of(2, "b-1", reason="x")}) == 4


@pytest.mark.parametrize("missing", ["", "  ", None])
def test_a_row_without_a_date_is_refused_and_its_date_never_made_up(missing: Any) -> None:
    assert fault_of(ROW | {"occurred_at": missing}) == "occurred_at: missing"


def test_every_fault_of_a_row_names_its_column() -> None:
    row = ROW | {"prio": "urgent", "when": "yesterday", "unit": "north", "customer_id": ""}
    columns = {"priority": "prio", "occurred_at": "when", "org_unit_id": "unit"}
    fault = fault_of(row, columns=columns, constants={"channel": "FAX"})
    assert "customer_id: missing" in fault
    assert "occurred_at (column 'when'): 'yesterday' is not an RFC 3339 time" in fault
    assert "org_unit_id (column 'unit'): 'north' is not a whole number" in fault
    assert "priority (column 'prio'): Input should be 'BULK' or 'TRANS'" in fault
    assert "channel (--set): Input should be" in fault
    assert fault.count("occurred_at") == fault.count("customer_id") == 1


@pytest.mark.parametrize(
    ("given", "form", "zone", "expected"),
    [
        ("21.11.2026 10:00", "%d.%m.%Y %H:%M", "Asia/Kolkata", "2026-11-21T04:30:00.000Z"),
        ("2026-07-01", "%Y-%m-%d", "Europe/Berlin", "2026-06-30T22:00:00.000Z"),
        ("2026-07-01 00:00:00.25 +0200", "%Y-%m-%d %H:%M:%S.%f %z", None, "2026-06-30T22:00:00.250Z"),
    ],
)
def test_dates_are_read_in_the_file_s_own_form_and_zone(given: str, form: str, zone: Any, expected: str) -> None:
    options = {"date_format": form, "timezone": ZoneInfo(zone) if zone else None}
    assert event_of(ROW | {"occurred_at": given}, **options)["occurred_at"] == expected


def test_dates_that_name_no_moment_are_refused() -> None:
    options: dict[str, Any] = {"date_format": "%Y-%m-%d %H:%M", "timezone": ZoneInfo("Europe/Berlin")}
    assert "the clocks were put forward" in fault_of(ROW | {"occurred_at": "2026-03-29 02:30"}, **options)
    assert "not of the form" in fault_of(ROW | {"occurred_at": "29.03.2026"}, **options)
    assert "--timezone" in fault_of(ROW | {"occurred_at": "2026-03-29 12:30"}, date_format="%Y-%m-%d %H:%M")
    assert "not an RFC 3339" in fault_of(ROW | {"occurred_at": "1900-01-01 00:00"}, **options)


def test_numbers_and_proof_are_taken_as_the_wire_has_them() -> None:
    event = event_of(ROW | {"customer_id": 17, "account_id": 1, "org_unit_id": 5, "proof": '{"form": 3}'})
    assert [event[name] for name in ("customer_id", "account_id", "org_unit_id")] == ["17", "1", 5]
    assert event["proof"] == {"form": 3}
    assert "proof: not a JSON object" in fault_of(ROW | {"proof": "{"})


# --- files ------------------------------------------------------------------------------------------


def test_a_csv_may_have_a_byte_order_mark_any_delimiter_quotes_and_lines_within_them(tmp_path: Path) -> None:
    found = table(tmp_path, b'\xef\xbb\xbfid;why\r\n1;"a;b"\r\n\r\n2;"two\nlines"\r\n3;c\r\n')
    assert found.columns == ["id", "why"]
    assert [(row.line, row.fields) for row in found] == [
        (2, {"id": "1", "why": "a;b"}), (4, {"id": "2", "why": "two\nlines"}), (6, {"id": "3", "why": "c"}),
    ]  # fmt: skip


def test_a_row_of_another_length_than_the_header_is_at_fault_alone(tmp_path: Path) -> None:
    rows = list(table(tmp_path, "a,b\n1,2\n3\n4,5,6\n7,8\n"))
    assert [row.fault for row in rows] == [
        None, "1 fields, but the header has 2 columns", "3 fields, but the header has 2 columns", None,
    ]  # fmt: skip


def test_ndjson_has_an_object_on_each_line(tmp_path: Path) -> None:
    rows = list(table(tmp_path, '\ufeff{"a": 1}\n\n[]\n{\n{"a": 2}', "rows.ndjson"))
    assert [(row.line, row.fields.get("a"), (row.fault or "")[:17]) for row in rows] == [
        (1, 1, ""), (3, None, "not a JSON object"), (4, None, "not JSON: unexpec"), (5, 2, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "name", "fault"),
    [
        ("", "rows.csv", "the file is empty"),
        ("\n", "rows.csv", "the first line must be a header"),
        ("a,b\n", "rows.csv", "a header and no rows"),
        ("\n\n", "rows.ndjson", "the file has no rows"),
        ("a,b, a\n1,2,3\n", "rows.csv", "the header has 'a' more than once"),
        (b"a,b\n1,2\nM\xfcller,3\n", "rows.csv", "line 3 is not UTF-8"),
        (b"a\n1\n\xc3", "rows.csv", "the last line is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_as_what_it_is_is_refused_whole(
    tmp_path: Path, content: str | bytes, name: str, fault: str
) -> None:
    with pytest.raises(Failure, match=fault):
        table(tmp_path, content, name)


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (["--set", "source=INSTORE"], 1, "no column account_id, channel, priority, org_unit_id"),
        ([*NEEDED, "--map", "type=kind"], 1, "--map type=kind: "),
        ([*NEEDED, "--map", "kind=type"], 2, "'kind' is not one of customer_id"),
        ([*NEEDED, "--map", "type"], 2, "'type' is not FIELD=COLUMN"),
        ([*NEEDED, "--map", "source=type"], 2, "source: --map or --set, not both"),
        ([*NEEDED, "--set", "occurred_at=2026-01-01T00:00:00Z"], 2, "occurred_at: each row must have its own"),
        ([*NEEDED, "--set", "source=LINE"], 2, "--set: a field is named twice"),
        ([*NEEDED, "--timezone", "Mars/Olympus"], 2, "'Mars/Olympus' is no time zone"),
        ([*NEEDED, "--delimiter", "::"], 2, "--delimiter: one character"),
        (["--undo", "b"], 2, "--undo takes no FILE"),
    ],
)
def test_wrong_use_is_one_clear_line_before_anything_is_published(
    tmp_path: Path, arguments: list[str], code: int, fault: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("customer_id,occurred_at,type\nc,2026-01-01T00:00:00Z,OPTIN\n")
    found = invoke("import", str(file), "--org", "100", "--batch-id", "b", *arguments)
    assert (found.exit_code, fault in found.stderr) == (code, True), found.stderr


def test_an_import_needs_a_file_and_the_name_of_its_batch() -> None:
    found = invoke("import", "--org", "100")
    assert (found.exit_code, "FILE, --org and --batch-id are needed" in found.stderr) == (2, True)
