"""The systems under test: what their topics are called, how a worker of each is started. Nothing else differs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench import kstreams
from tests.bench.checkout import HERE, ROOT, Checkout
from tests.bench.events import registration_records, settings_record
from tests.bench.kafka import Kafka
from tests.bench.measure import watch
from tests.bench.plan import PRODUCT, BenchError
from tests.bench.process import Worker

COMMAND_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class System:
    """One system in one role of one run; its topics and its folder belong to nobody else."""

    name: str
    kafka: Kafka
    folder: Path
    prefix: str
    changes: str
    requests: str
    audit: str
    decisions: str
    group: str
    command: tuple[str, ...]
    env: dict[str, str]
    #: Whether its answers follow the domain in full, or the peers' reduced job.
    full_rules: bool
    #: Where its worker is started.
    root: Path = ROOT

    @property
    def state(self) -> Path:
        """Where its worker keeps its tables."""
        return self.folder / "state"

    def start(self, what: str, **env: str) -> Worker:
        """Start its worker; `what` names the log."""
        log = self.folder / f"{what}.log"
        return Worker(f"{self.name} ({what})", list(self.command), {**self.env, **env}, log, self.root)

    def markers(self, topic: str) -> int:
        """How many offsets of an output topic a start takes for itself: one for each owner of each partition."""
        owners = {self.audit: 3, self.decisions: 1} if self.name == PRODUCT else {}
        return owners.get(topic, 0) * self.kafka.partitions

    def changelogs(self) -> list[str]:
        """Its changelog topics, named differently by every framework but always after the word."""
        return [t for t in self.kafka.topics() if self.prefix in t and "changelog" in t]


def product(kafka: Kafka, folder: Path, role: str, checkout: Checkout = HERE) -> System:
    """The product: its own topics below a prefix, everything on.

    The worker is that of the checkout; the topics are created by the commands of this one.
    """
    prefix = f"{kafka.prefix}{role}-"
    folder = folder / prefix.rstrip("-")
    env = {
        "CONSENT_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "CONSENT_DATADIR": str(folder / "state"),
        "CONSENT_PARTITIONS": str(kafka.partitions),
        "CONSENT_REPLICATION": str(kafka.replication),
        "CONSENT_TOPIC_PREFIX": prefix,
        "CONSENT_HTTP_PORT": "0",
    }
    _run([sys.executable, "-m", "streams", "topics", "create"], env)
    return System(
        name=PRODUCT,
        kafka=kafka,
        folder=folder,
        prefix=prefix,
        changes=prefix + "consent.changes",
        requests=prefix + "eligibility.requests",
        audit=prefix + "consent.audit",
        decisions=prefix + "eligibility.decisions",
        group=prefix + "consent-streams",
        command=(checkout.python, "-m", "streams", "worker"),
        env=env,
        full_rules=True,
        root=checkout.root,
    )


def introduce(system: System, customers: int) -> None:
    """Give the product its org and its customers, and let it work through them, before anything is measured."""
    kafka = system.kafka
    count = kafka.produce(system.changes, [settings_record()], every_partition=True)
    count += kafka.produce(system.changes, registration_records(customers))
    with system.start("introduce") as worker:
        watch(kafka, worker, system.audit, system.markers(system.audit), count)
        kafka.wait_committed(system.group, system.changes)


def peer(name: str, kafka: Kafka, folder: Path) -> System:
    """Kafka Streams, Quix Streams or plain Faust with the reduced job."""
    prefix = f"{kafka.prefix}{name}-"
    folder = folder / prefix.rstrip("-")
    topics = [prefix + topic for topic in ("changes", "requests", "audit", "decisions")]
    kafka.create(*topics)
    if name == "kstreams":
        command = kstreams.command()
    else:
        arguments = ("worker", "--loglevel", "info", "--without-web") if name == "faust" else ()
        command = (sys.executable, "-W", "ignore", "-m", f"tests.bench.{name}_peer", *arguments)
    return System(
        name=name,
        kafka=kafka,
        folder=folder,
        prefix=prefix,
        changes=topics[0],
        requests=topics[1],
        audit=topics[2],
        decisions=topics[3],
        group=prefix + "job",
        command=command,
        env={
            "BENCH_BOOTSTRAP": kafka.bootstrap,
            "BENCH_PREFIX": prefix,
            "BENCH_PARTITIONS": str(kafka.partitions),
            "BENCH_STATE": str(folder / "state"),
        },
        full_rules=False,
    )


def _run(command: list[str], env: dict[str, str]) -> None:
    merged = {**os.environ, **env}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=merged, capture_output=True, text=True, timeout=COMMAND_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(command[1:])} took more than {COMMAND_DEADLINE_S:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BenchError(f"{' '.join(command[1:])} ended with {done.returncode}: {said}")
