"""The session's broker: import what is here into the root conftest to have it in every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.broker import KAFKA_VERSION, ChosenBroker, EmbeddedBroker, find_or_start

OPTION = "--kafka-version"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kafka-version 3.9.2` runs the tests on that Kafka, embedded; see `make matrix`."""
    parser.addoption(OPTION, metavar="VERSION", help="run on this version of Kafka, embedded; its jars come from Maven")


@pytest.fixture(scope="session")
def kafka_version(request: pytest.FixtureRequest) -> str:
    """The version for a broker that a test starts by itself: `EmbeddedBroker(..., version=kafka_version)`."""
    return request.config.getoption(OPTION) or KAFKA_VERSION


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChosenBroker]:
    """A broker chosen as the product chooses, with data and a port of its own; `kafka.bootstrap` is its address.

    With `--kafka-version` it is an embedded one of that version. Shared by the whole session: use topic and group names
    that no other test uses, and do not stop it. A test that kills, suspends or restarts a broker starts an
    `EmbeddedBroker` of its own.
    """
    folder = tmp_path_factory.mktemp("kafka")
    version = request.config.getoption(OPTION)
    if version:
        embedded = EmbeddedBroker(folder, version=version).start()
        broker = ChosenBroker(embedded.bootstrap, "embedded", embedded.stop)
    else:
        broker = find_or_start(folder, port=0)
    yield broker
    broker.stop()
