"""The table's store on a real RocksDB: whole writes with their offset, nothing lost by closing."""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest
import rocksdict
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.domain.state import FORMAT_VERSION
from streams.engine import table as table_module
from streams.engine.partition import META_KEY, Partition
from streams.engine.table import RECENT_OVERHEAD, BytesStore, BytesTable, DamagedError, _Recent

CHANGELOG = "store-test-customers-changelog"


def _store(folder: Path) -> BytesStore:
    """The store as the worker makes it: by a table of an app with its data in `folder`."""
    app = faust.App("store-test", broker="kafka://localhost:1", store="rocksdb://", datadir=folder, web_enabled=False)
    made = BytesTable(app, name="customers", partitions=4, key_type=bytes, value_type=bytes)
    store: BytesStore = made._new_store()
    store.path.mkdir(parents=True, exist_ok=True)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BytesStore]:
    made = _store(tmp_path)
    yield made
    asyncio.run(made.stop())


def _reopened(store: BytesStore, folder: Path) -> BytesStore:
    asyncio.run(store.stop())
    return _store(folder)


def test_a_new_partition_has_nothing_and_no_offset(store: BytesStore) -> None:
    assert store.offset(0) == -1
    assert store.get_many(0, [b"a", b""]) == [None, None]
    assert list(store.items_of(0)) == []


def test_values_come_back_in_the_order_of_the_keys_asked_for(store: BytesStore) -> None:
    store.write(0, [(b"a", b"1"), (b"b", b""), (b"\0c", b"\xff\n\0")], 6)
    assert store.get_many(0, [b"\0c", b"missing", b"a", b"b", b"a"]) == [b"\xff\n\0", None, b"1", b"", b"1"]
    assert store.get_many(0, []) == []


def test_a_write_carries_its_offset_and_faust_finds_it(store: BytesStore) -> None:
    store.write(2, [(b"a", b"1")], 41)
    assert store.offset(2) == 41
    assert store.persisted_offset(TP(CHANGELOG, 2)) == 41
    assert list(store.items_of(2)) == [(b"a", b"1")]  # the offset is not a value of anybody's


def test_partitions_are_apart(store: BytesStore) -> None:
    store.write(0, [(b"a", b"zero")], 1)
    store.write(1, [(b"a", b"one")], 9)
    assert (store.get_many(0, [b"a"]), store.get_many(1, [b"a"])) == ([b"zero"], [b"one"])
    assert (store.offset(0), store.offset(1), store.offset(3)) == (1, 9, -1)


def test_what_was_written_is_there_after_closing_and_opening(store: BytesStore, tmp_path: Path) -> None:
    store.write(0, [(b"%d" % n, b"v" * n) for n in range(300)], 299)
    again = _reopened(store, tmp_path)
    assert again.offset(0) == 299
    assert again.get_many(0, [b"7", b"299", b"300"]) == [b"v" * 7, b"v" * 299, None]
    asyncio.run(again.stop())


def test_files_that_are_opened_again_have_the_shared_cache_and_filters(store: BytesStore, tmp_path: Path) -> None:
    """What RocksDB itself remembers of its options has neither, and is what rocksdict goes by if it is let."""
    store.write(0, [(b"a", b"1")], 1)
    again = _reopened(store, tmp_path)
    again.write(0, [(b"b", b"2"), (b"c", b"3")], 3)
    db = again._db_for_partition(0)
    db.flush()
    assert int(db.property_value("rocksdb.block-cache-capacity")) == table_module.BLOCK_CACHE_BYTES
    files = db.property_value("rocksdb.aggregated-table-properties")
    counts = dict(re.findall(r"# (entries|entries for filter)=(\d+);", files))
    assert counts["entries for filter"] == counts["entries"]
    asyncio.run(again.stop())


def test_none_deletes_for_good(store: BytesStore, tmp_path: Path) -> None:
    store.write(0, [(b"a", b"1"), (b"b", b"2")], 1)
    store.write(0, [(b"a", None), (b"never", None)], 3)
    assert store.get_many(0, [b"a", b"b"]) == [None, b"2"]
    again = _reopened(store, tmp_path)
    assert list(again.items_of(0)) == [(b"b", b"2")]
    asyncio.run(again.stop())


