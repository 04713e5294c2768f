"""`import` and its undo against a real Kafka."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streams.cli.importing import Importing
from streams.cli.journal import Journal, path_of
from streams.cli.mapping import Mapping
from streams.cli.rejects import Rejects
from streams.cli.rows import Table
from streams.topics import CHANGES
from tests.cli.world import World

pytestmark = pytest.mark.kafka

CONSTANTS = {"source": "INSTORE", "account_id": "01", "channel": "EMAIL", "priority": "BULK", "org_unit_id": "-1"}
SET = [part for name, value in CONSTANTS.items() for part in ("--set", f"{name}={value}")]
MAP = ["--map", "customer_id=id", "--map", "occurred_at=date"]
ROWS = [f"c-{n},2026-01-02T03:04:{n:02}Z,{'OptIn' if n % 2 else 'OPTOUT'}" for n in range(20)]


def write(folder: Path, rows: list[str], name: str = "crm.csv") -> str:
    file = folder / name
    file.write_text("\n".join(["id,date,type", *rows]) + "\n")
    return str(file)


def run_import(world: World, file: str, *arguments: str) -> Any:
    return world.run("import", file, "--org", "100", "--batch-id", "b-1", *MAP, *SET, *arguments)


def events(world: World) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in world.read(CHANGES.name)]


def test_an_import_publishes_every_row_under_its_customer_s_key(world: World, tmp_path: Path) -> None:
    done = run_import(world, write(tmp_path, ROWS), "--json")
    assert done.exit_code == 0, done.stderr
    summary = {"rows": 20, "published": 20, "before": 0, "rejected": 0}
    assert json.loads(done.stdout) == {"org_id": 100, "batch_id": "b-1"} | summary
    records = world.read(CHANGES.name)
    assert {record.key for record in records} == {f"100:c-{n}".encode() for n in range(20)}
    assert {event["batch_id"] for event in events(world)} == {"b-1"}
    assert not path_of(world.config, 100, "b-1").exists()


def test_bad_rows_go_into_the_report_and_stop_no_others(world: World, tmp_path: Path) -> None:
    rows = [*ROWS[:2], "c-x,,OPTIN", "c-y,2026-01-02T03:04:05Z,MAYBE", "c-z", *ROWS[2:4]]
    report = tmp_path / "rejected.csv"
    done = run_import(world, write(tmp_path, rows), "--rejects", str(report))
    assert done.exit_code == 1
    assert f"Error: 3 rows of 7 rejected: see {report}" in done.stderr
    assert "4 rows published as batch b-1" in done.stderr
    assert len(events(world)) == 4
    with report.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["row"], row["id"]) for row in found] == [("4", "c-x"), ("5", "c-y"), ("6", "c-z")]
    assert found[0]["fault"] == "occurred_at (column 'date'): missing"
    assert found[1]["fault"] == "type: Input should be 'OPTIN' or 'OPTOUT'"
    assert found[2]["fault"] == "1 fields, but the header has 3 columns"
    again = run_import(world, write(tmp_path, rows), "--rejects", str(tmp_path / "rejected.ndjson"))
    lines = [json.loads(line) for line in (tmp_path / "rejected.ndjson").read_text().splitlines()]
    assert again.exit_code == 1
    assert lines[1] == {
        "row": 5, "fault": found[1]["fault"],
        "data": {"id": "c-y", "date": "2026-01-02T03:04:05Z", "type": "MAYBE"},
    }  # fmt: skip


def test_an_import_cut_short_goes_on_behind_what_was_acknowledged(world: World, tmp_path: Path) -> None:
    file = write(tmp_path, ROWS)
    mapping = Mapping(100, "b-1", {"customer_id": "id", "occurred_at": "date"}, CONSTANTS)
    table = Table(Path(file), None, None)

    class CutError(Exception):
        pass

    class CutShort(Table):
        def __iter__(self) -> Any:
            for n, row in enumerate(table):
                if n == 12:
                    raise CutError
                yield row

    cut = CutShort(Path(file), None, None)
    first = run_import(world, write(tmp_path, ROWS[:1], "other.csv"))  # a journal that ended
    assert first.exit_code == 0
    journal = Journal(world.config, 100, "b-1", "content")
    with Rejects(None, table.columns) as rejects:
        publishing = Importing(world.config, cut, mapping, rejects).publish(journal)
        with pytest.raises(CutError):
            asyncio.run(publishing)
    # What was handed to the producer is flushed; what of it counts as acknowledged is a lower bound.
    assert path_of(world.config, 100, "b-1").exists()
    journal = Journal(world.config, 100, "b-1", "content")
    journal.acknowledged(9)
    journal.save()
    assert Journal(world.config, 100, "b-1", "another content").read() == 0
    resumed = Journal(world.config, 100, "b-1", "content")
    assert resumed.read() == 9
    before = len(events(world))
    with Rejects(None, table.columns) as rejects:
        asyncio.run(Importing(world.config, table, mapping, rejects).publish(resumed))
    assert len(events(world)) == before + 11
    assert {event["customer_id"] for event in events(world)} == {f"c-{n}" for n in range(20)}
    assert not path_of(world.config, 100, "b-1").exists()


def test_a_second_run_says_that_it_goes_on_and_sends_the_same_ids(world: World, tmp_path: Path) -> None:
    file = write(tmp_path, ROWS)
    assert run_import(world, file).exit_code == 0
    assert run_import(world, file).exit_code == 0
    ids = [event["event_id"] for event in events(world)]
    assert len(ids) == 40
    assert len(set(ids)) == 20


def test_an_undo_reverts_the_batch_once_for_each_customer_and_no_other_batch(world: World, tmp_path: Path) -> None:
    run_import(world, write(tmp_path, [*ROWS, "c-1,2026-02-02T00:00:00Z,OPTOUT"]))
    other = write(tmp_path, ["z,2026-01-01T00:00:00Z,OPTIN"])
    for org, batch in (("100", "b-2"), ("200", "b-1")):
        assert world.run("import", other, "--org", org, "--batch-id", batch, *MAP, *SET).exit_code == 0
    counted = world.run("import", "--undo", "b-1", "--org", "100", "--dry-run", "--json")
    assert json.loads(counted.stdout) == {"org_id": 100, "batch_id": "b-1", "customers": 20, "published": False}
    done = world.run("import", "--undo", "b-1", "--org", "100")
    assert (done.exit_code, done.stderr) == (0, "batch b-1 is taken out for 20 customers\n")
    undone = [event for event in events(world) if event["event"] == "consent.batch_reverted"]
    assert sorted(event["customer_id"] for event in undone) == sorted(f"c-{n}" for n in range(20))
    assert {(event["org_id"], event["batch_id"]) for event in undone} == {(100, "b-1")}
    again = world.run("import", "--undo", "b-1", "--org", "100")
    assert again.exit_code == 1
    assert "org 100 has nothing of a batch 'b-1'" in again.stderr


def test_an_undo_that_names_no_org_finds_it_unless_several_are_meant(world: World, tmp_path: Path) -> None:
    file = write(tmp_path, ROWS[:1])
    for org in ("100", "200"):
        assert world.run("import", file, "--org", org, "--batch-id", "b-1", *MAP, *SET).exit_code == 0
    unclear = world.run("import", "--undo", "b-1")
    assert (unclear.exit_code, "orgs 100, 200 have a batch 'b-1'" in unclear.stderr) == (1, True)
    assert world.run("import", "--undo", "b-1", "--org", "200").exit_code == 0
    assert json.loads(world.run("import", "--undo", "b-1", "--json").stdout)["org_id"] == 100
    gone = world.run("import", "--undo", "b-1").stderr
    assert gone == "Error: nothing of a batch 'b-1' in consent.changes that is not undone yet\n"


def test_a_batch_imported_again_can_be_undone_again_under_new_ids(world: World, tmp_path: Path) -> None:
    for _ in range(2):
        assert run_import(world, write(tmp_path, ROWS[:1])).exit_code == 0
        assert world.run("import", "--undo", "b-1", "--org", "100").exit_code == 0
    found = [(event["event"], event["event_id"]) for event in events(world)]
    assert [kind for kind, _ in found] == ["consent.changed", "consent.batch_reverted"] * 2
    assert found[0] == found[2]
    assert found[1] != found[3]


def test_an_import_that_is_killed_is_gone_on_with_and_nothing_is_missing(
    world: World, tmp_path: Path, checkout_env: dict[str, str]
) -> None:
    count = 20_000
    file = write(tmp_path, [f"c-{n},2026-01-02T03:04:05Z,OPTIN" for n in range(count)])
    arguments = ["import", file, "--org", "100", "--batch-id", "b-1", *MAP, *SET]
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", *arguments], env=checkout_env | world.env, stderr=subprocess.DEVNULL
    )
    journal = path_of(world.config, 100, "b-1")
    deadline = time.monotonic() + 60
    while not journal.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = world.run(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["before"] > 0
    assert f"acknowledged before: going on with row {summary['before'] + 1}\n" in done.stderr
    assert summary["before"] + summary["published"] == count
    assert {event["customer_id"] for event in events(world)} == {f"c-{n}" for n in range(count)}
