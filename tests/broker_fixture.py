"""The session's broker: import `kafka` into the root conftest to have it in every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.broker import ChosenBroker, find_or_start


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChosenBroker]:
    """A broker chosen as the product chooses, with data and a port of its own; `kafka.bootstrap` is its address.

    Shared by the whole session: use topic and group names that no other test uses, and do not stop it. A test that
    kills, suspends or restarts a broker starts an `EmbeddedBroker` of its own.
    """
    broker = find_or_start(tmp_path_factory.mktemp("kafka"), port=0)
    yield broker
    broker.stop()
