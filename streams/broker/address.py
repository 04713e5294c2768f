"""The address file: how a command in a second terminal finds the embedded broker of a data folder."""

from __future__ import annotations

import os
from pathlib import Path

from .probe import listens


def broker_folder(data_dir: Path | str) -> Path:
    """The part of the product's data folder that belongs to the embedded broker."""
    return Path(data_dir).absolute() / "broker"


def write_address(folder: Path, address: str, pid: int) -> None:
    """Name the broker that is ready now; readers see the old file or the new one, nothing between."""
    part = folder / "address.part"
    part.write_text(f"{address}\n{pid}\n", "utf-8")
    part.replace(folder / "address")


def remove_address(folder: Path) -> None:
    """Forget the broker, after an orderly stop."""
    (folder / "address").unlink(missing_ok=True)


def running_address(data_dir: Path | str) -> str | None:
    """The address of the embedded broker that runs on this data folder, or None.

    A file left behind by a hard kill does not count: its process must live and its port accept connections.
    """
    found = running_broker(data_dir)
    return found[0] if found else None


def running_broker(data_dir: Path | str) -> tuple[str, int] | None:
    """Address and process id of the embedded broker that runs on this data folder, or None."""
    try:
        address, pid = (broker_folder(data_dir) / "address").read_text("utf-8").split()
        os.kill(int(pid), 0)
    except PermissionError:
        pass  # someone else's process: alive
    except (OSError, ValueError):
        return None
    return (address, int(pid)) if listens(address) else None