def test_the_last_of_several_values_of_a_key_counts(store: BytesStore) -> None:
    store.write(0, [(b"a", b"1"), (b"a", None), (b"a", b"3")], 2)
    assert store.get_many(0, [b"a"]) == [b"3"]


def test_a_write_that_fails_half_way_leaves_neither_values_nor_offset(store: BytesStore) -> None:
    store.write(0, [(b"a", b"1")], 1)

    def values() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"2"
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        store.write(0, values(), 2)
    with pytest.raises(Exception, match="bytes"):
        store.write(0, [(b"a", b"2"), (b"b", "text")], 2)  # type: ignore[list-item]
    assert store.get_many(0, [b"a", b"b"]) == [b"1", None]
    assert store.offset(0) == 1


def test_a_revoked_partition_is_closed_so_that_another_process_can_open_it(store: BytesStore) -> None:
    store.write(0, [(b"a", b"1")], 5)
    store.write(1, [(b"b", b"2")], 6)
    owner = types.SimpleNamespace(changelog_topic=types.SimpleNamespace(topics=[CHANGELOG]))
    store.revoke_partitions(owner, {TP(CHANGELOG, 0), TP("other", 1)})
    assert set(store._dbs) == {1}
    other = rocksdict.Rdict(str(store.partition_path(0)), options=rocksdict.Options(raw_mode=True))
    assert other[b"a"] == b"1"
    other.close()
    assert store.offset(0) == 5  # opened again on demand
    assert store.get_many(0, [b"a"]) == [b"1"]


def test_faust_cannot_write_past_us(store: BytesStore) -> None:
    store.write(0, [(b"a", b"1")], 5)
    store.apply_changelog_batch([object()], to_key=None, to_value=None)
    assert store.offset(0) == 5
    assert vars(BytesTable)["apply_changelog_batch"](object(), [object()]) is None


def test_memory_is_bounded_for_all_partitions_together(store: BytesStore, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, Any]] = []

    class Options:
        """Notes what it is told, and does nothing."""

        def __init__(self, **_: Any) -> None: ...

        def __getattr__(self, name: str) -> Any:
            return lambda *given: said.append((name, given))

    monkeypatch.setattr(table_module.rocksdict, "Options", Options)
    store.rocksdb_options.as_options()
    store.rocksdb_options.as_options()
    by_name = dict(said)
    assert by_name["set_write_buffer_size"] == (table_module.WRITE_BUFFER_BYTES,)
    assert by_name["set_max_write_buffer_number"] == (2,)
    shared = [given[0] for name, given in said if name == "set_write_buffer_manager"]
    assert len(shared) == 2
    assert shared[0] is shared[1], "one budget of write buffers for all partitions"
    assert table_module.BLOCK_CACHE_BYTES + table_module.WRITE_BUFFERS_BYTES <= 64 << 20


def test_a_partition_reads_its_position_back_from_its_own_record(store: BytesStore) -> None:
    assert Partition(0, store).applied == 0
    store.write(0, [(META_KEY, b'{"v":%d,"next":17}' % FORMAT_VERSION)], 3)
    assert Partition(0, store).applied == 17


DAY_S = 86_400
NOW_S = 1_795_255_200.0


def _opened_after(store: BytesStore, folder: Path, age_s: float, monkeypatch: pytest.MonkeyPatch) -> BytesStore:
    """The store opened again, so long after it was known to hold everything."""
    store.write(0, [(b"a", b"1")], 5, upto_s=NOW_S)
    store.write(0, [(b"b", b"2")], 6)  # from somewhere in the midst of the log: it says nothing of what is behind
    again = _reopened(store, folder)
    again.table.deletions_kept_s = DAY_S
    monkeypatch.setattr(table_module.time, "time", lambda: NOW_S + age_s)
    return again


