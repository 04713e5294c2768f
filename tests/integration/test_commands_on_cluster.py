"""Commands on a cluster of three brokers of which one is killed or hangs: they go on, and say so only if they cannot.

No worker runs here: what a worker does meanwhile is tested elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams import topics
from streams.broker import kafka_jars
from streams.cli import sample
from streams.config import Config
from streams.kafka.topic_configs import alter
from streams.topics import LEAST_IN_SYNC, UNCLEAN
from tests.cli.world import World
from tests.cluster import Cluster
from tests.integration.harness import CHECKOUT, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 3
#: A broker that hangs is gone for the others after SESSION_S; its partitions and coordinators move then.
MOVED_S = 25.0


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    errors: str
    seconds: float


class Site:
    """A cluster, and topics on it that all nodes hold."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        prefix = f"cluster-{uuid.uuid4().hex[:8]}-"
        self.world = World(
            Config(bootstrap_servers=cluster.bootstrap, topic_prefix=prefix, partitions=PARTITIONS, replication=3),
            {
                "CONSENT_BOOTSTRAP_SERVERS": cluster.bootstrap, "CONSENT_TOPIC_PREFIX": prefix,
                "CONSENT_PARTITIONS": str(PARTITIONS), "CONSENT_REPLICATION": "3", "CONSENT_DATADIR": str(folder),
                "CONSENT_HTTP_PORT": "1",
            },
        )  # fmt: skip
        self.version = 0
        assert self.run("topics", "create").code == 0
        # The topics of the transactions and of the groups are made with the first question about any.
        assert self.apply().code == 0
        assert json.loads(self.run("doctor", "--json").out)["checks"]
        cluster.wait_until_whole()

    @property
    def changes(self) -> str:
        return self.world.config.topic(topics.CHANGES.name)

    def run(self, *arguments: str, text: str = "", **more: str) -> Done:
        """One command in a process of its own."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("CONSENT_")}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "streams", *arguments], env=outside | self.world.env | more, cwd=CHECKOUT,
            input=text, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def apply(self, *more: str) -> Done:
        """Write the sample org's settings in a version of its own."""
        self.version += 1
        return self.run("settings", "apply", "-", *more, text=json.dumps(sample.settings() | {"version": self.version}))

    def publish(self, name: str, count: int = 30) -> Done:
        """Events of this name, one of each number."""
        event = sample.events()[0]
        lines = [json.dumps(event | {"event_id": f"{name}-{number}"}) for number in range(count)]
        return self.run("publish", "--json", text="\n".join(lines) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All changes that are committed."""
        return [json.loads(record.value or b"") for record in self.world.read(topics.CHANGES.name)]


@pytest.fixture(scope="module")
def site(kafka_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    jars = kafka_jars(version=kafka_version)
    with Cluster(tmp_path_factory.mktemp("cluster"), nodes=3, jars=jars) as cluster:
        yield Site(cluster, tmp_path_factory.mktemp("data"))


@pytest.fixture
def whole(site: Site) -> Iterator[Site]:
    """A cluster that is well, and is again afterwards."""
    yield site
    site.cluster.mend()


def hurt(cluster: Cluster, how: str, node: int) -> None:
    cluster.kill(node) if how == "kill" else cluster.suspend(node)


EVERY = [
    pytest.param(how, node, marks=[] if node == 1 else [pytest.mark.long]) for how in ("kill", "suspend")
    for node in (1, 2, 3)
]  # fmt: skip


@pytest.mark.parametrize(("how", "node"), EVERY)
def test_commands_go_on_while_a_broker_is_away(whole: Site, how: str, node: int) -> None:
    others = {
        "deadletter list": ["deadletter", "list"],
        "audit": ["audit"],
        "topics check": ["topics", "check"],
        "topics create": ["topics", "create", "--topic-prefix", f"new-{uuid.uuid4().hex[:8]}-"],
    }
    name = f"{how}-{node}"
    with ThreadPoolExecutor(len(others) + 2) as pool:
        hurt(whole.cluster, how, node)
        running = {what: pool.submit(whole.run, *arguments) for what, arguments in others.items()}
        running |= {"apply": pool.submit(whole.apply), "publish": pool.submit(whole.publish, name)}
        done: Mapping[str, Done] = {what: future.result() for what, future in running.items()}
    assert {what: one.errors for what, one in done.items() if one.code} == {}
    assert max(one.seconds for what, one in done.items() if what != "topics create") < MOVED_S
    counted = Counter(event["event_id"] for event in whole.events())
    assert {counted[f"{name}-{number}"] for number in range(30)} == {1}
    assert counted[f"settings-{sample.ORG_ID}-{whole.version}"] == PARTITIONS, "in every partition, and once"


@pytest.mark.parametrize("role", ["leader", "coordinator"])
def test_settings_are_in_every_partition_once_although_a_broker_hangs_in_the_midst(whole: Site, role: str) -> None:
    cluster, config = whole.cluster, whole.world.config
    node = (
        cluster.leader_of(whole.changes, 0) if role == "leader"
        else cluster.transaction_coordinator(config.settings_writer(sample.ORG_ID))
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        applying = pool.submit(whole.apply)
        time.sleep(0.8)  # somewhere in it, another place each time
        cluster.suspend(node)
        assert applying.result().code == 0, applying.result().errors
    counted = Counter(event["event_id"] for event in whole.events())
    assert counted[f"settings-{sample.ORG_ID}-{whole.version}"] == PARTITIONS


def test_an_address_that_hangs_or_refuses_costs_nothing_once_its_leaders_have_moved(whole: Site) -> None:
    cluster = whole.cluster
    first, second = cluster.nodes[1], cluster.nodes[2]
    cluster.suspend(1)
    wait_for("others to lead", lambda: not cluster.led_by(1, by=2) and 1 not in cluster.seen(2).brokers)
    both = f"{first.bootstrap},127.0.0.1:1,{second.bootstrap}"
    plain = whole.run("topics", "check", CONSENT_BOOTSTRAP_SERVERS=second.bootstrap)
    checked = whole.run("topics", "check", CONSENT_BOOTSTRAP_SERVERS=both)
    assert (plain.code, checked.code) == (0, 0), checked.errors
    assert checked.seconds < plain.seconds + 2


def test_the_doctor_says_what_is_wrong_and_does_not_give_up(whole: Site) -> None:
    def statuses(check: str) -> list[str]:
        told = json.loads(whole.run("doctor", "--json").out)["checks"]
        return [one["status"] for one in told if one["check"] == check]

    whole.cluster.suspend(2)
    assert statuses("broker") == ["ok"]
    wait_for("the others to know", lambda: 2 not in whole.cluster.seen(1).brokers)
    assert statuses("replication") == ["warning"]


def test_without_most_of_the_brokers_it_is_one_line_once_the_time_is_up(whole: Site) -> None:
    whole.cluster.kill(1)
    whole.cluster.suspend(2)
    published = whole.publish("never", 1)
    assert published.code in {0, 1}
    gave_up = whole.apply("--timeout", "4")
    assert gave_up.code == 1
    assert gave_up.seconds < 30
    (line,) = [line for line in gave_up.errors.splitlines() if line.startswith("Error: ")]
    assert "Kafka does not answer at " in line or "Kafka refused it: " in line


def test_nobody_is_one_line_within_ten_seconds(whole: Site) -> None:
    whole.cluster.kill(1, 2)
    whole.cluster.suspend(3)
    nobody = whole.run("topics", "check")
    assert nobody.code == 1
    assert nobody.seconds < 12
    assert nobody.errors.startswith(f"Error: Kafka does not answer at {whole.cluster.bootstrap}: ")


def test_topics_on_three_brokers_meet_the_conditions_and_what_does_not_is_a_warning(whole: Site) -> None:
    created = whole.run("topics", "check")
    assert (created.code, created.errors) == (0, "")
    config = whole.world.config
    try:
        asyncio.run(alter(config, {topics.CHANGES.name: {UNCLEAN: "true", LEAST_IN_SYNC: "1"}}))
        weak = whole.run("topics", "check")
        assert weak.code == 0
        assert [line.partition(";")[0] for line in weak.errors.splitlines()] == [
            f"warning: {UNCLEAN} is true: {whole.changes}",
            f"warning: {LEAST_IN_SYNC} is below 2: {whole.changes}",
        ]
    finally:
        asyncio.run(alter(config, {topics.CHANGES.name: {UNCLEAN: "false", LEAST_IN_SYNC: "2"}}))
