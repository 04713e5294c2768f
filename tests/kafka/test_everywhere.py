"""One record to every partition, all or none, while brokers and coordinators go away in the midst of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, NotEnoughReplicasError, ProducerFenced

from streams.config import Config
from streams.kafka import everywhere
from streams.kafka.everywhere import OutcomeUnknown, send_settings
from streams.kafka.faults import KafkaFault
from streams.kafka.patience import PATIENCE_S, wait_at_most

PARTITIONS = 2
CONFIG = Config(bootstrap_servers="b:1")


class Kafka:
    """A topic of two partitions, and what happens at each attempt: at the writing, and at the commit."""

    def __init__(self, *attempts: tuple[BaseException | None, BaseException | None, bool]) -> None:
        """Of each attempt: how the writing fails, how the commit does, and whether it is committed all the same."""
        self.attempts = list(attempts)
        self.logs: list[list[tuple[str, bool]]] = [[] for _ in range(PARTITIONS)]
        self.producers = 0
        self.aborted = 0
        #: Somebody else's open transaction hides what lies behind, for so many looks.
        self.hidden = 0
        #: How often all partitions' leaders were asked.
        self.looked = 0

    @property
    def committed(self) -> list[list[str]]:
        return [[value for value, is_committed in log if is_committed] for log in self.logs]


class Producer:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._written: list[tuple[int, int]] = []
        kafka.producers += 1
        self._writing, self._committing, self._is_committed = kafka.attempts.pop(0) if kafka.attempts else (None,) * 3

    async def begin_transaction(self) -> None:
        pass

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(PARTITIONS))

    async def send(self, topic: str, value: str, key: str, partition: int, headers: list[Any]) -> Any:
        log = self._kafka.logs[partition]
        sent = asyncio.get_running_loop().create_future()
        if self._writing is not None and partition == PARTITIONS - 1:
            sent.set_exception(self._writing)
        else:
            log.append((value, False))
            self._written.append((partition, len(log) - 1))
            sent.set_result(SimpleNamespace(topic=topic, partition=partition, offset=len(log) - 1))
        return sent

    async def commit_transaction(self) -> None:
        if self._committing is None or self._is_committed:
            for partition, offset in self._written:
                self._kafka.logs[partition][offset] = (self._kafka.logs[partition][offset][0], True)
        if self._committing is not None:
            raise self._committing

    async def abort_transaction(self) -> None:
        self._kafka.aborted += 1

    async def stop(self) -> None:
        pass


class Reader:
    def __init__(self, kafka: Kafka, partitions: list[int]) -> None:
        self._kafka = kafka
        self._partition = partitions[0]
        self._is_of_all = len(partitions) == PARTITIONS

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ends(self) -> dict[int, int]:
        if self._is_of_all:
            self._kafka.looked += 1
            return {}
        self._kafka.hidden -= 1
        return {self._partition: 0 if self._kafka.hidden >= 0 else len(self._kafka.logs[self._partition])}

    async def bundles(self, start: dict[int, int], *, follow: bool) -> AsyncIterator[list[Any]]:
        log = self._kafka.logs[self._partition]
        found = [SimpleNamespace(offset=at) for at in range(start[self._partition], len(log)) if log[at][1]]
        if found:
            yield found


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(everywhere, "LOOK_S", 0.3)
    monkeypatch.setattr(everywhere, "POLL_S", 0.01)
    wait_at_most(2.0)
    yield
    wait_at_most(PATIENCE_S)


def send(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where the record lies."""

    async def partitions_of(config: Config, topic: str) -> int:
        return PARTITIONS

    async def started_producer(config: Config, name: str, transaction_ms: int) -> Producer:
        assert name == CONFIG.settings_writer(100)
        return Producer(kafka)

    def fake_reader(config: Config, topic: str, partitions: list[int] | None = None) -> Reader:
        return Reader(kafka, partitions or list(range(PARTITIONS)))

    monkeypatch.setattr(everywhere, "partitions_of", partitions_of)
    monkeypatch.setattr(everywhere, "started_producer", started_producer)
    monkeypatch.setattr(everywhere, "Reader", fake_reader)
    sent = asyncio.run(send_settings(CONFIG, "t", 100, b"100:", b"v"))
    return [(one.partition, one.offset) for one in sent]


ONCE = [[b"v"], [b"v"]]


def test_it_is_in_every_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka()
    assert send(kafka, monkeypatch) == [(0, 0), (1, 0)]
    assert (kafka.committed, kafka.producers, kafka.looked) == (ONCE, 1, 1)


def test_what_fails_before_the_commit_is_given_up_and_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka((NotEnoughReplicasError(), None, False), (KafkaError("unexpected"), None, False))
    assert send(kafka, monkeypatch) == [(0, 2), (1, 0)]
    assert (kafka.committed, kafka.aborted) == (ONCE, 2)


@pytest.mark.parametrize("error", [TimeoutError(), KafkaError("coordinator"), ProducerFenced()])
def test_a_commit_that_nobody_answered_is_looked_for(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(everywhere, "TRANSACTION_MS", 0)
    done = Kafka((None, error, True))
    assert send(done, monkeypatch) == [(0, 0), (1, 0)]
    assert (done.committed, done.producers, done.aborted) == (ONCE, 2, 0)
    undone = Kafka((None, error, False))
    assert send(undone, monkeypatch) == [(0, 1), (1, 1)]
    assert undone.committed == ONCE


def test_it_is_looked_for_behind_what_others_have_open(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka((None, TimeoutError(), True))
    kafka.hidden = 3
    assert send(kafka, monkeypatch) == [(0, 0), (1, 0)]
    assert kafka.committed == ONCE


def test_another_command_that_takes_over_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka((ProducerFenced(), None, False))
    with pytest.raises(KafkaFault, match="took over"):
        send(kafka, monkeypatch)
    assert kafka.committed == [[], []]


def test_a_transaction_that_kafka_gave_up_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere, "TRANSACTION_MS", 0)
    kafka = Kafka((ProducerFenced(), None, False))
    send(kafka, monkeypatch)
    assert kafka.committed == ONCE


def test_what_is_refused_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka((MessageSizeTooLargeError(), None, False))
    with pytest.raises(KafkaFault, match="no record of this size"):
        send(kafka, monkeypatch)
    assert (kafka.producers, kafka.aborted) == (1, 1)


def test_once_the_time_is_up_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_at_most(0.2)
    kafka = Kafka(*[(TimeoutError(), None, False)] * 1000)
    with pytest.raises(KafkaFault, match="does not answer") as raised:
        send(kafka, monkeypatch)
    assert not isinstance(raised.value, OutcomeUnknown)
    assert kafka.committed == [[], []]


def test_that_the_outcome_is_unknown_is_said_with_how_to_find_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_at_most(0.2)
    kafka = Kafka((None, TimeoutError(), True))
    kafka.hidden = 1_000_000
    with pytest.raises(OutcomeUnknown, match="`consent-streams settings show 100` tells"):
        send(kafka, monkeypatch)
