"""What must never be silently wrong: logs that were deleted, made anew, cut off or given more partitions."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete

from streams import topics
from streams.kafka import admin
from tests.chaos.conftest import MakeRound
from tests.chaos.driver import Hand, Round
from tests.integration.harness import CHANGELOG, CHANGES, PARTITIONS, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 3


def settled(round_: Round) -> Hand:
    """A worker that has worked something off and has stopped."""
    (worker,) = round_.start(1)
    round_.load(200, pause_s=0.0).join()
    round_.world.settle()
    assert worker.stop() == 0
    return worker


def refused(worker: Hand) -> str:
    """The last line of a start that is refused."""
    assert worker.may_end(1).start().wait() == 1
    assert worker.last_line.startswith("Error: ")
    return worker.last_line


class Admin:
    """Short words for what an operator should not do."""

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._world = round_.world

    def delete(self, *names: str) -> None:
        async def delete(client: AIOKafkaAdminClient) -> None:
            await client.delete_topics([self._world.config.topic(name) for name in names])

        self._do(delete)
        gone = {self._world.config.topic(name) for name in names}
        wait_for("the topics to be gone", lambda: not gone & self._names())

    def _names(self) -> set[str]:
        return {state.name for state in self._world.loop.run(admin.describe(self._world.config)).topics.values()}

    def create(self) -> None:
        self._world.loop.run(admin.create_topics(self._world.config))

    def cut_beginning(self, topic: str, partition: int, before: int) -> None:
        place = TopicPartition(self._world.config.topic(topic), partition)

        async def cut(client: AIOKafkaAdminClient) -> None:
            await client.delete_records({place: RecordsToDelete(before_offset=before)})

        self._do(cut)

    def add_partitions(self, topic: str, total: int) -> None:
        async def add(client: AIOKafkaAdminClient) -> None:
            await client.create_partitions({self._world.config.topic(topic): NewPartitions(total_count=total)})

        self._do(add)

    def cut_end(self, topic: str, partition: int) -> None:
        """Empty a partition's log on the broker's disk, as a restore from an old backup would."""
        self._round.broker.stop()
        folder = self._round.broker._folder.kafka_data / f"{self._world.config.topic(topic)}-{partition}"
        assert folder.is_dir()
        for file in folder.iterdir():
            if file.suffix in (".log", ".index", ".timeindex", ".snapshot"):
                file.write_bytes(b"")
        self._round.broker.start()

    def _do(self, what: object) -> None:
        async def do() -> None:
            client = AIOKafkaAdminClient(bootstrap_servers=self._world.config.bootstrap_servers)
            await client.start()
            try:
                await what(client)  # type: ignore[operator]
            finally:
                await client.close()

        self._world.loop.run(do())


def test_a_deleted_changelog_is_missed_and_one_made_anew_is_refused_by_the_old_folder(make_round: MakeRound) -> None:
    with make_round(SEED) as round_:
        worker, hands = settled(round_), Admin(round_)
        known = round_.world.ends(CHANGELOG)
        hands.delete(CHANGELOG)
        assert f"{round_.world.config.topic(CHANGELOG)}: missing" in refused(worker)
        hands.create()
        assert "belongs to another topic ids" in refused(worker)
        # Nor does it help that the new one is as long as the old one, and longer.
        for number, end in enumerate(known):
            for n in range(end + 10):
                round_.world.send(CHANGELOG, b"100:c%d" % n, b'{"v":2,"r":1}', number)
        assert "belongs to another topic ids" in refused(worker)


@pytest.mark.parametrize("topic", [spec.name for spec in topics.CHANGELOGS.values()])
def test_a_changelog_that_lost_its_beginning_is_refused_by_whoever_needs_it(make_round: MakeRound, topic: str) -> None:
    """Deleted records say nothing of what was in them: the state that begins behind them would lack customers."""
    with make_round(SEED) as round_:
        behind, hands = settled(round_), Admin(round_)
        (ahead,) = round_.start(1)
        round_.load(200, pause_s=0.0).join()
        round_.world.settle()
        assert ahead.stop() == 0
        ends = round_.world.ends(topic)
        number = ends.index(max(ends))
        name = f"{round_.world.config.topic(topic)}-{number}"
        # All of it: there is nothing to restore. Then some of it, with something behind.
        compacted = next(spec.config for spec in topics.CHANGELOGS.values() if spec.name == topic)
        round_.world.configure(topic, **compacted | {"cleanup.policy": "delete"})
        hands.cut_beginning(topic, number, ends[number])
        round_.world.configure(topic, **compacted)
        assert f"{name} begins at {ends[number]}, but the state needs" in refused(behind)
        assert ahead.start().ready().stop() == 0, "it has what was cut off"
        round_.world.send(topic, b"\0more", b"{}", number)
        assert f"{name} begins at {ends[number]}, but the state needs" in refused(behind)
        assert f"{name} begins at {ends[number]}, but the state needs 0: stop all workers" in refused(round_.worker())


def test_a_changelog_that_lost_its_end_is_refused_by_the_folder_that_knows_more(make_round: MakeRound) -> None:
    with make_round(SEED) as round_:
        worker = settled(round_)
        Admin(round_).cut_end(CHANGELOG, 0)
        assert round_.world.ends(CHANGELOG)[0] == 0, "the broker mended it"
        line = refused(worker)
        assert "The persisted offset for changelog topic partition" in line
        assert round_.world.config.topic(CHANGELOG) in line


def test_a_log_of_changes_that_lost_its_end_is_refused(make_round: MakeRound) -> None:
    with make_round(SEED) as round_:
        worker = settled(round_)
        Admin(round_).cut_end(CHANGES, 0)
        assert round_.world.ends(CHANGES)[0] == 0, "the broker mended it"
        assert f"{round_.world.config.topic(CHANGES)}-0 ends at 0" in refused(worker)


def test_a_log_of_changes_that_lost_what_was_not_weighed_yet_is_refused(make_round: MakeRound) -> None:
    with make_round(SEED) as round_:
        worker, hands = settled(round_), Admin(round_)
        round_.load(200, pause_s=0.0).join()
        hands.cut_beginning(CHANGES, 0, round_.world.ends(CHANGES)[0])
        assert f"{round_.world.config.topic(CHANGES)}-0 begins at" in refused(worker)


@pytest.mark.parametrize("topic", [CHANGES, topics.REQUESTS.name])
def test_partitions_that_are_added_to_a_live_topic_end_the_worker_with_a_clear_line(
    make_round: MakeRound, topic: str
) -> None:
    with make_round(SEED) as round_:
        (worker,) = round_.start(1)
        round_.load(200).join()
        worker.may_end(1)
        Admin(round_).add_partitions(topic, PARTITIONS + 2)
        assert worker.wait() == 1
        name = round_.world.config.topic(topic)
        assert f"{name}: has {PARTITIONS + 2} partitions, but CONSENT_PARTITIONS says {PARTITIONS}" in worker.last_line
        assert f"{name}: has {PARTITIONS + 2} partitions" in refused(worker)
