"""The private and overridden names of Faust, mode and aiokafka that the engine stands on, held still.

Their versions are pinned exactly. When a pin is moved, these tests name every place where the library changed under the
engine: read the new source beside ours, re-check what the row says, and only then put the new fingerprint in.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import TopicPartitionState
from faust.app.base import App
from faust.assignor.partition_assignor import PartitionAssignor
from faust.stores import rocksdb
from faust.tables.base import Collection
from faust.tables.recovery import Recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import Message as FaustMessage
from mode.threads import QueueServiceThread, ServiceThread

from streams.engine import table, transport

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

CONSUMER = "faust.transport.consumer:Consumer"
THREAD = "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread"
STORE = "faust.stores.rocksdb:Store"
FETCHER = "aiokafka.consumer.fetcher:Fetcher"
STATE = "aiokafka.consumer.subscription_state"

#: Place, fingerprint of signature and source, and what to re-check in the engine when it changes.
SOURCES: list[tuple[str, str, str]] = [
    (
        CONSUMER + ".getmany",
        "a0925629c316",
        "Consumer.getmany: checks between yields (flow, generation, active and buffered partitions)",
    ),
    (
        CONSUMER + "._wait_next_records",
        "43ee01e710d9",
        "Consumer.getmany: what it waits for and returns, records and active partitions",
    ),
    (CONSUMER + ".perform_seek", "8510b3562936", "Consumer.perform_seek: read and committed offsets that Faust keeps"),
    (
        CONSUMER + ".on_partitions_revoked",
        "0c604b7c2961",
        "Consumer.on_partitions_revoked: what Faust forgets, and that it comes after our commit",
    ),
    (CONSUMER + "._add_gap", "33d02ba5c970", "Consumer._add_gap: offsets between two batches need no bookkeeping"),
    (CONSUMER + "._new_offset", "232204eba694", "Consumer._new_offset: from acked offsets to the offset to commit"),
    (
        CONSUMER + "._filter_committable_offsets",
        "6eac5383e096",
        "Consumer._new_offset: who asks for it and what None means",
    ),
    (CONSUMER + ".ack", "043f60c6f810", "Consumer.ack: all that it does besides the books, which are ours"),
    (
        CONSUMER + "._drain_messages",
        "c8a253423420",
        "Consumer.getmany: what Faust does with a message, which ours does instead, and its read offsets",
    ),
    (CONSUMER + "._is_changelog_tp", "22f20603322b", "Consumer.getmany: how a changelog partition is known"),
    (CONSUMER + ".stop_flow", "d1dcb2b4a7c8", "Consumer.on_partitions_revoked: stops handing out"),
    (
        "faust.transport.consumer:ThreadDelegateConsumer.seek_wait",
        "5aa830220750",
        "Consumer.perform_seek, _positions_agree: sets positions and waits",
    ),
    (
        "faust.transport.consumer:ThreadDelegateConsumer._getmany",
        "d97499db9b48",
        "Consumer.getmany: that fetches go through the thread",
    ),
    (
        "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread",
        "4595b5572667",
        "Consumer._new_consumer_thread: arguments of the thread",
    ),
    (THREAD + ".on_start", "d664e19e9a59", "ConsumerThread.on_start: the aiokafka consumer exists afterwards"),
    (
        THREAD + "._create_worker_consumer",
        "93fb8ac439b5",
        "ConsumerThread._create_worker_consumer: options, none of which may undo ours",
    ),
    (THREAD + "._fetch_records", "c7d94b0d8ac4", "ConsumerThread._fetch_records: when it may fetch and when it raises"),
    (THREAD + ".getmany", "3b523941e93a", "ConsumerThread._fetch_records: arguments, and who calls it"),
    (THREAD + "._commit", "cd4f1eca3170", "ConsumerThread._commit: what is committed, and which errors are swallowed"),
    (
        THREAD + ".verify_event_path",
        "8e0b87d19956",
        "ConsumerThread.verify_event_path: does nothing but log",
    ),
    (
        THREAD + ".verify_recovery_event_path",
        "9030dff49971",
        "ConsumerThread.verify_recovery_event_path: does nothing but log",
    ),
    (
        THREAD + "._verify_aiokafka_event_path",
        "c219ec90d541",
        "ConsumerThread.verify_event_path: does nothing but log, by times that only aiokafka's own fetches note",
    ),
    (
        CONSUMER + ".verify_all_partitions_active",
        "83f517f445bc",
        "ConsumerThread.verify_event_path: the only one that asks for it, of every partition",
    ),
    (THREAD + "._ensure_consumer", "c9b2b0458167", "ConsumerThread: raises while there is no consumer"),
    (THREAD + "._seek_wait", "47058c122225", "Consumer.perform_seek: positions are valid when it returns"),
    (THREAD + ".assignment", "f3335b097616", "ConsumerThread._commit: partitions that are ours"),
    (
        "mode.threads:QueueServiceThread.call_thread",
        "d968874ddbb9",
        "ConsumerThread.call_thread: awaits what the call gives",
    ),
    ("mode.threads:ServiceThread.start", "e44fef56303a", "ConsumerThread.start: what is set before the thread runs"),
    (
        "mode.threads:ServiceThread._serve",
        "09e4a4825ccb",
        "ConsumerThread.start: runs to the end of the service, on any loop",
    ),
    ("mode.threads:ServiceThread.stop", "a688f15051b8", "ConsumerThread.stop: ends without a thread"),
    (
        "mode.threads:ServiceThread._gather_remaining_tasks",
        "6d860d2fed78",
        "ConsumerThread: would cancel every task of its loop",
    ),
    (
        "mode.threads:QueueServiceThread.on_thread_started",
        "5740f5ca96d3",
        "ConsumerThread.start: nothing that needs a thread",
    ),
    (
        FETCHER + "._fetch_requests_routine",
        "3f4d744b7fa3",
        "Fetches: looks _get_actions_per_node up on the instance; finds a partition without a position when notified",
    ),
    (
        FETCHER + "._update_fetch_positions",
        "951c95b98bdb",
        "Fetches._resets: does what is left to aiokafka's own task",
    ),
    ("aiokafka.conn:AIOKafkaConnection.send", "165ff88a51a6", "protocol._Request: what it calls of a request"),
    ("aiokafka.conn:AIOKafkaConnection._handle_frame", "e7ae118a108a", "protocol._Request: the same"),
    ("aiokafka.client:AIOKafkaClient.send", "d90a9258034e", "protocol.Produce: required_acks; and what it raises"),
    ("aiokafka.protocol.fetch:FetchRequest.build", "a3a9285af779", "protocol.Fetch: the fields of version 11"),
    ("aiokafka.client:AIOKafkaClient.add_topic", "7be2bb89e0de", "Producer: a topic's leaders become known"),
    (
        "aiokafka.client:AIOKafkaClient.force_metadata_update",
        "d4243272eead",
        "Producer, Fetches: may be called whenever, and be waited for",
    ),
    (FETCHER + "._notify", "1ca558c31fdd", "Consumer.hold_back: wakes who waits for records"),
    (
        FETCHER + "._get_actions_per_node",
        "dc14ec5910ad",
        "Fetches._resets: what comes first of what it returns is what to fetch",
    ),
    (
        FETCHER + "._create_fetch_waiter",
        "eebaed6719d2",
        "Fetches.wait: woken by hold_back, and by an error of the group",
    ),
    (STATE + ":SubscriptionState.fetch_context", "4949b8bd067d", "ConsumerThread._fetch_records: counts as polling"),
    (STATE + ":Assignment.state_value", "d3f57e9a12dd", "ConsumerThread._positions: a partition's state"),
    (STATE + ":Assignment.tps", "759601f11dae", "ConsumerThread._positions: the partitions of an assignment"),
    (STATE + ":Assignment.active", "235cb09632f3", "Fetches: whether the partitions are still read"),
    (
        STATE + ":TopicPartitionState.consumed_to",
        "13304c9cc0bb",
        "Fetches.take: moves the position, and asserts that there is one",
    ),
    (STATE + ":TopicPartitionState.await_reset", "9d4f8d1adcf5", "Fetches: there is no position any more"),
    (
        STATE + ":SubscriptionState.reassignment_in_progress",
        "d396efe71f61",
        "ConsumerThread._fetch_records: nothing is taken then",
    ),
    (
        "aiokafka.cluster:ClusterMetadata.update_metadata",
        "dd7b7bbbac22",
        "Fetches._by_leader: _partitions is another object then",
    ),
    (
        "aiokafka.client:AIOKafkaClient._get_conn",
        "0e75d463824d",
        "kafka.send_now: which connection is used, and when a new one is made",
    ),
    (
        "faust.serializers.schemas:Schema.compile",
        "7ee73d5de1cf",
        "app.Batches: who calls what it returns, and what that must return",
    ),
    (STATE + ":TopicPartitionState.position", "7f2039cf877c", "ConsumerThread._positions: raises unless valid"),
    (
        STATE + ":TopicPartitionState.has_valid_position",
        "8398924d7539",
        "ConsumerThread._positions: a seek in progress has none",
    ),
    (
        "aiokafka.consumer.group_coordinator:GroupCoordinator._do_heartbeat",
        "9707daf5f9a0",
        "ConsumerThread.on_start: True means that the group heard of us",
    ),
    (
        "aiokafka.consumer.group_coordinator:GroupCoordinator._heartbeat_routine",
        "4a8673951933",
        "ConsumerThread.on_start: looks _do_heartbeat up on the instance",
    ),
    (
        "aiokafka.consumer.group_coordinator:GroupCoordinator.check_errors",
        "86af513f1fd3",
        "ConsumerThread._fetch_records: raises what the coordinator cannot get over, and only that",
    ),
    (
        "aiokafka.consumer.consumer:AIOKafkaConsumer.highwater",
        "3bf8328f8b4c",
        "Consumer.lag; with read_committed it may be behind the last stable offset",
    ),
    (
        "aiokafka.consumer.consumer:AIOKafkaConsumer.end_offsets",
        "c56130f74888",
        "LogReader.end: the last stable offset with read_committed",
    ),
    (
        "aiokafka.conn:AIOKafkaConnection.close",
        "ee3a56c47b8e",
        "kafka._broken_if_closed: tells all who wait, and that metadata are stale; may be called twice",
    ),
    (
        "aiokafka.client:AIOKafkaClient._md_synchronizer",
        "fb9826309c89",
        "Producer: whoever forces an update waits for it",
    ),
    (
        "aiokafka.consumer.consumer:AIOKafkaConsumer.stop",
        "dfe074c80dd4",
        "stop_consumer: what is left to do if the fetcher's close is left with an exception",
    ),
    (
        FETCHER + "._proc_offset_request",
        "b671ce8a6bef",
        "LogReader.ends: asks one leader once; raises a KafkaError of any partition",
    ),
    (FETCHER + ".close", "d7705e4645a9", "stop_consumer: lets out the cancellation of its own tasks"),
    (
        "mode.services:Service._execute_task",
        "25679b253fe4",
        "Worker._lost: a task that was cancelled ends without a word, and any other error crashes",
    ),
    (
        "mode.services:Service.add_future",
        "0b3abccdf43a",
        "Worker._lost: a task is among _futures while it runs, with its coroutine as __wrapped__",
    ),
    ("aiokafka.partitioner:murmur2", "b9b6edef9bec", "streams.domain.keys.murmur2, tests/agents"),
    (STORE + ".__init__", "0831981fe7ca", "BytesStore.__init__: driver and options"),
    (STORE + "._db_for_partition", "48dabfb32eb4", "BytesStore: opens on demand"),
    (STORE + "._open_for_partition", "67356829f9d1", "BytesStore: with rocksdb_options.open and partition_path"),
    (STORE + "._visible_items", "bfb2c0d91fa6", "BytesStore.items_of: all but the offset"),
    (STORE + ".persisted_offset", "c09da161232d", "BytesStore.write: Faust's recovery reads the offset that we write"),
    (
        STORE + ".apply_changelog_batch",
        "afd65230bcbf",
        "BytesStore.apply_changelog_batch: the only writer of restored records is ours",
    ),
    (STORE + ".revoke_partitions", "df4a033e21be", "BytesStore.revoke_partitions: which databases are closed"),
    (STORE + ".assign_partitions", "dd28f3bdb4f2", "BytesStore: who opens databases, and for how long it tries"),
    (STORE + ".stop", "d807b30b0a6c", "BytesStore.stop: closes everything"),
    (
        STORE + ".need_active_standby_for",
        "3e8e5f87b180",
        "BytesStore: a fresh partition is restored before it is active",
    ),
    ("faust.stores.rocksdb:RocksDBOptions.__init__", "7cfc5cbbae8b", "_RocksOptions.__init__"),
    ("faust.stores.rocksdb:RocksDBOptions.open", "384021162fb8", "_RocksOptions.open"),
    (
        "faust.stores.rocksdb:RocksDBOptions.as_options",
        "3055fbf2cc01",
        "_RocksOptions.as_options: defaults that ours replace",
    ),
    ("faust.tables.base:Collection._serializer_from_type", "3e49582bd411", "BytesTable._serializer_from_type"),
    (
        "faust.tables.base:Collection._new_store_by_url",
        "32b169c5115e",
        "BytesTable._new_store_by_url: arguments of a store",
    ),
    (
        "faust.tables.base:Collection.apply_changelog_batch",
        "e16ecc9a92a6",
        "BytesTable.apply_changelog_batch: recovery hands records over here",
    ),
    (
        "faust.assignor.partition_assignor:PartitionAssignor.assigned_actives",
        "734e32bc7464",
        "Worker: the partitions assigned to us",
    ),
    (
        "aiokafka.consumer.fetcher:PartitionRecords._unpack_records",
        "1740e2670909",
        "fetching._unpack: does the same where nothing was aborted; and _lean: what a record is made of, and by whom",
    ),
    (
        "faust.assignor.partition_assignor:PartitionAssignor.on_assignment",
        "c0a891168a1c",
        "Assignor.on_assignment: what is asserted, and that all is taken over before",
    ),
    (
        "faust.assignor.partition_assignor:PartitionAssignor.changelog_distribution",
        "e869b5e7f147",
        "Worker._owner_of: _tps_url names a partition's worker",
    ),
]


def look_up(place: str) -> Any:
    """The function or property behind `module:Class.name`, as it is written."""
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, property):
        return found.fget
    return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found


def fingerprint(place: str) -> str:
    """Twelve digits that change with the signature or the source of a function."""
    found = look_up(place)
    # Not str(signature): how annotations are shown differs between Python versions.
    taken = [(name, part.kind.name) for name, part in inspect.signature(found).parameters.items()]
    text = f"{taken}\n{inspect.getsource(found).rstrip()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize(("place", "known", "check"), SOURCES, ids=[row[0].rpartition(":")[2] for row in SOURCES])
def test_the_source_that_the_engine_overrides_or_relies_on_has_not_changed(place: str, known: str, check: str) -> None:
    found = fingerprint(place)
    assert found == known, f"{place} changed. Re-check: {check}. Then its fingerprint is {found!r}"


@pytest.mark.parametrize("name", ["faust-streaming", "mode-streaming", "aiokafka", "rocksdict"])
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    wanted = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert f"{name}=={version(name)}" in wanted


def _parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


OVERRIDES: list[tuple[type, type, tuple[str, ...]]] = [
    (
        transport.ConsumerThread,
        driver.AIOKafkaConsumerThread,
        (
            "on_start",
            "start",
            "stop",
            "_gather_remaining_tasks",
            "call_thread",
            "_create_worker_consumer",
            "_fetch_records",
            "_commit",
            "on_thread_stop",
            "verify_event_path",
            "verify_recovery_event_path",
        ),
    ),
    (
        transport.Consumer,
        driver.Consumer,
        ("_new_consumer_thread", "getmany", "perform_seek", "on_partitions_revoked", "ack", "_add_gap", "_new_offset"),
    ),
    (table._RocksOptions, rocksdb.RocksDBOptions, ("open", "as_options")),
    (table.BytesStore, rocksdb.Store, ("revoke_partitions", "stop")),
    (table.BytesTable, Collection, ("_serializer_from_type", "_new_store_by_url", "apply_changelog_batch")),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), [(ours, theirs, name) for ours, theirs, names in OVERRIDES for name in names]
)
def test_an_override_takes_what_the_original_takes(ours: type, theirs: type, name: str) -> None:
    assert name in vars(ours), "no longer overridden: take the row out"
    mine, original = getattr(ours, name), getattr(theirs, name)
    assert _parameters(mine) == _parameters(original)
    assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(original)
    assert inspect.isasyncgenfunction(mine) == inspect.isasyncgenfunction(original)


def test_the_methods_that_faust_calls_without_knowing_us_are_still_called() -> None:
    """Overriding what nobody calls any more would be silent."""
    source = inspect.getsource(faust_consumer)
    assert "self._new_offset(tp)" in source
    assert "self._add_gap(" in source
    assert "getmany = self.getmany" in source
    assert "consumer.perform_seek()" in inspect.getsource(Recovery)
    assert "self._fetch_records" in inspect.getsource(driver.AIOKafkaConsumerThread.getmany)
    assert "self._create_worker_consumer(" in inspect.getsource(driver.AIOKafkaConsumerThread._create_consumer)
    assert "self.verify_event_path(now, tp)" in source
    assert "self._thread.verify_event_path(now, tp)" in inspect.getsource(driver.Consumer)
    assert "self._thread.verify_recovery_event_path(now, tp)" in source
    assert "consumer.verify_recovery_event_path(now, tp)" in inspect.getsource(Recovery)
    assert "self._new_store_by_url(" in inspect.getsource(importlib.import_module("faust.tables.base"))
    assert "self._serializer_from_type(" in inspect.getsource(importlib.import_module("faust.tables.base"))


#: Attributes that only exist on instances: the class's source must still set them.
ATTRIBUTES: list[tuple[Any, tuple[str, ...]]] = [
    (
        AIOKafkaConsumer,
        ("_isolation_level", "_fetch_max_wait_ms", "_subscription", "_fetcher", "_client", "_closed", "_coordinator"),
    ),
    (Fetcher, ("_subscriptions", "_closed", "_fetch_waiters", "_fetcher_timeout", "_retry_backoff")),
    (Fetcher, ("_fetch_max_wait_ms", "_fetch_min_bytes", "_fetch_max_bytes", "_max_partition_fetch_bytes")),
    (Fetcher, ("_isolation_level", "_default_reset_strategy", "_wait_consume_future")),
    (TopicPartitionState, ("_position", "_paused", "highwater", "lso")),
    (AIOKafkaClient, ("_conns", "cluster")),
    (
        faust_consumer.Consumer,
        ("_acked", "_acked_index", "_buffered_partitions", "_read_offset", "_committed_offset", "_unacked_messages"),
    ),
    (faust_consumer.ThreadDelegateConsumer, ("_thread",)),
    (driver.AIOKafkaConsumerThread, ("tp_last_committed_at",)),
    (ServiceThread, ("thread_loop", "parent_loop", "_thread_started", "_thread_running")),
    (rocksdb.Store, ("_dbs", "rocksdb_options")),
    (App, ("_crashed", "rebalancing", "consumer_generation_id")),
    (PartitionAssignor, ("_tps_url",)),
    (Recovery, ("completed", "active_tps", "active_offsets", "standby_offsets")),
]


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in ATTRIBUTES for name in names], ids=str)
def test_an_attribute_that_the_engine_reads_or_sets_is_still_there(owner: type, name: str) -> None:
    sources = [inspect.getsource(part) for part in owner.__mro__ if part.__module__.split(".")[0] in _LIBRARIES]
    wanted = rf"(?:self\.{name}\b\s*(?::[^=\n]+)?=|^\s+{name}\s*[:=]|def {name}\()"
    assert any(re.search(wanted, source, re.MULTILINE) for source in sources), f"{owner.__name__}.{name} is gone"


_LIBRARIES = {"faust", "mode", "aiokafka"}


def test_the_offset_of_a_partition_stands_under_fausts_own_key() -> None:
    assert rocksdb.Store.offset_key == b"__faust\0offset__"


def test_a_faust_message_takes_what_a_batch_message_gives() -> None:
    given = {
        "topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum", "tp",
        "generation_id",
    }  # fmt: skip
    assert given <= set(_parameters(FaustMessage.__init__))
    assert issubclass(transport.ConsumerMessage, FaustMessage)
    assert "generation_id" in FaustMessage.__slots__


def test_the_consumer_fills_in_private_options_that_we_set_before_it_starts() -> None:
    """`_isolation_level` and `_fetch_max_wait_ms` are read in `start`, so setting them after `__init__` is in time."""
    start = inspect.getsource(AIOKafkaConsumer.start)
    assert "isolation_level=self._isolation_level" in start
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in start


def test_a_consumer_thread_is_of_the_kind_whose_calls_are_taken_over() -> None:
    assert "call_thread" in vars(QueueServiceThread)
    assert issubclass(driver.AIOKafkaConsumerThread, QueueServiceThread)
