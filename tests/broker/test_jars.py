"""Fetching jars, from a small repository of our own on loopback; no test here needs the network or a Java."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.broker import BrokerError, jars
from streams.broker.fetch import fetch
from streams.broker.maven import central_repositories, without_credentials

from .helpers import DEADLINE_S, offline, python

POM = """<project><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>{name}</artifactId>
<version>1</version><dependencies>{needs}</dependencies></project>"""
NEEDS = (
    "<dependency><groupId>g</groupId><artifactId>{0}</artifactId><version>1</version><scope>{1}</scope></dependency>"
)
FETCH_TWO = "from streams.broker import jars; jars.COORDINATES = ('g:app:1',); print(*jars.kafka_jars())"


class Repository(ThreadingHTTPServer):
    """Serves `files` by path, with the SHA-1 of each unless `published` has another, and counts what was asked."""

    def __init__(self) -> None:
        needs = NEEDS.format("lib", "runtime") + NEEDS.format("junit", "test")
        self.files = {
            "/g/app/1/app-1.pom": POM.format(name="app", needs=needs).encode(),
            "/g/lib/1/lib-1.pom": POM.format(name="lib", needs="").encode(),
            "/g/app/1/app-1.jar": b"app",
            "/g/lib/1/lib-1.jar": b"lib",
        }
        self.published: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        name = self.path.removesuffix(".sha1")
        self.server.asked[self.path] += 1
        content = self.server.files.get(name)
        if content is not None and self.path != name:
            digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            content = self.server.published.get(name, digest).encode()
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CONSENT_MAVEN_REPOSITORY", repository.url)
    monkeypatch.setattr(jars, "COORDINATES", ("g:app:1",))
    return jars.cache_folder()


def test_what_is_needed_at_run_time_is_fetched_and_nothing_else(repository: Repository, tmp_path: Path) -> None:
    found = fetch(("g:app:1",), tmp_path, {"central": repository.url}, lambda *_: None)
    assert sorted(jar.name for jar in found) == ["app-1.jar", "lib-1.jar"]
    assert not [path for path in repository.asked if "junit" in path]


def test_a_jar_that_differs_from_its_published_checksum_is_refused(repository: Repository, tmp_path: Path) -> None:
    repository.published["/g/lib/1/lib-1.jar"] = "0" * 40
    with pytest.raises(BrokerError, match=r"lib-1\.jar does not have its published checksum"):
        fetch(("g:app:1",), tmp_path, {"central": repository.url}, lambda *_: None)
    assert not list(tmp_path.rglob("lib-1.jar*"))


def test_a_full_cache_asks_nobody(cache: Path, repository: Repository) -> None:
    first = jars.kafka_jars()
    assert [jar.read_bytes() for jar in first] == [b"app", b"lib"]
    repository.asked.clear()
    assert jars.kafka_jars() == first
    assert not repository.asked


def test_each_version_has_a_folder_and_checksums_of_its_own(
    cache: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "COORDINATES", ("g:app:{version}",))
    repository.files["/g/app/2/app-2.pom"] = POM.format(name="app", needs="").replace(
        "<version>1</version>", "<version>2</version>"
    ).encode()
    repository.files["/g/app/2/app-2.jar"] = b"newer"
    for version, names in (("1", ["app-1.jar", "lib-1.jar"]), ("2", ["app-2.jar"])):
        found = jars.kafka_jars(version=version)
        assert [jar.name for jar in found] == names
        assert {jar.parent for jar in found} == {cache.with_name(f"kafka-{version}")}
    repository.asked.clear()
    found[0].write_bytes(b"harmed")
    assert jars.kafka_jars(version="2")[0].read_bytes() == b"newer"
    assert not [path for path in repository.asked if "lib" in path], "that of the other version is whole"


@pytest.mark.parametrize("harm", ["changed", "missing", "no manifest"])
def test_a_harmed_cache_is_fetched_anew(cache: Path, harm: str) -> None:
    jar = jars.kafka_jars()[0]
    if harm == "changed":
        jar.write_bytes(b"harmed")
    else:
        (jar if harm == "missing" else cache / jars.MANIFEST).unlink()
    assert [jar.read_bytes() for jar in jars.kafka_jars()] == [b"app", b"lib"]
    assert [path.name for path in cache.parent.iterdir() if path != cache] == [f"{cache.name}.lock"]


def test_a_repository_without_kafka_is_one_line_that_names_the_other_ways(cache: Path, repository: Repository) -> None:
    repository.files.clear()
    with pytest.raises(BrokerError) as failure:
        jars.kafka_jars()
    message = str(failure.value)
    assert "\n" not in message
    for word in ("app-1.pom does not exist", repository.url, "CONSENT_BOOTSTRAP_SERVERS", "Docker engine"):
        assert word in message
    assert not cache.exists()


def test_two_processes_at_once_fetch_once(cache: Path, repository: Repository, tmp_path: Path) -> None:
    env = offline(XDG_CACHE_HOME=str(tmp_path / "cache"), CONSENT_MAVEN_REPOSITORY=repository.url, NO_PROXY="127.0.0.1")
    with python(FETCH_TWO, env=env) as one, python(FETCH_TWO, env=env) as other:
        outputs = [process.communicate(timeout=DEADLINE_S) for process in (one, other)]
    assert outputs[0] == outputs[1], "the same jars, and nothing on stderr"
    assert repository.asked["/g/lib/1/lib-1.jar"] == 1


SETTINGS = """<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">
<servers><server><id>house</id><username>me</username><password>${env.HOUSE_PASSWORD}</password></server></servers>
<mirrors>
 <mirror><id>blocker</id><mirrorOf>external:http:*</mirrorOf><url>http://0.0.0.0/</url><blocked>true</blocked></mirror>
 <mirror><id>house</id><mirrorOf>MIRROR_OF</mirrorOf><url>https://repo.example.org/maven/</url></mirror>
</mirrors></settings>"""


@pytest.mark.parametrize(
    ("mirror_of", "fits"),
    [
        ("central", True),
        ("*", True),
        ("external:*", True),
        ("*,!central", False),
        ("jcenter", False),
        ("a, central", True),
    ],
)
def test_a_mirror_in_the_users_maven_settings_is_asked_instead_of_central(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror_of: str, fits: bool
) -> None:
    for name in ("CONSENT_MAVEN_REPOSITORY", "MAVEN_HOME", "M2_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HOUSE_PASSWORD", "p@ss")
    assert central_repositories() == {}
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text(SETTINGS.replace("MIRROR_OF", mirror_of), "utf-8")
    assert central_repositories() == ({"central": "https://me:p%40ss@repo.example.org/maven"} if fits else {})


def test_credentials_are_never_shown() -> None:
    assert without_credentials("https://me:p%40ss@repo.example.org/maven") == "https://repo.example.org/maven"


def test_maven_settings_that_cannot_be_read_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSENT_MAVEN_REPOSITORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("<settings>", "utf-8")
    with pytest.raises(BrokerError, match=r"^the Maven settings .*settings\.xml cannot be read: "):
        central_repositories()
