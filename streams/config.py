"""The options of every command, from `CONSENT_*` environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """An option has a value that cannot be used; the message names the variable and the fault."""


def default_datadir() -> Path:
    """Where state and the embedded broker's data live unless `CONSENT_DATADIR` says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "consent-streams"


#: How to talk to Kafka, and how a user name and a password travel.
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


def _option(
    default: Any,
    doc: str,
    *,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    factory = default if callable(default) else (lambda: default)
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "secret": secret}
    return field(default_factory=factory, metadata=metadata, repr=not secret)


#: What CONSENT_READ_BARRIER=leader gives up.
NOT_PROMISED = "CONSENT_READ_BARRIER is leader: after a change of leader, acknowledged changes can be missed"


@dataclass(frozen=True, slots=True)
class Config:
    """One worker's or command's options. Field `x_y` is the environment variable `CONSENT_X_Y`."""

    bootstrap_servers: str = _option("", "Kafka's address, HOST:PORT[,HOST:PORT]; empty: find or start a broker")
    kafka_security_protocol: str = _option(
        "PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", choices=SECURITY_PROTOCOLS
    )
    kafka_sasl_mechanism: str = _option(
        "", "SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN; empty: SCRAM-SHA-512", choices=SASL_MECHANISMS
    )
    kafka_username: str = _option("", "user to log in to Kafka as (SASL)")
    kafka_password: str = _option("", "that user's password", secret=True)
    kafka_cafile: str = _option("", "authorities (PEM) to trust Kafka's certificate by; empty: the system's")
    kafka_certfile: str = _option("", "certificate chain (PEM) to show to Kafka (mutual TLS)")
    kafka_keyfile: str = _option("", "private key (PEM) of that certificate; empty: it is in the same file")
    datadir: Path = _option(default_datadir, "folder of the state and of the embedded broker's data")
    partitions: int = _option(8, "partitions of every topic", low=1, high=10_000)
    replication: int = _option(1, "replication factor for `topics create`", low=1, high=100)
    topic_prefix: str = _option("", "stands before every topic name, and the consumer group's")
    http_host: str = _option("127.0.0.1", "address the worker's HTTP listens on")
    http_port: int = _option(6066, "port the worker's HTTP listens on; 0: any free one", low=0, high=65_535)
    http_advertised_url: str = _option("", "URL under which other workers reach this one; empty: host and port above")
    http_token: str = _option(
        "", "bearer token for HTTP: the operator's, and between workers; acts for every org", secret=True
    )
    http_user: str = _option("", "NAME:PASSWORD with which commands ask a worker, if they have no token", secret=True)
    users_file: str = _option("", "file of the users who may use HTTP, see `consent-streams users add`")
    rate_limit: int = _option(500, "requests per second that one user may make of one worker", low=1, high=1_000_000)
    max_body_bytes: int = _option(1_048_576, "larger HTTP requests are refused", low=1_024, high=100_000_000)
    ssl_certfile: str = _option("", "certificate chain (PEM) to serve HTTPS with")
    ssl_keyfile: str = _option("", "private key (PEM) of the certificate; empty: it is in the same file")
    public_url: str = _option("", "URL that customers reach a worker's links under; empty: the worker's own")
    link_secret: str = _option(
        "", "signs links, the same for all workers; empty: made once in the data folder", secret=True
    )
    standby_replicas: int = _option(0, "copies of each partition's state kept warm on other workers", low=0, high=100)
    session_timeout_ms: int = _option(
        10_000, "silence after which a worker's partitions move", low=1_000, high=3_600_000
    )
    heartbeat_ms: int = _option(1_000, "interval of a worker's signs of life", low=100, high=600_000)
    instance_id: str = _option("", "static group membership: a name that survives restarts, unique per worker")
    max_wait_ms: int = _option(
        5_000, "how long a request waits for the state, unless it says itself", low=0, high=60_000
    )
    fence: str = _option(
        "fetch",
        "fetch, or ask: where brokers do not read a fetch's partitions in their order",
        choices=("fetch", "ask"),
    )
    read_barrier: str = _option(
        "quorum",
        "quorum, or leader: where the other replicas do not answer; then a replaced leader can hide changes",
        choices=("quorum", "leader"),
    )
    max_record_bytes: int = _option(262_144, "larger inputs are dead letters (too_large)", low=1_024, high=1_000_000)
    batch_records: int = _option(1_000, "most changes in one checkpoint", low=1, high=100_000)
    log_level: str = _option("info", "debug, info, warning or error", choices=("debug", "info", "warning", "error"))
    log_format: str = _option(
        "text", "a worker's log on stderr: text, or json, one object a line", choices=("text", "json")
    )

    def topic(self, name: str) -> str:
        """The full name of a topic: prefix and name."""
        return self.topic_prefix + name

    @property
    def group(self) -> str:
        """The consumer group, which is also Faust's app id."""
        return self.topic_prefix + "consent-streams"

    def settings_writer(self, org_id: int | str) -> str:
        """The transactional id under which an org's settings are written: one writer per org at a time."""
        return f"{self.topic_prefix}consent-settings-{org_id}"

    @property
    def owner_ids(self) -> str:
        """How the transactional ids begin by which a worker becomes the only one to write a partition's outputs."""
        return self.group + "-"

    @property
    def copier(self) -> str:
        """Who copies into these topics: the group that holds how far the copy is, and its transactional id."""
        return f"{self.topic_prefix}consent-repartition"

    @property
    def kafka_has_tls(self) -> bool:
        """Whether connections to Kafka are encrypted."""
        return self.kafka_security_protocol.endswith("SSL")

    @property
    def kafka_has_login(self) -> bool:
        """Whether a user name and a password are shown to Kafka."""
        return self.kafka_security_protocol.startswith("SASL")

    @property
    def listens_on_loopback(self) -> bool:
        """Whether HTTP can only be reached from this machine."""
        return self.http_host in {"localhost", "::1"} or self.http_host.startswith("127.")


