"""`doctor` on deployments that are well, and on those that are not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.world import invoke
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import CHANGES, REQUESTS, Doc, Loop, Worker, World, wait_for
from tests.integration.orgs import Org, dump

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option of the developer's own."""
    for name in [name for name in os.environ if name.startswith("CONSENT_")]:
        monkeypatch.delenv(name)


class Verdict:
    """What the doctor says of a world from a machine whose data folder is given."""

    def __init__(self, world: World, folder: Path, **env: str) -> None:
        given: Mapping[str, str] = world.env | {"CONSENT_DATADIR": str(folder)} | env
        self.result = invoke("doctor", "--json", env=given)
        said: Doc = json.loads(self.result.stdout)
        self.checks: list[Doc] = said["checks"]
        assert (said["problems"] > 0) == (self.result.exit_code == 1), self.result.output
        assert all(check["remedy"] for check in self.checks if check["status"] == "warning")

    def of(self, check: str) -> tuple[str, str]:
        """Status and text of a check that is there once."""
        (found,) = [one for one in self.checks if one["check"] == check]
        return found["status"], found["text"]

    @property
    def problems(self) -> list[str]:
        return [f"{check['check']}: {check['text']}" for check in self.checks if check["status"] == "problem"]

    @property
    def warnings(self) -> list[str]:
        return [check["check"] for check in self.checks if check["status"] == "warning"]


def test_a_deployment_that_works_has_no_problem_and_one_broker_is_worth_a_warning(
    world: World, worker: Worker, kafka_version: str
) -> None:
    org = Org(world)
    org.opt_in()
    assert org.ask()["eligible"]
    world.settle()
    seen = Verdict(world, worker.datadir)
    assert seen.problems == []
    assert seen.warnings == ["replication"]
    assert seen.of("broker")[1].startswith(f"Kafka {kafka_version.rpartition('.')[0]} at ")
    assert seen.of("workers")[1].endswith("every partition has one")
    assert seen.of("lag") == ("ok", "no record waits")
    assert seen.of(f"worker {worker.url}") == ("ok", "ready")
    assert seen.of("rights")[0] == "ok"
    assert seen.of("broker clock")[0] == "ok"
    assert seen.of("worker clocks")[0] == "ok"
    assert seen.of("settings") == ("ok", "1 org, the same in every partition")
    assert seen.of("state")[1].endswith(f"held by worker {worker.pid}")
    assert worker.running


def test_for_people_it_is_one_line_a_check(world: World, worker: Worker) -> None:
    shown = invoke("doctor", env=world.env | {"CONSENT_DATADIR": str(worker.datadir)})
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert all(line[:9].strip() in {"ok", "warning", "problem", "skipped"} for line in lines)
    assert any(line.startswith("warning  replication: fewer than 3 replicas: ") for line in lines)


def test_without_a_broker_that_is_the_problem(world: World, tmp_path: Path) -> None:
    seen = Verdict(world, tmp_path, CONSENT_BOOTSTRAP_SERVERS="127.0.0.1:1")
    (only,) = seen.problems
    assert only.startswith("broker: Kafka does not answer at 127.0.0.1:1")
    assert seen.of("topics") == ("skipped", "Kafka does not answer")
    unknown = Verdict(world, tmp_path, CONSENT_BOOTSTRAP_SERVERS="")
    assert unknown.of("broker")[1].startswith("no broker: start one")


def test_missing_topics_are_named_and_what_needs_them_is_left_out(world: World, loop: Loop, tmp_path: Path) -> None:
    bare = World(world.config.bootstrap_servers, loop)
    seen = Verdict(bare, tmp_path)
    assert len(seen.problems) == 10
    topic = bare.config.topic(CHANGES)
    assert f"topics: {topic}: missing (`consent-streams topics create` creates it)" in seen.problems
    assert seen.of("workers")[0] == "skipped"


def test_a_wrong_partition_count_is_a_problem(world: World, worker: Worker) -> None:
    seen = Verdict(world, worker.datadir, CONSENT_PARTITIONS="5")
    assert sum("has 4 partitions, but CONSENT_PARTITIONS says 5" in text for text in seen.problems) == 10
    assert any(text.startswith("state: ") and "partition count" in text for text in seen.problems)
    assert "workers: 1 in the group" in " ".join(seen.problems), "partition 4 has no worker"


