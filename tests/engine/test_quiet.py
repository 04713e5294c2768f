"""A healthy worker logs nothing: Faust's watch over aiokafka's fetches, of which there are none, is off."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.engine import transport

TPS = {TP("consent.changes", number) for number in range(6)}
#: Longer than Faust waits before it says something.
IDLE_S = 3600.0


class Thread(transport.ConsumerThread):
    """A consumer thread of an hour ago, which has sent none of aiokafka's own fetches."""

    def __init__(self) -> None:
        self.log = logging.getLogger("faust.transport.drivers.aiokafka")
        self.time_started = monotonic() - IDLE_S
        self.tp_fetch_request_timeout_secs = 300.0

    def _ensure_consumer(self) -> Any:
        state = SimpleNamespace(timestamp=None)
        assignment = SimpleNamespace(active=True, state_value=lambda _: state)
        subscriptions = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        return SimpleNamespace(_fetcher=SimpleNamespace(_subscriptions=subscriptions))


class Idle(transport.Consumer):
    """A consumer of partitions that nothing comes from."""

    should_stop = False

    def __init__(self) -> None:
        self._thread = Thread()

    def assignment(self) -> set[TP]:
        return TPS

    async def sleep(self, n: float) -> None:  # type: ignore[override]
        """No time passes."""


async def watch(consumer: Idle) -> None:
    """What Faust does every few seconds, and while it recovers."""
    await consumer.verify_all_partitions_active()
    for tp in TPS:
        consumer.verify_recovery_event_path(monotonic(), tp)


def test_an_idle_consumer_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(watch(Idle()))
    assert caplog.messages == []


def test_faust_would_log_each_partition_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The override can go when this fails."""
    for name in ("verify_event_path", "verify_recovery_event_path"):
        monkeypatch.setattr(transport.ConsumerThread, name, getattr(driver.AIOKafkaConsumerThread, name))
    asyncio.run(watch(Idle()))
    assert len(caplog.messages) == 2 * len(TPS)
    assert "has not sent fetch request" in caplog.messages[0]