def from_environment(environ: Mapping[str, str] | None = None, **overrides: Any) -> Config:
    """Build the options from `CONSENT_*`; `overrides` that are not None win. Raises ConfigError."""
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for f in fields(Config):
        name = "CONSENT_" + f.name.upper()
        given = overrides.get(f.name)
        raw = given if given is not None else env.get(name)
        if raw is not None and raw != "":
            values[f.name] = _convert(name, str(f.type), raw, f.metadata)
    config = Config(**values)
    if config.http_user and not config.http_user.partition(":")[2]:
        raise ConfigError("CONSENT_HTTP_USER: the value is not NAME:PASSWORD")
    if config.heartbeat_ms * 3 > config.session_timeout_ms:
        raise ConfigError("CONSENT_HEARTBEAT_MS: at most a third of CONSENT_SESSION_TIMEOUT_MS")
    _check_kafka(config)
    return config


def _check_kafka(config: Config) -> None:
    """What is said of Kafka must fit together: a login that would not be used was surely meant to be."""
    protocol, variable = config.kafka_security_protocol, "CONSENT_KAFKA_SECURITY_PROTOCOL"
    if protocol != "PLAINTEXT" and not config.bootstrap_servers:
        raise ConfigError(f"{variable}: {protocol} needs CONSENT_BOOTSTRAP_SERVERS; the embedded Kafka is PLAINTEXT")
    login, certificate = ("kafka_username", "kafka_password"), ("kafka_certfile", "kafka_keyfile")
    for used, names, kind in (
        (config.kafka_has_login, ("kafka_sasl_mechanism", *login), "login"),
        (config.kafka_has_tls, ("kafka_cafile", *certificate), "TLS"),
    ):
        for name in names:
            if getattr(config, name) and not used:
                raise ConfigError(f"CONSENT_{name.upper()}: {variable} is {protocol}, which has no {kind}")
    for name in login:
        if config.kafka_has_login and not getattr(config, name):
            raise ConfigError(f"CONSENT_{name.upper()}: {protocol} needs one")
    if config.kafka_keyfile and not config.kafka_certfile:
        raise ConfigError("CONSENT_KAFKA_KEYFILE: there is no CONSENT_KAFKA_CERTFILE that it belongs to")


def _convert(name: str, kind: str, raw: Any, meta: Mapping[str, Any]) -> Any:
    if kind == "Path":
        return Path(raw).expanduser()
    if kind != "int":
        text, choices = str(raw), meta["choices"]
        if choices and text not in choices:
            raise ConfigError(f"{name}: {text!r} is not one of {', '.join(choices)}")
        return text
    try:
        value = int(raw)
    except ValueError:
        raise ConfigError(f"{name}: {raw!r} is not a whole number") from None
    low, high = meta["low"], meta["high"]
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} is not between {low} and {high}")
    return value
