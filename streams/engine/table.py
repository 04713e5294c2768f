"""The customers' state: a Faust table of bytes, one RocksDB per partition, written a checkpoint at a time.

Faust assigns it, recovers it from its changelog and keeps standbys of it. Reads and writes through Faust's mapping are
not used: state changes only through `BytesStore.write`, with its changelog offset, in one atomic batch.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import rocksdict
from faust import Table
from faust.stores import rocksdb

log = logging.getLogger(__name__)

#: One cache and one write buffer for all tables and partitions of a process: memory does not grow with their number.
BLOCK_CACHE_BYTES = 4 << 20
WRITE_BUFFERS_BYTES = 16 << 20
WRITE_BUFFER_BYTES = 4 << 20
#: A table's states as they were last read or written, for keys that are soon asked about again: looking a state up here
#: costs a twentieth of what it costs in RocksDB.
RECENT_BYTES = 16 << 20
#: What one of them takes besides its value: two objects' heads, its key, its place in an ordered dictionary.
RECENT_OVERHEAD = 220
#: Ten bits per key make one false read in a hundred; most keys of a batch exist anyway.
BLOOM_BITS = 10
#: Beside the offset: the seconds since 1970 up to which all that the changelog was told is in the partition's files.
TIME_KEY = b"\0time"
#: What RocksDB says when its files are not what it wrote: it has one kind of exception for everything.
_DAMAGE = ("Corruption", "No such file or directory")


class DamagedError(Exception):
    """A partition's files turned out to be damaged in the midst of work; they are removed, for the next start."""


@cache
def _shared_memory() -> tuple[rocksdict.Cache, rocksdict.WriteBufferManager]:
    return rocksdict.Cache(BLOCK_CACHE_BYTES), rocksdict.WriteBufferManager(WRITE_BUFFERS_BYTES, False)


class _RocksOptions(rocksdb.RocksDBOptions):  # type: ignore[misc]
    """RocksDB with bounded memory. Without a write-ahead log: the changelog in Kafka is the log."""

    def __init__(self, **_: Any) -> None:
        super().__init__(use_rocksdict=True)
        self._cache, self._buffers = _shared_memory()

    def open(self, path: Path, *, read_only: bool = False) -> rocksdict.Rdict:
        access = rocksdict.AccessType.read_only() if read_only else rocksdict.AccessType.read_write()
        # Named, or files that are there already are opened with what RocksDB has noted of their options, which knows
        # neither the cache, so that each partition would have one of its own, nor the filter.
        options = self.as_options()
        return rocksdict.Rdict(str(path), options=options, column_families={"default": options}, access_type=access)

    def as_options(self) -> rocksdict.Options:
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_bloom_filter(BLOOM_BITS, False)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_manager(self._buffers)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)
        options.set_stats_dump_period_sec(0)
        return options


_WRITE = rocksdict.WriteOptions()
_WRITE.disable_wal = True


