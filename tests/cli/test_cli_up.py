"""`up` as a newcomer uses it: started, asked from a second terminal, ended, and started again on the same data."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.world import invoke

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EXPECTED = [
    ("565039505", False, "recent_opt_out"),
    ("565039506", True, "recent_opt_in"),
    ("565039506", False, "strict_missing_opt_in"),
    ("565039508", True, "strict_opt_in"),
    ("565039507", False, "not_set_denied"),
    ("565039507", True, "not_set_allowed"),
    ("565039505", True, "not_set_allowed"),
    ("999999999", False, "not_registered"),
]
QUIT_S = 60


@contextmanager
def up(env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running `up`, and what it printed; killed at the end if the test did not end it."""
    command = [sys.executable, "-m", "streams", "up", "--json", "--broker-port", "0", "--partitions", "3"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()


def test_up_shows_the_sample_answers_commands_and_starts_again(checkout_env: dict[str, str], tmp_path: Path) -> None:
    env = {**checkout_env, "CONSENT_DATADIR": str(tmp_path / "data"), "CONSENT_HTTP_PORT": "0"}
    for ending in (signal.SIGINT, signal.SIGTERM):
        with up(env) as (process, shown):
            decisions = [(d["customer_id"], d["eligible"], d["reason"]) for d in shown["decisions"]]
            assert decisions == EXPECTED
            second_terminal(env | {"CONSENT_HTTP_PORT": shown["http"].rpartition(":")[2]}, ending.name)
            process.send_signal(ending)
            _, errors = process.communicate(timeout=QUIT_S)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert "ended in order" in (tmp_path / "data" / "worker.log").read_text()


def second_terminal(env: dict[str, str], run: str) -> None:
    """Every command once, finding the broker by the data folder. The customer is new in every run."""

    def command(*arguments: str, text: str | None = None) -> Result:
        result = invoke(*arguments, text=text, env=env)
        assert result.exit_code == 0, result.output
        return result

    customer = f"new-{run}"
    head = {"org_id": 100, "customer_id": customer, "occurred_at": "2026-01-02T03:04:05.678Z"}
    said = {"source": "INSTORE", "account_id": "01", "channel": "EMAIL", "priority": "BULK", "org_unit_id": -1}
    events = [
        {"event": "customer.registered", "event_id": f"{run}-1", **head},
        {"event": "consent.changed", "event_id": f"{run}-2", "type": "OPTOUT", **head, **said},
        {"event": "consent.changed", "event_id": f"{run}-3", "type": "OPTOUT", **head, **said, "account_id": "nope"},
    ]
    positions = command("publish", "--json", text="\n".join(map(json.dumps, events))).stdout.splitlines()
    place = json.loads(positions[-1])
    asked = command(
        "ask", "100", customer, "--channel", "EMAIL", "--priority", "BULK", "--json",
        "--min-position", f"{place['partition']}:{place['offset']}",
    )  # fmt: skip
    decision = json.loads(asked.stdout)
    assert (decision["eligible"], decision["reason"]) == (False, "recent_opt_out")
    assert decision["as_of"]["offset"] > place["offset"]
    (cell,) = json.loads(command("state", "100", customer, "--json").stdout)["cells"]
    assert cell["status"] == "OPTOUT"
    assert "OPTOUT" in command("state", "100", customer).stdout
    assert "Example Retail" in command("settings", "show", "100").stdout
    audit = command("audit", "--org", "100", "--customer", customer).stdout.splitlines()
    kinds = [line.split(" ", 3)[3].split()[0].strip(":") for line in audit]
    assert kinds == ["customer.registered", "consent.changed", "request"]
    letters = command("deadletter", "list", "--code", "unknown_account", "--json").stdout.splitlines()
    letter = next(found for found in map(json.loads, letters) if customer in found["key"])
    command(
        "deadletter", "replay", "--partition", str(letter["partition"]), "--offset", str(letter["offset"]),
        "--set", 'account_id="01"', "--set", 'type="OPTIN"', "--set", 'occurred_at="2026-02-02T00:00:00Z"',
    )  # fmt: skip
    again = command("ask", "100", customer, "--channel", "EMAIL", "--priority", "BULK")
    assert again.stdout.startswith("YES  recent_opt_in")
    assert command("topics", "check", "--partitions", "3").exit_code == 0
    assert "ok       rights" in command("doctor", "--partitions", "3").stdout


def test_up_beside_another_says_so(
    checkout_env: dict[str, str], tmp_path: Path, kafka: Any, worker_http: dict[str, Any], monkeypatch: Any
) -> None:
    result = invoke("up", env={"CONSENT_BOOTSTRAP_SERVERS": kafka.bootstrap, "CONSENT_TOPIC_PREFIX": "cli-up-beside-"})
    assert result.exit_code == 1
    assert "already" in result.stderr.splitlines()[-1]
    assert "--http-port" in result.stderr.splitlines()[-1]


def test_up_tells_why_its_worker_ended(kafka: Any, tmp_path: Path) -> None:
    env = {"CONSENT_BOOTSTRAP_SERVERS": kafka.bootstrap, "CONSENT_HTTP_PORT": "0"}
    env["CONSENT_TOPIC_PREFIX"] = "cli-up-ended-"
    assert invoke("topics", "create", "--partitions", "2", env=env).exit_code == 0
    result = invoke("up", "--partitions", "3", env=env)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: the worker ended with code 1: ")
    assert "has 2 partitions" in last
