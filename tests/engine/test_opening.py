"""What the consumer hands out reaches the engine, or the worker ends: from the first record of an opening on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.tables.recovery import Recovery
from faust.types import TP
from mode.utils.queues import FlowControlEvent, FlowControlQueue

from streams.config import Config
from streams.engine import transport
from streams.engine.core import Engine, Tables
from streams.engine.records import Batch, Joints, LostError
from streams.kafka.records import Record

SOURCE = TP("consent.changes", 0)
#: More turns of the loop than Faust takes from the end of the opening to the emptying of its queues.
TURNS = 20


class Opening(transport.Consumer):
    """A consumer of one record, which is there to be fetched at any time."""

    should_stop = False

    def __init__(self, flow_control: FlowControlEvent) -> None:
        self.can_resume_flow, self.suspend_flow = asyncio.Event(), asyncio.Event()
        self.queue: asyncio.Queue[Any] = FlowControlQueue(flow_control=flow_control, clear_on_resume=True)
        self.callback = self.queue.put
        self.app = SimpleNamespace(
            consumer=self,
            flow_control=flow_control,
            consumer_generation_id=1,
            conf=SimpleNamespace(broker_session_timeout=10.0, broker_request_timeout=10.0),
            on_rebalance_complete=SimpleNamespace(send=_nothing),
            on_rebalance_end=lambda: None,
            assignor=SimpleNamespace(assigned_standbys=set),
            _fetcher=SimpleNamespace(maybe_start=_nothing),
        )
        self.engine = SimpleNamespace(open=self._open)
        self.log = SimpleNamespace(warning=lambda *_: None)
        self._thread = SimpleNamespace(changes=SOURCE.topic, changelogs=frozenset(), held=set(), committed=self._open)
        self._cursor: dict[TP, int] = {}
        self._read_offset, self._committed_offset, self._acked = {}, {}, {SOURCE: []}
        self._position = 0

    def assignment(self) -> set[TP]:
        return {SOURCE}

    def resume_partitions(self, tps: set[TP]) -> None:
        """They are read all the time."""

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        self._position = partitions[SOURCE]

    @staticmethod
    async def _open(_: Any) -> dict[TP, int]:
        return {SOURCE: 0}

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        if not self.flow_active:
            await self.can_resume_flow.wait()
        await asyncio.sleep(0)
        fetched = transport.Fetched()
        fetched.at = 0.0
        fetched.before[SOURCE] = self._position
        if self._position == 0 and self.flow_active:
            fetched[SOURCE] = [Record(0, 0, b"1:c", b"{}", ())]
            self._position = 1
        fetched.after[SOURCE] = self._position
        return fetched, {SOURCE}


async def _nothing() -> None:
    """Nothing to be done."""


async def _opened(consumer: Opening, complete: Any) -> list[Any]:
    """What the streams have of a consumer that is at work while Faust has its partitions opened."""

    async def wait(coro: Any, **_: Any) -> None:
        await coro
        for _turn in range(TURNS):
            await asyncio.sleep(0)

    ready = SimpleNamespace(
        app=consumer.app,
        tables=SimpleNamespace(values=list, on_actives_ready=lambda: None, on_standbys_ready=lambda: None),
        log=SimpleNamespace(info=lambda *_: None, dev=lambda *_: None, warning=lambda *_: None),
        completed=asyncio.Event(),
        _wait=wait,
        _set_recovery_ended=lambda: None,
        _is_changelog_tp=lambda _tp: False,
    )

    async def fetch() -> None:
        async for _ in consumer.getmany(timeout=60.0):
            pass

    consumer.resume_flow()
    consumer.app.flow_control.resume()
    fetching = asyncio.create_task(fetch())
    await complete(ready, generation_id=1)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    fetching.cancel()
    return [consumer.queue.get_nowait() for _ in range(consumer.queue.qsize())]


@pytest.mark.parametrize("complete", [Recovery.on_recovery_completed, Recovery._resume_streams])
def test_what_is_handed_out_first_is_not_among_what_faust_drops(complete: Any) -> None:
    """It empties the queues of the streams when an opening is over, a few turns after that has said where to begin."""

    async def run() -> list[Any]:
        return await _opened(Opening(FlowControlEvent()), complete)

    (message,) = asyncio.run(run())
    assert [record.offset for batch in message.value for record in batch.records] == [0]


def batch(first: int, after: int, partition: int = 0) -> Batch:
    return Batch(partition, [], first, after, 0.0)


def test_batches_join_where_they_are_to_start_and_where_the_last_one_ended() -> None:
    joints = Joints({("changes", 0): 5, ("changes", 1): 0, ("requests", 0): 2})
    joints.check("changes", batch(5, 9))
    joints.check("changes", batch(9, 12))
    joints.check("changes", batch(0, 3, partition=1))
    joints.check("requests", batch(2, 3))
    with pytest.raises(LostError, match="changes-0: what lies from 12 to 13 was lost in the worker; a restart"):
        joints.check("changes", batch(13, 14))


def test_a_batch_of_an_opening_before_this_one_is_no_gap_and_hides_none() -> None:
    joints = Joints({("changes", 0): 5})
    joints.check("changes", batch(3, 4))
    with pytest.raises(LostError, match="from 5 to 6 was lost"):
        joints.check("changes", batch(6, 7))


def test_behind_a_gap_nothing_is_worked_on_and_the_worker_ends() -> None:
    """Whatever loses a batch on its way: nothing behind it is applied, answered or committed."""

    async def scenario() -> tuple[list[Any], BaseException]:
        engine = Engine(Config(), lambda _: pytest.fail("no store is asked for"), {})
        put: list[Batch] = []
        engine._lanes = {"changes": SimpleNamespace(put=lambda *some: put.extend(some))}  # type: ignore[dict-item]
        engine.tables = Tables({0: SimpleNamespace()}, {})  # type: ignore[dict-item]
        engine._joints = Joints({("changes", 0): 5})
        engine.put("changes", [batch(5, 6), batch(0, 9, partition=1)])
        engine.put("changes", [batch(7, 8)])
        engine.put("changes", [batch(8, 9)])
        return [(one.first_offset, one.partition) for one in put], await engine.failed

    put, error = asyncio.run(scenario())
    assert put == [(5, 0)]
    assert isinstance(error, LostError)
