"""A Kafka with TLS and logins: workers and commands do all their work there, or end with one line that says why not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.world import invoke
from tests.integration.compare import Comparison
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import SHORT_SESSION, World, refused
from tests.integration.load import Load
from tests.integration.orgs import Org
from tests.integration.secured import Certificates, SecuredKafka, password
from tests.integration.test_lifecycle import customers_of
from tests.integration.test_random import agree, steps_of

pytestmark = pytest.mark.kafka

#: A refused command or worker says so by then.
REFUSED_WITHIN_S = 10.0
WORKER = "consent-worker"


def allow_worker(secured: SecuredKafka, world: World, principal: str = f"User:{WORKER}") -> None:
    """The worker's rights on this world's topics."""
    words = ["--role", "worker", "--principal", f"worker={principal}"]
    secured.allow(invoke("topics", "acls", *words, env=world.env).stdout)


@pytest.fixture(scope="module")
def world(secured: SecuredKafka, make_world: MakeWorld) -> World:
    """Topics that the user `consent-worker` may work on."""
    world = make_world(bootstrap=secured.bootstrap)
    allow_worker(secured, world)
    return world


# --- what works --------------------------------------------------------------------------------------


def test_a_worker_with_a_login_over_tls_decides_restarts_and_restores(
    secured: SecuredKafka, world: World, make_worker: MakeWorker
) -> None:
    login = secured.login(WORKER) | {"CONSENT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
    worker = make_worker(world, **SHORT_SESSION, **login, CONSENT_INSTANCE_ID="w-1").start().ready()
    first = Load(world, steps_of(7)).start()
    first.reaches(0.5)
    worker.kill()
    worker.start().ready()
    first.join()
    world.settle()
    agree(world, first)
    before = customers_of(world, worker)
    assert len(before) > 20
    command = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
    assert password(WORKER).encode() not in command
    assert worker.stop() == 0, worker.errors
    empty = make_worker(world, **SHORT_SESSION, **login).start(CONSENT_LOG_LEVEL="debug").ready()
    assert customers_of(world, empty) == before
    org = Org(world)
    org.opt_out(0)
    assert org.verdict() == (False, "opted_out")
    assert empty.stop() == 0
    assert password(WORKER) not in worker.errors + empty.errors
    world.settle()
    Comparison(world).check()


def test_two_workers_with_logins_share_the_partitions_and_one_takes_over(
    secured: SecuredKafka, make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world(bootstrap=secured.bootstrap)
    allow_worker(secured, world)
    env = secured.login(WORKER) | SHORT_SESSION | {"CONSENT_STANDBY_REPLICAS": "1"}
    first, second = (make_worker(world, **env).start() for _ in range(2))
    first.ready()
    second.ready()
    load = Load(world, steps_of(11)).start()
    load.reaches(0.4)
    first.kill()
    load.join()
    world.settle()
    agree(world, load)
    assert second.stop() == 0, second.errors


def test_a_worker_with_a_certificate_of_its_own_needs_no_password(
    secured: SecuredKafka, make_world: MakeWorld, make_worker: MakeWorker
) -> None:
    world = make_world(bootstrap=secured.bootstrap)
    allow_worker(secured, world, "User:CN=some-worker")
    worker = make_worker(world, **secured.certificate("some-worker")).start().ready()
    org = Org(world)
    org.opt_out(0)
    assert org.verdict() == (False, "opted_out")
    assert worker.stop() == 0, worker.errors
    worker.start().ready()
    assert org.verdict() == (False, "opted_out")
    assert worker.stop() == 0, worker.errors


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"])
def test_every_mechanism_lets_a_command_in(secured: SecuredKafka, world: World, mechanism: str) -> None:
    env = world.env | secured.login("root") | {"CONSENT_KAFKA_SASL_MECHANISM": mechanism}
    result = invoke("topics", "check", env=env)
    assert result.exit_code == 0, result.stderr


# --- what is refused ---------------------------------------------------------------------------------


def wrong_password(secured: SecuredKafka, _: Path) -> dict[str, str]:
    return secured.login(WORKER) | {"CONSENT_KAFKA_PASSWORD": password("somebody")}


def unknown_user(secured: SecuredKafka, _: Path) -> dict[str, str]:
    return secured.login("nobody")


def unknown_authority(secured: SecuredKafka, folder: Path) -> dict[str, str]:
    return secured.login(WORKER) | {"CONSENT_KAFKA_CAFILE": Certificates(folder / "other").cafile}


def another_name(secured: SecuredKafka, _: Path) -> dict[str, str]:
    port = secured.scram.rpartition(":")[2]
    return secured.login(WORKER) | {"CONSENT_BOOTSTRAP_SERVERS": f"localhost:{port}"}


def plain_to_tls(secured: SecuredKafka, _: Path) -> dict[str, str]:
    return {"CONSENT_BOOTSTRAP_SERVERS": secured.scram}


def tls_to_plain(secured: SecuredKafka, _: Path) -> dict[str, str]:
    return secured.login(WORKER) | {"CONSENT_BOOTSTRAP_SERVERS": secured.bootstrap}


def no_login(secured: SecuredKafka, _: Path) -> dict[str, str]:
    return secured.certificate("some-worker") | {"CONSENT_BOOTSTRAP_SERVERS": secured.scram}


def login_in_plain(secured: SecuredKafka, _: Path) -> dict[str, str]:
    env = secured.login(WORKER) | {"CONSENT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "CONSENT_KAFKA_CAFILE": ""}
    return env | {"CONSENT_BOOTSTRAP_SERVERS": secured.bootstrap}


def no_certificate(secured: SecuredKafka, _: Path) -> dict[str, str]:
    return secured.certificate("x") | {"CONSENT_KAFKA_CERTFILE": "", "CONSENT_KAFKA_KEYFILE": ""}


def foreign_certificate(secured: SecuredKafka, folder: Path) -> dict[str, str]:
    file = Certificates(folder / "other").issue("some-worker")
    return secured.certificate("x") | {"CONSENT_KAFKA_CERTFILE": file, "CONSENT_KAFKA_KEYFILE": ""}


REFUSED: dict[Callable[[SecuredKafka, Path], dict[str, str]], str] = {
    wrong_password: "refuses the user 'consent-worker' or its password",
    unknown_user: "refuses the user 'nobody' or its password",
    unknown_authority: r"certificate that is not trusted: .* \(CONSENT_KAFKA_CAFILE\)",
    another_name: "certificate that is not trusted: .*not valid for 'localhost'",
    plain_to_tls: "CONSENT_KAFKA_SECURITY_PROTOCOL is PLAINTEXT",
    tls_to_plain: "CONSENT_KAFKA_SECURITY_PROTOCOL is SASL_SSL",
    no_login: "CONSENT_KAFKA_SECURITY_PROTOCOL is SSL",
    login_in_plain: "asks for no login, but CONSENT_KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT",
    no_certificate: r"asks for a certificate of ours \(CONSENT_KAFKA_CERTFILE\)",
    foreign_certificate: r"does not accept our certificate: .* \(CONSENT_KAFKA_CERTFILE\)",
}


@pytest.mark.parametrize("how", REFUSED, ids=lambda how: how.__name__)
def test_who_is_not_let_in_is_told_why_in_one_line(
    secured: SecuredKafka, world: World, make_worker: MakeWorker, tmp_path: Path, how: Callable[..., dict[str, str]]
) -> None:
    env = world.env | how(secured, tmp_path)
    started = time.monotonic()
    line = refused(make_worker(world, **env))
    assert time.monotonic() - started < REFUSED_WITHIN_S
    assert re.search(f"Kafka at {env['CONSENT_BOOTSTRAP_SERVERS']} .*{REFUSED[how]}", line), line
    for command in (["topics", "check"], ["audit"], ["publish"]):
        started = time.monotonic()
        result = invoke(*command, text="", env=env)
        assert time.monotonic() - started < REFUSED_WITHIN_S
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.stderr
        assert re.search(REFUSED[how], result.stderr), result.stderr
        assert env.get("CONSENT_KAFKA_PASSWORD", "s3cret") not in line + result.output


def test_not_even_the_log_of_a_command_at_debug_holds_the_password(secured: SecuredKafka, world: World) -> None:
    env = world.env | secured.login("root") | {"CONSENT_KAFKA_SASL_MECHANISM": "PLAIN", "CONSENT_LOG_LEVEL": "debug"}
    command = [sys.executable, "-m", "streams", "topics", "check"]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert password("root") not in done.stdout + done.stderr
