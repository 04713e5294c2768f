"""What is done to workers, to their brokers, to their disks and to what they read: each fault under a name.

A fault finds a round with workers that are ready and a load that is being written, and leaves it such that the round
can go on: several can follow each other.
"""

from __future__ import annotations

from tests.chaos.faults import brokers, changelogs, cluster, disks, loads, workers
from tests.chaos.faults.registry import FAULTS, Deck, Fault, faults_on

__all__ = ["FAULTS", "Deck", "Fault", "brokers", "changelogs", "cluster", "disks", "faults_on", "loads", "workers"]