class _Recent:
    """The values of one partition that were read or written last, within a number of bytes."""

    __slots__ = ("_left", "_values")

    def __init__(self, room: int) -> None:
        self._left = room
        #: Those that were not asked for longest come first.
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, keys: list[bytes]) -> list[bytes | None]:
        """The value of each key, None if it is not among them."""
        found = list(map(self._values.get, keys))
        for key, value in zip(keys, found, strict=True):
            if value is not None:
                self._values.move_to_end(key)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Remember a value."""
        before = self._values.get(key)
        self._values[key] = value
        if before is None:
            self._left -= len(value) + RECENT_OVERHEAD
        else:
            self._left -= len(value) - len(before)
            self._values.move_to_end(key)
        while self._left < 0:
            self._left += len(self._values.popitem(last=False)[1]) + RECENT_OVERHEAD

    def forget(self, key: bytes) -> None:
        """There is no such value any more."""
        value = self._values.pop(key, None)
        if value is not None:
            self._left += len(value) + RECENT_OVERHEAD


class BytesStore(rocksdb.Store):  # type: ignore[misc]
    """One RocksDB per partition; every write carries the changelog offset that it brings the partition to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, driver="rocksdict", **kwargs)
        self.rocksdb_options = _RocksOptions()
        #: The changelog offset of each open partition, so that the hot path need not read it back.
        self._offsets: dict[int, int] = {}
        self._recent: dict[int, _Recent] = {}

    def _open_for_partition(self, partition: int) -> Any:
        """Open a partition's files. Those that cannot be gone on with are removed, to be restored from the changelog.

        Files are damaged, or so old that the changelog may have forgotten what was deleted since: from these, what was
        erased would come back.
        """
        path = self.partition_path(partition)
        try:
            db = super()._open_for_partition(partition)
        except Exception as exc:
            if not _is_damage(exc):
                raise
            text = str(exc).splitlines()[0]
            log.warning("%s is damaged and removed; it is restored from the changelog: %s", path, text)
        else:
            if not self._is_too_old(db):
                return db
            db.close()
            text = f"its changelog remembers deletions for {self.table.deletions_kept_s:.0f} s"
            log.warning("%s is too old and removed; it is restored from the changelog: %s", path, text)
        shutil.rmtree(path)
        return super()._open_for_partition(partition)

    def _is_too_old(self, db: Any) -> bool:
        """Whether deletions that are not in these files may be gone from the changelog before they are restored."""
        if db.get(self.offset_key) is None:
            return False
        # Half of the time that they are kept is left for the restore, and for clocks that differ.
        age_s = time.time() - float(db.get(TIME_KEY) or 0)
        return bool(age_s > self.table.deletions_kept_s / 2)

    def get_many(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none. Raises DamagedError."""
        recent = self._recent.get(partition)
        if recent is None:
            recent = self._recent[partition] = _Recent(self.table.recent_bytes // self.table.partitions)
        found = recent.get(keys)
        missing = [at for at, value in enumerate(found) if value is None]
        if missing:
            for at, value in zip(missing, self._read(partition, [keys[at] for at in missing]), strict=True):
                if value is not None:
                    found[at] = value
                    recent.put(keys[at], value)
        return found

    def _read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        try:
            found: list[bytes | None] = self._db_for_partition(partition).get(keys)
        except Exception as exc:
            if not _is_damage(exc):
                raise
            path = self.partition_path(partition)
            self._close(partition)
            shutil.rmtree(path, ignore_errors=True)
            raise DamagedError(f"{path} was damaged and is removed; the next start restores it: {exc}") from exc
        return found

    def write(
        self,
        partition: int,
        values: Iterable[tuple[bytes, bytes | None]],
        offset: int,
        *,
        upto_s: float | None = None,
    ) -> None:
        """Put values (None deletes) and the changelog offset of the last of them, whole or not at all.

        `upto_s`: all that the changelog was told until then (seconds since 1970) is in the partition now.
        """
        recent = self._recent.get(partition)
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
            if recent is not None:
                if value is None:
                    recent.forget(key)
                else:
                    recent.put(key, value)
        batch.put(self.offset_key, b"%d" % offset)
        if upto_s is not None:
            batch.put(TIME_KEY, b"%d" % upto_s)
        self._db_for_partition(partition).write(batch, _WRITE)
        self._offsets[partition] = offset

    def offset(self, partition: int) -> int:
        """Changelog offset up to which a partition is written; -1 before the first."""
        if partition not in self._offsets:
            stored = self._db_for_partition(partition).get(self.offset_key)
            self._offsets[partition] = -1 if stored is None else int(stored)
        return self._offsets[partition]

    def heads_of(self, partition: int, separator: bytes) -> Iterator[bytes]:
        """What stands before the separator in a partition's keys, each once; it costs one seek for each."""
        found = self._db_for_partition(partition).iter()
        found.seek_to_first()
        while found.valid():
            head, there, _ = found.key().partition(separator)
            if there:
                yield head
                found.seek(head + bytes([separator[0] + 1]))
            else:
                found.next()

    def items_of(self, partition: int) -> Iterable[tuple[bytes, bytes]]:
        """Everything a partition holds, in the order of keys, without the offset and its time."""
        items: Iterable[tuple[bytes, bytes]] = self._visible_items(self._db_for_partition(partition))
        return ((key, value) for key, value in items if key != TIME_KEY)

    def apply_changelog_batch(self, *_: Any, **__: Any) -> None:
        """Nothing: the transport has written the records of the fetch before Faust sees the last of them."""

    def revoke_partitions(self, table: Any, tps: Iterable[Any]) -> None:
        """Close what is not ours any more, so that another process on this machine can open it."""
        for tp in tps:
            if tp.topic in table.changelog_topic.topics:
                self._close(tp.partition)

    def _close(self, partition: int) -> None:
        self._offsets.pop(partition, None)
        self._recent.pop(partition, None)
        db = self._dbs.pop(partition, None)
        if db is not None:
            try:
                db.flush()
                db.close()
            except rocksdict.DbClosedError:
                pass
            except Exception as exc:
                path = self.partition_path(partition)
                log.warning("%s is not up to date; the rest is restored from the changelog: %s", path, exc)

    async def stop(self) -> None:
        for partition in list(self._dbs):
            self._close(partition)


def _is_damage(error: Exception) -> bool:
    return any(word in str(error) for word in _DAMAGE)


class BytesTable(Table):  # type: ignore[misc]
    """A table whose keys and values are bytes as they stand in the changelog."""

    #: Room for states that were read or written lately, over all partitions.
    recent_bytes = RECENT_BYTES
    #: How long the changelog remembers at least that a key was deleted (`delete.retention.ms`).
    deletions_kept_s = math.inf

    def _serializer_from_type(self, typ: Any) -> str:  # noqa: ARG002 - Faust's signature
        return "raw"

    def _new_store_by_url(self, url: Any) -> BytesStore:
        return BytesStore(
            url,
            self.app,
            self,
            table_name=self.name,
            key_type=self.key_type,
            key_serializer=self.key_serializer,
            value_serializer=self.value_serializer,
            value_type=self.value_type,
            loop=self.loop,
            options=dict(self.options or {}),
        )

    def apply_changelog_batch(self, batch: Any) -> None:
        """Nothing: see BytesStore."""
