"""What is done to the workers' data folders."""

from __future__ import annotations

import os
import signal
import subprocess
import unittest
from contextlib import suppress
from pathlib import Path

from tests.chaos.driver import Hand, Round
from tests.chaos.faults.registry import fault

CUSTOMERS_DB = "customers-*.db"


def _folders(worker: Hand) -> list[Path]:
    return sorted((worker.datadir / "state").glob(f"**/{CUSTOMERS_DB}"))


def _damage(folder: Path, name: str) -> None:
    """Overwrite the files of one kind with something else of their size."""
    for file in folder.glob(name):
        file.write_bytes(b"\xa5" * file.stat().st_size)


def _warnings(worker: Hand) -> list[str]:
    return [line for line in worker.errors.splitlines() if " WARNING " in line and "damaged" in line]


@fault("RocksDB files corrupted", workers=1, alone=True)
def corrupt(round_: Round) -> None:
    """Restored from the changelog, with one warning for each partition."""
    worker = round_.workers[0]
    round_.goes_on()
    worker.stop()
    found = [folder for folder in _folders(worker) if list(folder.glob("*.sst"))]
    for folder, files in zip(round_.rng.sample(found, 3), ("MANIFEST-*", "CURRENT", "*.sst"), strict=True):
        _damage(folder, files)
    worker.start()
    round_.goes_on()
    worker.ready()
    assert len(_warnings(worker)) == 3, worker.errors


@fault("RocksDB files deleted", workers=1, alone=True)
def delete(round_: Round) -> None:
    worker = round_.workers[0]
    round_.goes_on()
    worker.stop()
    whole, parts, *_ = round_.rng.sample([folder for folder in _folders(worker) if list(folder.glob("*.sst"))], 2)
    for file in whole.glob("*"):
        file.unlink()
    for file in parts.glob("*.sst"):
        file.unlink()
    worker.start()
    round_.goes_on()
    worker.ready()


def _small_disk(round_: Round, folder: Path) -> None:
    """A file system of its own, of 32 MiB, for a data folder."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "chaos", str(folder)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        raise unittest.SkipTest(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    round_.undoes.append(lambda: subprocess.run(["umount", str(folder)], check=True) and None)


def _fill(disk: Path) -> Path:
    """Leave no room; returns what takes it."""
    filler = disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    os.sync()
    return filler


@fault("disk full under the data folder", alone=True)
def full_disk(round_: Round) -> None:
    """It ends with one clear line when it has to write; with room again it starts and goes on."""
    worker = round_.worker()
    _small_disk(round_, worker.datadir)
    worker.start().ready()
    round_.until("it to have partitions", worker.open_partitions)
    round_.goes_on()
    filler = _fill(worker.datadir)
    round_.goes_on()
    # Flushing is when RocksDB writes, at the latest in the end.
    worker.may_end(0, 1).signal(signal.SIGTERM)
    worker.wait()
    for _ in range(2):
        worker.start().may_end(1)
        assert worker.wait() == 1, "it started on a full disk"
        assert "No space left" in worker.last_line, worker.errors
    filler.unlink()
    worker.start().ready()
    round_.until("it to have partitions again", worker.open_partitions)
