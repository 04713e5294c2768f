"""A Kafka that asks who is there: TLS with certificates made here, logins, and rights that nobody has at first.

Three ways in, each with a port of its own: `bootstrap` in plain, for the tests themselves, who may do everything;
`scram` with TLS and a login; `mutual` with TLS and a certificate of the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from streams.broker import EmbeddedBroker
from streams.broker.ports import free_port

#: Kafka's numbers (`AclOperation`, `ResourceType`, `PatternType`).
OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Describe": 8, "DescribeConfigs": 10, "AlterConfigs": 11
}  # fmt: skip
RESOURCES = {"topic": 2, "group": 3, "transactional_id": 5}
PATTERNS = {"literal": 3, "prefixed": 4}
DENY, ALLOW = 2, 3

#: Everybody who can log in, beside `root`, who may do everything.
ROLES = ("worker", "producer", "campaigns", "gateway", "sender", "analyst", "operator")
USERS = ("root", *(f"consent-{role}" for role in (*ROLES, "repartition")))
LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def password(user: str) -> str:
    return f"s3cret-of-{user}"


class Certificates:
    """An authority and certificates of its making, in files named `<name>.pem` and `<name>.key`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        options = ["-x509", "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign"]
        _openssl("req", *options, *self._new_key("authority"), "-out", self.cafile, "-days", "2")

    @property
    def cafile(self) -> str:
        return self.file("authority.pem")

    def file(self, name: str) -> str:
        return str(self._folder / name)

    def issue(self, name: str) -> str:
        """A certificate for CN=<name>, good on 127.0.0.1; the file with it and its key."""
        request, extensions = self.file(f"{name}.csr"), self._folder / "extensions"
        _openssl("req", "-subj", f"/CN={name}", *self._new_key(name), "-out", request)
        extensions.write_text("basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n"
                              "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        authority = ["-CA", self.cafile, "-CAkey", self.file("authority.key"), "-CAcreateserial"]
        certificate = self.file(f"{name}.pem")
        _openssl("x509", "-req", "-in", request, *authority, "-extfile", extensions, "-out", certificate, "-days", "2")
        both = self._folder / f"{name}-both.pem"
        both.write_text(Path(self.file(f"{name}.key")).read_text() + Path(certificate).read_text())
        return str(both)

    def _new_key(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        return [*curve, "-nodes", "-keyout", self.file(f"{name}.key")]


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class SecuredKafka:
    """The broker; a `with` block."""

    def __init__(self, folder: Path, version: str) -> None:
        self.certificates = Certificates(folder / "certificates")
        plain, scram, mutual, controller = (free_port() for _ in range(4))
        self.bootstrap, self.scram, self.mutual = (f"127.0.0.1:{port}" for port in (plain, scram, mutual))
        ways = f"CLIENTS://{self.bootstrap},SCRAM://{self.scram},MUTUAL://{self.mutual}"
        stores = {"keystore": self.certificates.issue("kafka"), "truststore": self.certificates.cafile}
        properties = {
            "listeners": f"{ways},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": ways,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL",
            **{f"ssl.{store}.location": file for store, file in stores.items()},
            **{f"ssl.{store}.type": "PEM" for store in stores},
            "listener.name.mutual.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": LOGIN,
            "listener.name.scram.scram-sha-256.sasl.jaas.config": LOGIN,
            "listener.name.scram.plain.sasl.jaas.config": f'{PLAIN} user_root="{password("root")}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # ANONYMOUS is who comes in plain: the tests, and the broker itself.
            "super.users": "User:ANONYMOUS;User:root",
        }
        logins = [f"SCRAM-SHA-512=[name={user},password={password(user)}]" for user in USERS]
        logins.append(f"SCRAM-SHA-256=[name=root,password={password('root')}]")
        self.broker = EmbeddedBroker(
            folder / "kafka", plain, properties=properties, version=version,
            format_options=[word for login in logins for word in ("--add-scram", login)],
        )  # fmt: skip

    def __enter__(self) -> SecuredKafka:
        self.broker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.stop()

    def login(self, user: str) -> dict[str, str]:
        """The options of a product that logs in as this user."""
        return {
            "CONSENT_BOOTSTRAP_SERVERS": self.scram,
            "CONSENT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "CONSENT_KAFKA_USERNAME": user,
            "CONSENT_KAFKA_PASSWORD": password(user),
            "CONSENT_KAFKA_CAFILE": self.certificates.cafile,
        }

    def certificate(self, name: str) -> dict[str, str]:
        """The options of a product that shows a certificate for CN=<name>."""
        self.certificates.issue(name)
        return {
            "CONSENT_BOOTSTRAP_SERVERS": self.mutual,
            "CONSENT_KAFKA_SECURITY_PROTOCOL": "SSL",
            "CONSENT_KAFKA_CAFILE": self.certificates.cafile,
            "CONSENT_KAFKA_CERTFILE": self.certificates.file(f"{name}.pem"),
            "CONSENT_KAFKA_KEYFILE": self.certificates.file(f"{name}.key"),
        }

    def allow(self, commands: str) -> None:
        """Do what these lines of `kafka-acls.sh` would do, which is not there: only its words are read."""
        asyncio.run(self._allow([shlex.split(line) for line in commands.splitlines() if not line.startswith("#")]))

    def deny(self, user: str, operation: str, resource: str, name: str) -> None:
        """Take a right away, whatever was allowed."""
        kind, literal = RESOURCES[resource], PATTERNS["literal"]
        asyncio.run(
            self._send([CreateAclsRequest(kind, name, literal, f"User:{user}", "*", OPERATIONS[operation], DENY)])
        )

    async def _allow(self, commands: Sequence[Sequence[str]]) -> None:
        assert {tool for tool, *_ in commands} == {"kafka-acls.sh"}
        await self._send([request for _, *words in commands for request in _requests(words)])

    async def _send(self, requests: Sequence[CreateAclsRequest]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            for request in requests:
                answer = await admin._send_to_controller(request)
                assert [code for code, *_ in answer.creation_responses] == [0], answer
        finally:
            await admin.close()


def _requests(words: Sequence[str]) -> list[CreateAclsRequest]:
    """One command of `kafka-acls.sh --add` in Kafka's protocol; an unknown word fails."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--command-config")
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True, choices=OPERATIONS)
    parser.add_argument("--resource-pattern-type", default="literal", choices=PATTERNS)
    for resource in RESOURCES:
        parser.add_argument(f"--{resource.replace('_', '-')}")
    found = parser.parse_args(words)
    named: Mapping[str, str] = {name: value for name in RESOURCES if (value := getattr(found, name))}
    ((resource, name),) = named.items()
    pattern = PATTERNS[found.resource_pattern_type]
    return [
        CreateAclsRequest(
            RESOURCES[resource], name, pattern, found.allow_principal, "*", OPERATIONS[operation], ALLOW
        )
        for operation in found.operation
    ]
