"""What is done to the workers' data folders."""

from __future__ import annotations

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


@fault("RocksDB files corrupted", workers=1)
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


@fault("RocksDB files deleted", workers=1)
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
