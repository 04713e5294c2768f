"""Real workers over HTTP and HTTPS: who is let in, who is told to wait, and whose orgs are whose."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams.http.users import changing, make_account
from tests.cli.world import invoke
from tests.integration.conftest import MakeWorker, MakeWorld
from tests.integration.harness import SHORT_SESSION, Worker, World, refused, wait_for
from tests.integration.orgs import Org, dump

ANYWHERE = "0.0.0.0"  # noqa: S104 - what is not loopback
TOKEN = {"Authorization": "Bearer t0ken"}
#: Paths of the kinds that always need credentials; there are no such routes, so 404 means let in.
WRITING = "/v2/nothing"
BODY_LIMIT = 400_000


class Shop:
    """Two orgs, each with a user of the same name's number, and the file that they are in."""

    def __init__(self, world: World, file: Path) -> None:
        self.file = file
        self.mine, self.yours = Org(world), Org(world)
        self.me, self.you = ("me", "my secret"), ("you", "your secret")
        self.give(self.me, self.mine.id)
        self.give(self.you, self.yours.id)

    def give(self, user: tuple[str, str], *orgs: int) -> None:
        """A user these orgs, as `users add --replace` does."""
        name, password = user
        with changing(self.file) as accounts:
            accounts[name] = make_account(name, list(orgs), password)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option of the developer's own for the commands that are run here."""
    for name in [name for name in os.environ if name.startswith("CONSENT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shop(world: World, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(world, tmp_path_factory.mktemp("users") / "users.jsonl")


@pytest.fixture(scope="module")
def guarded(world: World, shop: Shop, make_worker: MakeWorker) -> Worker:
    """A worker off loopback with two users and a token."""
    env = {
        "CONSENT_HTTP_HOST": ANYWHERE, "CONSENT_USERS_FILE": str(shop.file), "CONSENT_HTTP_TOKEN": "t0ken",
        "CONSENT_MAX_BODY_BYTES": str(BODY_LIMIT), "CONSENT_RATE_LIMIT": "1000",
    }  # fmt: skip
    return make_worker(world, **env).start().ready()


def status(worker: Worker, path: str, **more: Any) -> int:
    return httpx.get(worker.url + path, **more).status_code


# --- who is let in -----------------------------------------------------------------------------------


def test_off_loopback_everything_but_the_open_paths_needs_credentials(guarded: Worker, shop: Shop) -> None:
    customer = f"/v1/customers/{shop.mine.id}/c"
    for path in ("/livez", "/readyz"):
        assert status(guarded, path) == 200
    assert status(guarded, "/u/token", auth=("me", "wrong")) not in {401, 403, 429}, "the link is the credential"
    for path in (customer, "/metrics", "/openapi.json", WRITING):
        refused = httpx.get(guarded.url + path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="consent-streams"')
    assert status(guarded, WRITING, auth=shop.me) == 404, "it is let in, to a path that is not there"


def test_a_user_sees_their_own_org_and_no_other(guarded: Worker, shop: Shop) -> None:
    for org in (shop.mine, shop.yours):
        org.opt_in(0)
    for mine, yours, auth in ((shop.mine, shop.yours, shop.me), (shop.yours, shop.mine, shop.you)):
        with httpx.Client(base_url=guarded.url, auth=auth, timeout=20) as client:
            assert client.get(f"/v1/customers/{mine.id}/c").json()["cells"]
            assert client.get(f"/v1/orgs/{mine.id}/settings").json()["org_id"] == mine.id
            assert client.post("/v1/eligibility", content=dump(mine.request())).json()["reason"] == "opted_in"
            for other in (yours.id, 999_999):
                answers = [
                    client.get(f"/v1/customers/{other}/c"),
                    client.get(f"/v1/orgs/{other}/settings"),
                    client.post(f"/v1/orgs/{other}/preview", content=b"[]"),
                    client.post("/v1/eligibility", content=dump(mine.request(org_id=other))),
                ]
                for answer in answers:
                    expected = (403, {"detail": f"this user may not act for org {other}"})
                    assert (answer.status_code, answer.json()) == expected
    assert status(guarded, f"/v1/orgs/{shop.yours.id}/settings", headers=TOKEN) == 200


def test_metrics_name_every_org_and_are_not_for_users(guarded: Worker, shop: Shop) -> None:
    assert status(guarded, "/metrics", auth=shop.me) == 403
    assert status(guarded, WRITING, auth=("nobody", "x")) == 401
    shown = httpx.get(f"{guarded.url}/metrics", headers=TOKEN).text
    assert 'consent_login_failures_total{reason="unknown_user"}' in shown


def test_a_command_asks_as_a_user(guarded: Worker, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSENT_HTTP_PORT", guarded.url.rpartition(":")[2])
    monkeypatch.setenv("CONSENT_HTTP_USER", ":".join(shop.me))
    shown = invoke("settings", "show", str(shop.mine.id), "--json")
    assert json.loads(shown.stdout)["org_id"] == shop.mine.id
    refused = invoke("settings", "show", str(shop.yours.id))
    assert (refused.exit_code, "may not act for org" in refused.stderr) == (1, True)


def test_on_loopback_only_writing_needs_a_user(shop: Shop, make_world: MakeWorld, make_worker: MakeWorker) -> None:
    # A world of its own: in the group of `guarded` it would take partitions from it, and give them back at its end.
    worker = make_worker(make_world(), CONSENT_USERS_FILE=str(shop.file), CONSENT_RATE_LIMIT="5").start().ready()
    for path in (WRITING, "/v1.1/nothing", "/v1/inbound/nothing"):
        assert status(worker, path) == 401
        assert status(worker, path, auth=shop.me) == 404
    for path in ("/metrics", "/openapi.json"):
        assert (status(worker, path), status(worker, path, auth=("me", "wrong"))) == (200, 401)
    limited_and_guessed(worker, shop)
    assert worker.stop() == 0


def limited_and_guessed(worker: Worker, shop: Shop) -> None:
    """The worker's limits, one after the other; what it counts is seen from loopback."""
    with httpx.Client(base_url=worker.url, auth=shop.you) as client:
        answers = [client.get(WRITING) for _ in range(50)]
    assert {answer.status_code for answer in answers} == {404, 429}
    assert answers[0].status_code == 404
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"1"}
    guesses = [httpx.get(worker.url + WRITING, auth=("me", f"guess {number}")) for number in range(15)]
    assert guesses[-1].status_code == 429
    assert 1 <= int(guesses[-1].headers["retry-after"]) <= 6
    shown = httpx.get(f"{worker.url}/metrics").text
    assert 'consent_login_failures_total{reason="blocked"}' in shown
    assert 'consent_rate_limited_requests_total{user="you"}' in shown
    assert worker.errors.count("too many failed logins from 127.0.0.1") >= 1


# --- bodies ------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_413_with_and_without_a_length(guarded: Worker, shop: Shop) -> None:
    def pieces(count: int) -> Iterator[bytes]:
        yield from (b"x" * 10_000 for _ in range(count))

    path, auth = f"{guarded.url}/v1/eligibility", shop.me
    for content in (b"x" * (BODY_LIMIT + 1), pieces(BODY_LIMIT // 10_000 + 1)):
        answer = httpx.post(path, content=content, auth=auth)
        assert (answer.status_code, "max_body_bytes" in answer.text) == (413, True)
    assert "max_body_bytes" not in httpx.post(path, content=pieces(40), auth=auth).text


def test_an_endless_body_is_not_read_on(guarded: Worker) -> None:
    host, port = "127.0.0.1", int(guarded.url.rpartition(":")[2])
    head = (
        "POST /v1/eligibility HTTP/1.1\r\nHost: worker\r\nAuthorization: Bearer t0ken\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    piece = b"%x\r\n%s\r\n" % (10_000, b"x" * 10_000)
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert not all(_goes_out(connection, piece) for _ in range(100 * BODY_LIMIT // 10_000))


def _goes_out(connection: socket.socket, piece: bytes) -> bool:
    try:
        connection.sendall(piece)
    except TimeoutError:
        raise
    except OSError:  # whichever way the other side hangs up
        return False
    return True


# --- the file ----------------------------------------------------------------------------------------


def test_a_change_of_the_file_counts_without_a_restart(guarded: Worker, shop: Shop) -> None:
    new = ("new", "a new secret")
    path = f"/v1/orgs/{shop.mine.id}/settings"
    assert status(guarded, path, auth=shop.me) == 200
    shop.give(new, shop.mine.id)
    shop.give(shop.me, shop.yours.id)
    wait_for("the change of orgs to count", lambda: status(guarded, path, auth=shop.me) == 403)
    assert status(guarded, path, auth=new) == 200
    with changing(shop.file) as accounts:
        del accounts["new"]
    wait_for("the user to be gone", lambda: status(guarded, path, auth=new) == 401)
    before = shop.file.read_bytes()
    shop.file.write_text("nonsense\n")
    wait_for("the worker to say so", lambda: status(guarded, path, auth=shop.me) and "line 1" in guarded.errors)
    assert status(guarded, path, auth=shop.me) == 403
    shop.file.write_bytes(before)
    shop.give(shop.me, shop.mine.id)
    wait_for("the change back to count", lambda: status(guarded, path, auth=shop.me) == 200)


def test_a_faulty_or_missing_users_file_is_one_clear_line(
    world: World, make_worker: MakeWorker, tmp_path: Path
) -> None:
    file = tmp_path / "users"
    worker = make_worker(world, CONSENT_USERS_FILE=str(file))
    assert f"{file}: No such file" in refused(worker)
    file.write_text('{"name": "me", "orgs": [1], "hash": "my secret"}\n')
    line = refused(worker)
    assert f"{file}, line 1: hash: " in line
    assert "my secret" not in line


# --- HTTPS -------------------------------------------------------------------------------------------


class Certificate:
    """A certificate of its own for 127.0.0.1, as `openssl` makes it."""

    def __init__(self, folder: Path, name: str = "IP:127.0.0.1") -> None:
        self.cert, self.key = str(folder / "cert.pem"), str(folder / "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={name}"]
        subprocess.run([*command, "-keyout", self.key, "-out", self.cert], check=True, capture_output=True)
        self.env = {"CONSENT_SSL_CERTFILE": self.cert, "CONSENT_SSL_KEYFILE": self.key}

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.cert)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def pair(make_world: MakeWorld, make_worker: MakeWorker, certificate: Certificate, tmp_path_factory: Any) -> Any:
    """Two workers that serve HTTPS to users of a file and have no token; and a shop there."""
    world = make_world()
    shop = Shop(world, tmp_path_factory.mktemp("users") / "users.jsonl")
    env = SHORT_SESSION | certificate.env | {"CONSENT_USERS_FILE": str(shop.file)}
    workers = [make_worker(world, **env).start() for _ in range(2)]
    for worker in workers:
        worker.ready()

    def shared() -> bool:
        shown = [httpx.get(f"{worker.url}/metrics", verify=certificate.client).text for worker in workers]
        return all("consent_partitions_open 2.0" in text for text in shown)

    wait_for("both to have two partitions", shared)
    return workers, shop


def test_https_is_served_and_workers_ask_each_other_by_it_as_the_user(pair: Any, certificate: Certificate) -> None:
    workers, shop = pair
    customers = {shop.mine.home(str(number)): str(number) for number in range(50)}
    assert len(customers) == 4
    for customer in customers.values():
        shop.mine.opt_out(0, customer_id=customer)
    for worker in workers:
        assert worker.url.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=worker.url, verify=certificate.client, auth=shop.me, timeout=20) as client:
            for customer in customers.values():
                assert client.get(f"/v1/customers/{shop.mine.id}/{customer}").json()["cells"]
                asked = client.post("/v1/eligibility", content=dump(shop.mine.request(customer_id=customer)))
                assert asked.json()["reason"] == "opted_out"
        with pytest.raises(httpx.TransportError):
            httpx.get(worker.url.replace("https", "http") + "/livez")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{worker.url}/livez")


def test_commands_ask_by_https(pair: Any, certificate: Certificate, tmp_path: Path) -> None:
    (worker, _), shop = pair
    env = {"CONSENT_HTTP_PORT": worker.url.rpartition(":")[2], "CONSENT_SSL_CERTFILE": certificate.cert}
    assert invoke("settings", "show", str(shop.mine.id), "--json", env=env).exit_code == 0
    other = Certificate(tmp_path)
    result = invoke("settings", "show", str(shop.mine.id), env=env | {"CONSENT_SSL_CERTFILE": other.cert})
    assert result.exit_code == 1
    assert "certificate" in result.stderr
    assert "not to be trusted" in result.stderr
    wrong_name = invoke("settings", "show", str(shop.mine.id), "--http-host", "localhost", env=env)
    assert (wrong_name.exit_code, "CONSENT_HTTP_HOST" in wrong_name.stderr) == (1, True)


def test_a_certificate_that_cannot_be_used_is_one_clear_line(
    world: World, make_worker: MakeWorker, certificate: Certificate, tmp_path: Path
) -> None:
    other = Certificate(tmp_path)
    secret = str(tmp_path / "secret.pem")
    subprocess.run(["openssl", "ec", "-in", other.key, "-aes256", "-passout", "pass:x", "-out", secret], check=True,
                   capture_output=True)  # fmt: skip
    cert, key = certificate.cert, certificate.key
    for env, says in [
        ({"CONSENT_SSL_CERTFILE": "/no/such.pem"}, "CONSENT_SSL_CERTFILE: /no/such.pem: No such file"),
        ({"CONSENT_SSL_CERTFILE": cert, "CONSENT_SSL_KEYFILE": "/no"}, "CONSENT_SSL_KEYFILE: /no: No such file"),
        ({"CONSENT_SSL_KEYFILE": key}, "CONSENT_SSL_CERTFILE is not"),
        ({"CONSENT_SSL_CERTFILE": cert, "CONSENT_SSL_KEYFILE": other.key}, other.key),
        ({"CONSENT_SSL_CERTFILE": cert}, "in the same file"),
        ({"CONSENT_SSL_CERTFILE": other.cert, "CONSENT_SSL_KEYFILE": secret}, "encrypted"),
    ]:
        assert says in refused(make_worker(world, **env))
