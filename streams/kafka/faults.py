"""What goes wrong with Kafka, as one line fit for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    ProducerFenced,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    for_code,
)

from streams.config import Config

#: What aiokafka raises where Kafka is not there, or does not let us in, or does not let us do something.
ABSENT = (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError, TimeoutError)
DENIED = (
    TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)  # fmt: skip


class KafkaFault(Exception):  # noqa: N818 - what the operator sees; not an error of ours
    """Kafka cannot be reached, or refused what was asked; the message is one line."""


class TopicMissing(KafkaFault):
    """A topic that is needed does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"topic {name} does not exist: create it with `consent-streams topics create`")


@contextmanager
def plain_faults(config: Config) -> Iterator[None]:
    """Turn what aiokafka raises inside the block into a KafkaFault with one clear line."""
    try:
        yield
    except ABSENT as error:
        raise KafkaFault(
            f"Kafka does not answer at {config.bootstrap_servers}: "
            "is it running, and is CONSENT_BOOTSTRAP_SERVERS (--bootstrap-servers) right?"
        ) from error
    except (IncompatibleBrokerVersion, NotImplementedError) as error:
        raise KafkaFault(f"the Kafka at {config.bootstrap_servers} is too old: 2.8 or newer is needed") from error
    except ProducerFenced as error:
        raise KafkaFault("another command of the same kind took over; try again when it is done") from error
    except MessageSizeTooLargeError as error:
        text = "Kafka takes no record of this size there; is the topic closed? `consent-streams topics check` says it"
        raise KafkaFault(text) from error
    except DENIED as error:
        raise denied(config, " ".join(str(error).split())) from error
    except KafkaError as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise KafkaFault(f"Kafka refused it: {text}") from error


def check(code: int, text: str) -> None:
    """Raises what Kafka's code says: an error that passes as it is, any other as a KafkaFault of this text."""
    error = for_code(code)
    if code and error.retriable:
        raise error(text)
    if code:
        raise KafkaFault(text)


def denied(config: Config, what: str) -> KafkaFault:
    user = config.kafka_username or "this client"
    return KafkaFault(f"Kafka denies {user}: {what} (`consent-streams topics acls` lists what each role needs)")
