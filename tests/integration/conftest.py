"""Worlds and workers that end with the module that asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from streams.broker import ChosenBroker
from tests.integration.harness import PARTITIONS, Loop, Worker, World
from tests.integration.secured import SecuredKafka

MakeWorld = Callable[..., World]
MakeWorker = Callable[..., Worker]


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """The event loop of all Kafka clients of the tests."""
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def secured(kafka_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A Kafka with TLS, logins and rights; not to be hurt."""
    with SecuredKafka(tmp_path_factory.mktemp("secured"), kafka_version) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def make_world(kafka: ChosenBroker, loop: Loop) -> Iterator[MakeWorld]:
    """Makes topics under a new prefix, on the session's broker or another one."""
    worlds: list[World] = []

    def make(partitions: int = PARTITIONS, bootstrap: str = "") -> World:
        worlds.append(World(bootstrap or kafka.bootstrap, loop, partitions))
        return worlds[-1].create_topics()

    yield make
    for world in worlds:
        world.close()


@pytest.fixture(scope="module")
def make_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeWorker]:
    """Makes a worker of a world, with a data folder of its own, not started yet."""
    workers: list[Worker] = []
    number = count()

    def make(world: World, **env: str) -> Worker:
        workers.append(Worker(world.env | env, tmp_path_factory.mktemp(f"worker-{next(number)}")))
        return workers[-1]

    yield make
    for worker in workers:
        worker.end()


@pytest.fixture(scope="module")
def world(make_world: MakeWorld) -> World:
    """The module's own topics."""
    return make_world()


@pytest.fixture(scope="module")
def worker(world: World, make_worker: MakeWorker) -> Worker:
    """The module's one worker, ready."""
    return make_worker(world).start().ready()