def test_files_that_are_younger_than_half_the_time_that_deletions_are_kept_are_gone_on_with(
    store: BytesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = _opened_after(store, tmp_path, DAY_S / 2 - 1, monkeypatch)
    assert (again.offset(0), again.get_many(0, [b"a", b"b"])) == (6, [b"1", b"2"])
    assert list(again.items_of(0)) == [(b"a", b"1"), (b"b", b"2")]  # the time is not a value of anybody's
    asyncio.run(again.stop())


def test_older_files_are_removed_with_one_warning_to_be_restored_from_the_beginning(
    store: BytesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    again = _opened_after(store, tmp_path, DAY_S / 2 + 1, monkeypatch)
    assert (again.offset(0), again.get_many(0, [b"a", b"b"])) == (-1, [None, None])
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "customers-0.db is too old and removed" in said
    assert "remembers deletions for 86400 s" in said
    again.write(0, [], 0, upto_s=NOW_S + DAY_S)
    asyncio.run(again.stop())


def test_files_that_do_not_say_how_old_they_are_are_too_old(store: BytesStore, tmp_path: Path) -> None:
    store.write(0, [(b"a", b"1")], 5)
    again = _reopened(store, tmp_path)
    again.table.deletions_kept_s = DAY_S
    assert again.offset(0) == -1
    asyncio.run(again.stop())


@settings(max_examples=15)
@given(
    writes=st.lists(
        st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=4)), max_size=5),
        max_size=6,
    )
)
def test_a_store_is_a_dictionary_with_an_offset(
    tmp_path_factory: pytest.TempPathFactory, writes: list[list[tuple[bytes, bytes | None]]]
) -> None:
    folder = tmp_path_factory.mktemp("law")
    store = _store(folder)
    model: dict[bytes, bytes] = {}
    for number, values in enumerate(writes):
        store.write(0, values, number)
        for key, value in values:
            model.pop(key, None)
            if value is not None:
                model[key] = value
    again = _reopened(store, folder)
    assert dict(again.items_of(0)) == model
    assert again.offset(0) == len(writes) - 1
    asyncio.run(again.stop())


def _damage(path: Path, files: str) -> None:
    for file in path.glob(files):
        file.write_bytes(b"\xa5" * file.stat().st_size)


@pytest.mark.parametrize("files", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_damaged_files_are_removed_with_one_warning_and_the_partition_is_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: str
) -> None:
    store = _store(tmp_path)
    for partition in (0, 1):
        store.write(partition, [(b"a", b"1")], 7)
    asyncio.run(store.stop())
    _damage(store.partition_path(0), files)
    store = _store(tmp_path)
    assert store.offset(0) == -1
    assert store.get_many(0, [b"a"]) == [None]
    (warning,) = caplog.records
    assert str(store.partition_path(0)) in warning.getMessage()
    # The other one is as it was.
    assert store.get_many(1, [b"a"]) == [b"1"]
    asyncio.run(store.stop())


def test_damage_that_a_read_finds_is_said_and_the_next_start_begins_anew(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.write(0, [(b"a%d" % n, b"%d" % n * 50) for n in range(20_000)], 7)
    asyncio.run(store.stop())
    (sst, *_) = store.partition_path(0).glob("*.sst")
    # The beginning is data, which is looked at when it is read; the end is what is looked at when the file is opened.
    content = bytearray(sst.read_bytes())
    content[: len(content) // 2] = b"\xa5" * (len(content) // 2)
    sst.write_bytes(content)
    store = _store(tmp_path)
    with pytest.raises(DamagedError, match="the next start restores it"):
        store.get_many(0, [b"a%d" % n for n in range(20_000)])
    store = _store(tmp_path)
    assert store.offset(0) == -1
    asyncio.run(store.stop())


def test_a_lock_that_another_process_holds_is_no_damage(tmp_path: Path) -> None:
    holder, other = _store(tmp_path), _store(tmp_path)
    holder.write(0, [(b"a", b"1")], 7)
    with pytest.raises(Exception, match=r"(?i)lock"):
        other.offset(0)
    assert holder.get_many(0, [b"a"]) == [b"1"]
    asyncio.run(holder.stop())


def test_a_value_that_is_written_again_and_again_takes_its_room_once() -> None:
    value = bytes(100)
    each = len(value) + RECENT_OVERHEAD
    recent = _Recent(2 * 10 * each)
    for number in range(10):
        recent.put(b"%d" % number, value)
    for turn in range(1_000):
        recent.put(b"0", value if turn % 2 else bytes(50))
    assert recent.get([b"%d" % number for number in range(1, 10)]) == [value] * 9
    recent.put(b"one too many", value)
    recent.put(b"0", value)
    for number in range(20, 30):
        recent.put(b"%d" % number, value)
    assert recent.get([b"1"]) == [None], "what nobody asked for goes when there is no room"
