"""How to connect to Kafka: options that contradict each other, or name files that cannot be used, are refused."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from streams.config import Config, ConfigError, from_environment
from streams.kafka.connection import connection
from tests.cli.world import invoke

SERVER = {"BOOTSTRAP_SERVERS": "kafka:9092"}
TLS = SERVER | {"KAFKA_SECURITY_PROTOCOL": "SSL"}
LOGIN = SERVER | {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "s3cret"}
SASL = LOGIN | {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}


def config_of(options: dict[str, str]) -> Config:
    return from_environment({f"CONSENT_{name}": value for name, value in options.items()})


@pytest.mark.parametrize(
    ("options", "variable", "fault"),
    [
        (SERVER | {"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL", "'TLS' is not one of PLAINTEXT, SSL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SECURITY_PROTOCOL", "needs CONSENT_BOOTSTRAP_SERVERS"),
        (SASL | {"KAFKA_SASL_MECHANISM": "GSSAPI"}, "KAFKA_SASL_MECHANISM", "'GSSAPI' is not one of SCRAM-SHA-512"),
        (SERVER | {"FENCE": "guess"}, "FENCE", "'guess' is not one of fetch, ask"),
        (SERVER | {"KAFKA_SASL_MECHANISM": "PLAIN"}, "KAFKA_SASL_MECHANISM", "is PLAINTEXT, which has no login"),
        (TLS | {"KAFKA_USERNAME": "u"}, "KAFKA_USERNAME", "is SSL, which has no login"),
        (SERVER | {"KAFKA_PASSWORD": "s3cret"}, "KAFKA_PASSWORD", "is PLAINTEXT, which has no login"),
        (SASL | {"KAFKA_USERNAME": ""}, "KAFKA_USERNAME", "SASL_PLAINTEXT needs one"),
        (SASL | {"KAFKA_PASSWORD": ""}, "KAFKA_PASSWORD", "SASL_PLAINTEXT needs one"),
        (SERVER | {"KAFKA_CAFILE": "ca"}, "KAFKA_CAFILE", "is PLAINTEXT, which has no TLS"),
        (SASL | {"KAFKA_CERTFILE": "c"}, "KAFKA_CERTFILE", "is SASL_PLAINTEXT, which has no TLS"),
        (TLS | {"KAFKA_KEYFILE": "k"}, "KAFKA_KEYFILE", "no CONSENT_KAFKA_CERTFILE"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, str], variable: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^CONSENT_{variable}: ") as refused:
        config_of(options)
    assert fault in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_without_a_word_kafka_is_called_in_plain() -> None:
    assert connection(config_of(SERVER)) == {"bootstrap_servers": "kafka:9092", "security_protocol": "PLAINTEXT"}


def test_the_mechanism_is_the_strongest_unless_another_is_named() -> None:
    assert connection(config_of(SASL))["sasl_mechanism"] == "SCRAM-SHA-512"
    assert connection(config_of(SASL | {"KAFKA_SASL_MECHANISM": "PLAIN"}))["sasl_mechanism"] == "PLAIN"


@pytest.mark.parametrize("name", ["KAFKA_CAFILE", "KAFKA_CERTFILE", "KAFKA_KEYFILE"])
def test_a_file_that_is_missing_or_holds_something_else_is_named(name: str, tmp_path: Path) -> None:
    options = TLS | {"KAFKA_CERTFILE": str(_certificate(tmp_path))}
    assert connection(config_of(options))["ssl_context"]
    wrong = tmp_path / "wrong.pem"
    with pytest.raises(ConfigError, match=rf"CONSENT_{name}: {wrong}: No such file"):
        connection(config_of(options | {name: str(wrong)}))
    wrong.write_text("no PEM")
    with pytest.raises(ConfigError, match=str(wrong)) as refused:
        connection(config_of(options | {name: str(wrong)}))
    assert "PEM" in str(refused.value)


def test_an_encrypted_key_is_refused_and_never_asked_about(tmp_path: Path) -> None:
    file = _certificate(tmp_path, "-passout", "pass:s3cret")
    with pytest.raises(ConfigError, match="the private key is encrypted"):
        connection(config_of(TLS | {"KAFKA_CERTFILE": str(file)}))


def _certificate(folder: Path, *passphrase: str) -> Path:
    """A certificate and its key in one file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = ["openssl", "req", "-x509", "-subj", "/CN=c", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    words += passphrase or ["-nodes"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return certificate


def test_a_bad_file_is_one_line_of_a_command(tmp_path: Path) -> None:
    env = {f"CONSENT_{name}": value for name, value in (TLS | {"KAFKA_CAFILE": str(tmp_path / "none")}).items()}
    result = invoke("topics", "check", env=env)
    assert result.exit_code == 1
    assert result.stderr == f"Error: CONSENT_KAFKA_CAFILE: {tmp_path / 'none'}: No such file or directory\n"


def test_no_secret_has_an_option_or_is_shown_with_the_options() -> None:
    config = config_of(SASL | {"HTTP_TOKEN": "s3cret", "HTTP_USER": "u:s3cret", "LINK_SECRET": "s3cret"})
    assert config.kafka_password == SASL["KAFKA_PASSWORD"]
    assert "s3cret" not in repr(config)
    help_text = invoke("worker", "--help").stdout
    assert "--kafka-username" in help_text
    assert "--kafka-password" not in help_text


# --- the listing of rights ---------------------------------------------------------------------------


def test_rights_are_listed_for_names_of_ones_own() -> None:
    words = ["--role", "campaigns", "--principal", "campaigns=User:CN=engine,O=Example Ltd", "--group", "campaigns=g 1"]
    result = invoke("topics", "acls", *words, "--topic-prefix", "p-", "--command-config", "admin.properties",
                    env={"CONSENT_BOOTSTRAP_SERVERS": "kafka:9092"})  # fmt: skip
    start = "kafka-acls.sh --bootstrap-server kafka:9092 --command-config admin.properties --add"
    start += " --allow-principal 'User:CN=engine,O=Example Ltd' --operation"
    assert result.stdout.splitlines() == [
        "# campaigns: asks whether it may send, and reads the decisions",
        f"{start} Write --topic p-eligibility.requests",
        f"{start} Read --topic p-eligibility.decisions",
        f"{start} Read --group 'g 1'",
    ]


def test_rights_are_listed_for_machines_too() -> None:
    lines = [line for line in invoke("topics", "acls").stdout.splitlines() if not line.startswith("#")]
    rows = json.loads(invoke("topics", "acls", "--json").stdout)
    assert [row["command"] for row in rows] == [shlex.split(line) for line in lines]
    assert set(rows[0]) == {"role", "principal", "resource", "name", "operations", "prefixed", "command"}


def test_no_right_is_for_everything_and_none_changes_or_deletes() -> None:
    rows = json.loads(invoke("topics", "acls", "--org", "100", "--json").stdout)
    assert not any("*" in row["name"] for row in rows)
    assert [row["name"] for row in rows if row["prefixed"]] == ["consent-streams-"]
    assert {word for row in rows for word in row["operations"]} == {
        "Read", "Write", "Create", "Describe", "DescribeConfigs"
    }  # fmt: skip
    assert {row["name"] for row in rows if row["resource"] == "transactional-id"} == {
        "consent-streams-", "consent-settings-100"
    }  # fmt: skip
    all_orgs = json.loads(invoke("topics", "acls", "--json").stdout)
    assert [row["name"] for row in all_orgs if row["prefixed"]] == ["consent-streams-", "consent-settings-"]


def test_the_rights_to_repartition_are_listed_with_the_prefix_of_the_new_topics_only() -> None:
    words = ["topics", "acls", "--topic-prefix", "old-", "--json"]
    assert "repartition" not in {row["role"] for row in json.loads(invoke(*words).stdout)}
    rows = json.loads(invoke(*words, "--role", "repartition", "--to-prefix", "new-").stdout)
    assert {row["role"] for row in rows} == {"repartition"}
    assert not any(row["prefixed"] for row in rows)
    changing = {"Write", "Create", "Delete"}
    assert not [row for row in rows if row["name"].startswith("old-") and changing & set(row["operations"])]
    assert [row["name"] for row in rows if "Delete" in row["operations"]] == ["new-consent.notifications"]


@pytest.mark.parametrize(
    "wrong",
    [["--principal", "nobody=User:x"], ["--principal", "worker"], ["--group", "worker=g"], ["--role", "repartition"]],
)
def test_a_role_that_does_not_exist_is_wrong_use(wrong: list[str]) -> None:
    result = invoke("topics", "acls", *wrong)
    assert result.exit_code == 2
    assert wrong[0] in result.stderr
