"""A broker that may be hurt, and rounds on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from streams.broker import EmbeddedBroker
from tests.chaos.driver import BROKER, Round
from tests.cluster import Cluster
from tests.integration.harness import Loop

MakeRound = Callable[..., Round]


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Clients of a broker that is hurt say so, hundreds of times."""
    log = logging.getLogger("aiokafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker of our own."""
    with EmbeddedBroker(tmp_path_factory.mktemp("chaos-broker"), properties=BROKER) as broker:
        yield broker


@pytest.fixture(scope="module")
def make_cluster_round(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRound]:
    """Makes a round on a cluster of the module's own."""
    with Cluster(tmp_path_factory.mktemp("cluster"), properties=BROKER) as cluster:
        yield lambda seed: Round(cluster, loop, tmp_path_factory.mktemp("round"), seed)


@pytest.fixture(scope="session")
def make_round(
    broker: EmbeddedBroker, loop: Loop, tmp_path_factory: pytest.TempPathFactory
) -> MakeRound:
    """Makes a round with a seed."""
    return lambda seed, kind=Round: kind(broker, loop, tmp_path_factory.mktemp("round"), seed)
