"""How every part of the product connects to Kafka: the options in aiokafka's words, and why Kafka refuses them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams.certificates import check_readable, load_pair
from streams.config import SASL_MECHANISMS, Config, ConfigError

REFUSAL_S = 2.0  # a broker that lets us in or does not says so in milliseconds


def connection(config: Config) -> dict[str, Any]:
    """The arguments of every aiokafka client: where Kafka is and how to log in.

    Raises ConfigError if a certificate or its key cannot be used.
    """
    return {"bootstrap_servers": config.bootstrap_servers, **_login(config)}


def _login(config: Config) -> dict[str, Any]:
    login: dict[str, Any] = {"security_protocol": config.kafka_security_protocol}
    if config.kafka_has_tls:
        login["ssl_context"] = _tls(config)
    if config.kafka_has_login:
        login["sasl_mechanism"] = config.kafka_sasl_mechanism or SASL_MECHANISMS[0]
        login["sasl_plain_username"] = config.kafka_username
        login["sasl_plain_password"] = config.kafka_password
    return login


def _tls(config: Config) -> ssl.SSLContext:
    """Kafka's certificate must be one of the authorities', and name the host under which we call it."""
    check_readable(config, "kafka_cafile", "kafka_certfile", "kafka_keyfile")
    try:
        context = ssl.create_default_context(cafile=config.kafka_cafile or None)
    except ssl.SSLError:
        raise ConfigError(f"CONSENT_KAFKA_CAFILE: {config.kafka_cafile} holds no certificates in PEM") from None
    if config.kafka_certfile:
        load_pair(context, config, "kafka_certfile", "kafka_keyfile")
    return context


def _broken_if_closed(write: Callable[..., Any]) -> Callable[..., Any]:
    """The same method of aiokafka's connection, on a transport that a reset may have closed a moment ago.

    asyncio takes such a write in silence, and tells the reader in a moment. uvloop raises what aiokafka does not
    expect: it ended the task that keeps a client's metadata, and whoever asked that client for them waited for ever.
    """

    @wraps(write)
    def write_or_break(self: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
        try:
            return write(self, *args, **options)
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    return write_or_break


def survive_resets() -> None:
    """Let aiokafka's connections take a reset as one on uvloop, for the process that runs on it. Call it once."""
    for name in ("send", "_send_sasl_token"):
        setattr(AIOKafkaConnection, name, _broken_if_closed(getattr(AIOKafkaConnection, name)))


async def stop_consumer(consumer: AIOKafkaConsumer, stopping: Awaitable[None] | None = None) -> None:
    """Stop a consumer, whatever its fetches are at; `stopping`: what does it, if not its own `stop`.

    aiokafka cancels a fetch that waits to be tried again, lets the cancellation out as if whoever stops the consumer
    had been cancelled, and leaves the connections open.
    """
    try:
        await (stopping or consumer.stop())
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        await consumer._client.close()


async def refusal(config: Config) -> str | None:
    """Why Kafka does not let us in, in one line; None if it does, or is not there.

    aiokafka itself only says that it could not connect.
    """
    login = _login(config)
    with suppress(TimeoutError):
        async with asyncio.timeout(REFUSAL_S):
            for host, port, _ in collect_hosts(config.bootstrap_servers, randomize=False):
                try:
                    await _look_in(await create_conn(host, port, **login))
                except (OSError, KafkaError) as error:
                    if reason := _reason(config, error):
                        return f"Kafka at {host}:{port} {reason}"
    return None


async def anybody_answers(config: Config) -> bool:
    """Whether any of the configured addresses answers Kafka's protocol, and lets us in; waits REFUSAL_S at most."""

    async def answers(host: str, port: int) -> bool:
        try:
            async with asyncio.timeout(REFUSAL_S):
                conn = await create_conn(host, port, **_login(config))
        except (OSError, TimeoutError, KafkaError):
            return False
        conn.close()
        return True

    hosts = collect_hosts(config.bootstrap_servers, randomize=False)
    return any(await asyncio.gather(*(answers(host, port) for host, port, _ in hosts)))


async def _look_in(connection: AIOKafkaConnection) -> None:
    # A broker that asks for a login talks of its version to everybody, and of its topics to none but users.
    try:
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


def _reason(config: Config, error: BaseException) -> str | None:
    protocol = f"CONSENT_KAFKA_SECURITY_PROTOCOL is {config.kafka_security_protocol}"
    # What broke a connection while it was waited for an answer is the cause of what the waiting raises.
    error = error.__cause__ or error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {error.verify_message} (CONSENT_KAFKA_CAFILE)"
    if isinstance(error, SaslAuthenticationFailed):
        return f"refuses the user {config.kafka_username!r} or its password (CONSENT_KAFKA_USERNAME, .._PASSWORD)"
    if isinstance(error, UnsupportedSaslMechanismError):
        mechanism = config.kafka_sasl_mechanism or SASL_MECHANISMS[0]
        return f"does not take CONSENT_KAFKA_SASL_MECHANISM {mechanism}"
    if isinstance(error, IllegalSaslStateError):
        return f"asks for no login, but {protocol}"
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        if not config.kafka_certfile:
            return "asks for a certificate of ours (CONSENT_KAFKA_CERTFILE)"
        return f"does not accept our certificate: {error.reason} (CONSENT_KAFKA_CERTFILE)"
    if isinstance(error, (ssl.SSLError, ConnectionResetError, EOFError, KafkaError)):
        return f"ends the connection at once: {protocol}, is that what it listens for?"
    return None