def test_without_a_worker_what_waits_is_counted(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    empty = Verdict(world, tmp_path)
    assert empty.problems == [f"workers: nobody is in the group {world.config.group}"]
    assert empty.of("lag") == ("ok", "no record waits")
    org = Org(world)
    org.opt_in()
    world.send(REQUESTS, org.key(), b"{}")
    status, text = Verdict(world, tmp_path).of("lag")
    assert status == "problem"
    assert text.startswith("6 records wait and nobody works on them: ")


def test_retention_that_loses_changes_is_a_problem(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    world.configure(CHANGES, **{"retention.ms": "86400000"})
    wanted = f"topics: {world.config.topic(CHANGES)}: retention.ms is 86400000, must be -1 (kept), or records are lost"
    # The broker hears of it a moment after its controller has acknowledged it.
    wait_for("the broker to know", lambda: wanted in Verdict(world, tmp_path).problems)


def test_a_worker_that_hangs_is_seen_by_what_does_not_move(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    worker = make_worker(world, CONSENT_SESSION_TIMEOUT_MS="45000").start().ready()
    org = Org(world)
    world.settle()
    worker.suspend()
    place = org.opt_in()
    seen = Verdict(world, worker.datadir)
    worker.resume()
    assert seen.problems == [f"lag: nothing moves though records wait: {CHANGES}-{place.partition}"]
    assert seen.of(f"worker {worker.url}") == ("warning", "does not answer from here (ReadTimeout)")
    assert seen.of("misrouted, dead letters, logins, settings, open files")[0] == "skipped"


def test_two_workers_need_one_secret_for_links(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    workers = [make_worker(world).start() for _ in range(2)]
    for worker in workers:
        worker.ready()

    def agreed() -> Verdict | None:
        seen = Verdict(world, workers[0].datadir)
        status, text = seen.of("workers")
        return seen if status == "ok" and text.startswith("2 in the group") else None

    seen = wait_for("both to have partitions", agreed)
    (only,) = seen.problems
    assert only.startswith("links: 2 workers and no CONSENT_LINK_SECRET")
    same = Verdict(world, workers[0].datadir, CONSENT_LINK_SECRET="a secret that is long")  # noqa: S106
    assert same.problems == []
    short = Verdict(world, workers[0].datadir, CONSENT_LINK_SECRET="short")  # noqa: S106
    assert short.of("links") == ("problem", "CONSENT_LINK_SECRET has 5 characters, 16 are needed")


def test_what_producers_do_wrong_is_counted(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    org = Org(world)
    world.send(CHANGES, org.key(), dump(org.opt_in_event()), (org.home() + 1) % world.config.partitions)
    world.send(CHANGES, org.key(), b"no JSON")
    # Only one partition hears of this version.
    org.document["version"] += 1
    world.send(CHANGES, f"{org.id}:".encode(), dump(org._event("settings.changed", 0) | {"settings": org.document}), 2)
    world.settle()
    seen = Verdict(world, worker.datadir)
    assert seen.of("misrouted") == ("warning", "misrouted since the workers' start: consent.changes 1")
    assert seen.of("dead letters") == ("warning", "since the workers' start: malformed_json 1")
    assert seen.problems == [f"settings: not the same everywhere: org {org.id}: version 1 to 2, in 4 of 4 partitions"]


def test_settings_are_compared_after_a_restart_too(make_world: MakeWorld, make_worker: MakeWorker) -> None:
    world = make_world()
    worker = make_worker(world).start().ready()
    org = Org(world)
    event = org._event("settings.changed", 0) | {"settings": org.document | {"org_id": 77_000}, "org_id": 77_000}
    world.send(CHANGES, b"77000:", dump(event), 1)
    world.settle()
    assert worker.stop() == 0
    worker.start().ready()
    seen = Verdict(world, worker.datadir)
    assert seen.problems == ["settings: not the same everywhere: org 77000: version 1 to 1, in 1 of 4 partitions"]


def test_a_data_folder_of_another_cluster_is_a_problem(world: World, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "identity.json").write_text('{"cluster_id": "another"}')
    assert "belongs to another cluster id (another, here " in Verdict(world, tmp_path).of("state")[1]


def test_a_users_file_is_read_and_its_mode_looked_at(world: World, worker: Worker, tmp_path: Path) -> None:
    file = tmp_path / "users.jsonl"
    missing = Verdict(world, worker.datadir, CONSENT_USERS_FILE=str(file))
    assert missing.of("users") == ("problem", f"users file {file}: No such file or directory")
    file.write_text('{"name": "shop"}\n')
    faulty = Verdict(world, worker.datadir, CONSENT_USERS_FILE=str(file))
    assert faulty.of("users")[0] == "problem"
    assert f"users file {file}, line 1: " in faulty.of("users")[1]
    file.unlink()
    added = invoke("users", "add", "shop", "--org", "1", text="geheim", env={"CONSENT_USERS_FILE": str(file)})
    assert added.exit_code == 0
    assert Verdict(world, worker.datadir, CONSENT_USERS_FILE=str(file)).of("users") == ("ok", f"1 in {file}")
    file.chmod(0o644)
    assert Verdict(world, worker.datadir, CONSENT_USERS_FILE=str(file)).of("users")[0] == "warning"
    nobody = Verdict(world, worker.datadir, CONSENT_HTTP_HOST="0.0.0.0")  # noqa: S104
    assert nobody.of("users")[0] == "problem"
