"""What one run does: its options, and every tuning number of the bench with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The stages, in the order in which they run. A stage that needs another's state brings it along (`with_needs`).
STAGES = ("changes", "decisions", "restore", "latency", "footprint", "intake")
#: The systems, the product first: ratios are always the product's number over a peer's.
PRODUCT = "consent-streams"
SYSTEMS = (PRODUCT, "kstreams", "quix", "faust")
#: How many brokers there are: all stages run on one, the throughput of the product and its latency on three as well.
BROKERS = (1, 3)

#: Full run: the slowest of the fast systems works for about five seconds, so start effects stay below a few percent.
EVENTS = 200_000
QUICK_EVENTS = 40_000
#: Plain Faust is slow and its rate does not depend on the length of the run: it gets the first events only, so that a
#: full run stays a matter of minutes.
FAUST_EVENTS_CAP = 50_000
#: As many customers as the reduced job of the peers has always had: about ten events each in a full run.
CUSTOMERS = 20_000
PARTITIONS = 4

#: How often end offsets are looked at: 1 % of the shortest phase we accept, and too seldom to weigh on two cores.
POLL_S = 0.02
#: A measured phase whose first sight already holds more than this share of the outputs was too short to say anything.
MOST_AT_FIRST_SIGHT = 0.5
#: A system slower than this is taken for stuck: a third of what plain Faust does on the slowest machine we know.
SLOWEST_EVENTS_PER_S = 700
#: Start-up, group join, first batch: generous, because the slowest CI machine must pass too.
START_DEADLINE_S = 90.0
#: An orderly end: the product promises 10 s after SIGTERM, peers get more, and are then killed.
STOP_DEADLINE_S = 20.0
#: Commits follow within a few seconds (Faust 2.8 s, Quix 5 s): before a worker is stopped its input must be committed,
#: or the next phase would repeat some of this one.
COMMIT_DEADLINE_S = 30.0
#: Reading outputs back for the check goes at 200 000 records per second; this only ends a run that hangs.
READ_DEADLINE_S = 120.0

#: The producer of the input: large batches, nothing is measured while it runs.
PRODUCER_LINGER_MS = 20
#: Room for one whole preload burst in librdkafka's queue; beyond it the producer waits.
PRODUCER_QUEUE = 500_000

#: Half load, as the target says: the worker is busy and has room; and one at which it hardly has any.
LOAD, HEAVY_LOAD = 0.5, 0.9
#: Campaigns ask far more often than customers change their minds; still enough changes that every fence has to wait.
CHANGE_EVERY = 10
#: Echo and product take turns this often and the middle of each number counts: one hiccup of the machine spoils a p99.
LATENCY_ROUNDS = 5
QUICK_LATENCY_ROUNDS = 2
#: Open loop, seconds per round and load: some 100 000 answers, after a warm-up that is thrown away.
LATENCY_SECONDS = 6.0
QUICK_LATENCY_SECONDS = 3.0
LATENCY_WARMUP_S = 2.0
#: A rate that is to be sustained is probed for this long, each time; at most so many rates.
PROBE_SECONDS = 60.0
QUICK_PROBE_SECONDS = 10.0
PROBES = 6
QUICK_PROBES = 4
#: How often the backlog of a load is looked at: a probe of ten seconds still has a hundred samples.
BACKLOG_STEP_S = 0.1
#: The generator wakes this often and sends what is due.
PACE_S = 0.001
#: A few records per request to the broker at full rate, and hardly any delay for a lone one.
LATENCY_LINGER_MS = 1
#: Nagle's algorithm and delayed acknowledgements add 40 ms now and then, to everybody's answers: the clients that
#: measure do without.
NO_NAGLE = {"socket.nagle.disable": True}
#: After a load and as much time again, answers must arrive within this time, or the load is given up.
DRAIN_DEADLINE_S = 20.0
#: A generator this far below its rate did not produce the load that the table would claim.
LEAST_OF_RATE = 0.9
#: Lone requests, one at a time: the median of 200 moves by about 2 % from run to run.
LONE_REQUESTS = 200
LONE_WARMUP = 20
LONE_DEADLINE_S = 10.0

#: What the subscription API has to bear, and for how long it is watched (`latency_seconds` twice).
INTAKE_RATE = 200
INTAKE_CUSTOMERS = 2_000
INTAKE_CONNECTIONS = 8
#: The first password of a user takes argon2's time, the first requests open connections.
INTAKE_WARMUP_S = 3.0
INTAKE_P99_MS = 100.0
#: The two sizes between which memory has to stay flat.
FOOTPRINT = (10_000, 1_000_000)
QUICK_FOOTPRINT = (10_000, 100_000)
#: Both sizes get the same burst of requests before memory is read: buffers and allocators have then seen the same load.
FOOTPRINT_PROBES = 50_000
#: Compactions are over when the folder has not changed for this long.
SETTLED_S = 3.0
SETTLE_DEADLINE_S = 60.0
#: Flushing the product's own first output etc. is slower than steady state; loading may take this long per record.
SLOWEST_LOAD_PER_S = 5_000


#: A figure may be worse than the other checkout's by this share.
MOST_WORSE = 0.03


class BenchError(Exception):
    """The run is void: something was late, missing or wrong. The message is one line and says what."""


class LoadError(BenchError):
    """A load could not be sent, or not be worked off in time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: what is measured, how large, against which broker, and where its files go."""

    stages: tuple[str, ...]
    systems: tuple[str, ...]
    events: int
    partitions: int
    quick: bool
    folder: Path
    rate: float | None = None

    def events_of(self, system: str) -> int:
        """How many events a system gets: everybody the same first ones, plain Faust fewer of them."""
        return min(self.events, FAUST_EVENTS_CAP) if system == "faust" else self.events

    @property
    def footprint(self) -> tuple[int, int]:
        """The small and the large number of customers."""
        return QUICK_FOOTPRINT if self.quick else FOOTPRINT

    @property
    def latency_seconds(self) -> float:
        """How long the open-loop load of one round is measured."""
        return QUICK_LATENCY_SECONDS if self.quick else LATENCY_SECONDS

    @property
    def rounds(self) -> int:
        """How often two systems take turns."""
        return QUICK_LATENCY_ROUNDS if self.quick else LATENCY_ROUNDS

    @property
    def probes(self) -> int:
        """How many rates are probed at most."""
        return QUICK_PROBES if self.quick else PROBES

    @property
    def probe_seconds(self) -> float:
        """How long a rate is probed."""
        return QUICK_PROBE_SECONDS if self.quick else PROBE_SECONDS


def with_needs(stages: tuple[str, ...]) -> tuple[str, ...]:
    """Add what the chosen stages build on: decisions, latency and restore need the state that `changes` leaves."""
    chosen = set(stages)
    if "latency" in chosen:
        chosen.add("decisions")  # its rate is half of what that stage measures
    if chosen & {"decisions", "restore"}:
        chosen.add("changes")
    return tuple(stage for stage in STAGES if stage in chosen)
