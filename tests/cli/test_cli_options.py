"""Help, exit codes and faults of use: nothing here needs a broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from schemas.eligibility import Reason
from streams import __version__
from streams.cli import cli, sample
from streams.cli.events import check_event, check_request
from streams.cli.reasons import SENTENCES
from tests.cli.world import invoke

CHECKOUT = Path(__file__).parents[2]


def _all_commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            found.append((*path, name))
            if isinstance(command, click.Group):
                found += _all_commands(command, (*path, name))
    return found


COMMANDS = _all_commands(cli)


def test_the_commands_are_those_of_the_contract() -> None:
    leaves = {" ".join(path) for path in COMMANDS}
    assert leaves == {
        "up", "broker", "topics", "topics create", "topics check", "topics acls", "topics repartition", "settings",
        "settings check", "settings apply", "settings show", "worker", "publish", "import", "ask", "link", "state",
        "audit", "deadletter", "deadletter list", "deadletter replay", "users", "users add", "users list",
        "users remove", "openapi", "asyncapi", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "consent-streams " + path[0] in result.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_names_its_variable(path: tuple[str, ...]) -> None:
    command: Any = cli
    for name in path:
        with click.Context(cli) as ctx:
            command = command.get_command(ctx, name)
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in {"assignments", "edit", "help"}:
            assert option.show_envvar, option.name


def test_options_come_from_variables_too() -> None:
    result = invoke("ask", "100", "1", env={"CONSENT_ASK_CHANNEL": "EMAIL", "CONSENT_ASK_PRIORITY": "BULK"})
    assert result.exit_code == 1
    assert "no broker" in result.stderr


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"consent-streams {__version__}\n")


LINK = ["link", "100", "1", "--source", "INSTORE", "--account", "01", "--channel", "EMAIL"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nope"], "nope"),
        (["topics", "check", "--partitions", "0"], "--partitions"),
        (["topics", "check", "--bootstrap-servers", "host-without-port"], "CONSENT_BOOTSTRAP_SERVERS"),
        (["ask", "100", "1", "--channel", "PIGEON", "--priority", "BULK"], "--channel"),
        (["ask", "100", "1", "--channel", "EMAIL"], "--priority"),
        (["ask", "100", "", "--channel", "EMAIL", "--priority", "BULK"], "customer_id"),
        (["ask", "100", "1", "--channel", "EMAIL", "--priority", "BULK", "--min-position", "x"], "PARTITION:OFFSET"),
        (["audit", "--customer", "1"], "--org"),
        (["publish", "no-such-file"], "no-such-file"),
        (["deadletter", "replay"], "--all"),
        (["deadletter", "replay", "--all", "--code", "unknown_org"], "--all"),
        (["deadletter", "replay", "--partition", "1"], "--offset"),
        (["deadletter", "replay", "--all", "--set", "channel=EMAIL"], "quotes"),
        (["deadletter", "list", "--code", "nope"], "--code"),
        (["users", "list"], "CONSENT_USERS_FILE"),
        (["users", "add", "shop"], "--org"),
        ([*LINK, "--source", "SHOP"], "--source"),
        ([*LINK, "--channel", "PIGEON"], "--channel"),
        ([*LINK, "--priority", "URGENT"], "--priority"),
        ([*LINK, "--account", "x" * 129], "--account"),
        ([*LINK, "--account", ""], "--account"),
        ([*LINK, "--language", "x" * 36], "--language"),
        ([*LINK, "--org-unit", "North"], "--org-unit"),
        ([*LINK, "--action", "verify"], "--action"),
        ([*LINK, "--expires-days", "0"], "--expires-days"),
        ([*LINK, "--public-url", "example.com"], "CONSENT_PUBLIC_URL"),
        (["link", "100", "", *LINK[3:]], "CUSTOMER"),
        (["link", "100", "\udcff", *LINK[3:]], "CUSTOMER"),
        (["link", str(2**63), *LINK[2:]], "ORG"),
        (LINK[:3], "--source"),
    ],
)
def test_wrong_use_is_code_2_and_names_the_fault(arguments: list[str], names: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert names in result.stderr


def test_a_bad_variable_is_wrong_use() -> None:
    result = invoke("topics", "check", env={"CONSENT_HEARTBEAT_MS": "soon"})
    assert result.exit_code == 2
    assert "CONSENT_HEARTBEAT_MS" in result.stderr


NEED_A_BROKER = [
    ["topics", "create"], ["topics", "check"], ["publish"], ["audit"], ["deadletter", "list"],
    ["deadletter", "replay", "--all"], ["ask", "100", "1", "--channel", "EMAIL", "--priority", "BULK"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", [*NEED_A_BROKER, ["worker"]], ids=" ".join)
def test_without_a_broker_it_names_what_to_do(arguments: list[str]) -> None:
    result = invoke(*arguments, text="")
    assert result.exit_code == 1
    assert "consent-streams up" in result.stderr
    assert "CONSENT_BOOTSTRAP_SERVERS" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", NEED_A_BROKER, ids=" ".join)
def test_a_broker_that_does_not_answer_is_one_line(arguments: list[str]) -> None:
    result = invoke(*arguments, text="", env={"CONSENT_BOOTSTRAP_SERVERS": "127.0.0.1:9"})
    assert result.exit_code == 1
    assert "does not answer at 127.0.0.1:9" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["state", "100", "1"], ["settings", "show", "100"]], ids=" ".join)
def test_without_a_worker_it_says_how_to_start_one(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "consent-streams worker" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unexpected_error_is_one_line_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("streams.cli.run.running_address", broken)
    result = invoke("topics", "check")
    assert result.exit_code == 1
    assert "RuntimeError: two lines" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_reason_has_its_sentence() -> None:
    assert set(SENTENCES) == set(get_args(Reason))
    assert all(text.endswith(".") for text in SENTENCES.values())


def test_the_sample_is_valid() -> None:
    import orjson

    from schemas.settings import OrgSettings

    OrgSettings.model_validate(sample.settings())
    for event in sample.events():
        check_event(orjson.dumps(event), 262_144)
    for request in sample.requests():
        check_request(orjson.dumps(request), 262_144)


def test_ctrl_c_ends_a_waiting_command_with_130() -> None:
    # A listener that accepts and never answers: what a frozen broker looks like.
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"
        "kept = s.accept(); print('asked', flush=True); sys.stdin.read()"
    )
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as frozen:
        port = frozen.stdout.readline().strip()
        command = [sys.executable, "-m", "streams", "topics", "check", "--bootstrap-servers", f"127.0.0.1:{port}"]
        with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as asking:
            assert frozen.stdout.readline() == "asked\n"
            asking.send_signal(signal.SIGINT)
            _, errors = asking.communicate(timeout=20)
        frozen.stdin.close()
    assert asking.returncode == 130
    assert "Traceback" not in errors
