"""Every metric of the worker, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


@cache
def of(metric: _Metric, *labels: str | int) -> _Metric:
    """The metric for these labels; finding it costs more than counting, so it is found once."""
    return metric.labels(*labels)


class _Counted:
    """Counts that Prometheus's counters are told when it asks for them: until then each is one addition."""

    def __init__(self) -> None:
        self.counts: dict[Counter, int] = {}

    def collect(self) -> Iterable[Metric]:
        """Bring the counters up to date; it has to be registered before them."""
        while self.counts:
            counter, count = self.counts.popitem()
            counter.inc(count)
        return ()


_counted = _Counted()
REGISTRY.register(_counted)


def count(counter: Counter, more: int = 1) -> None:
    """Count so many more; only on the event loop, which Prometheus is answered on too."""
    counts = _counted.counts
    counts[counter] = counts.get(counter, 0) + more


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RECORDS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000)

RECORDS = Counter("consent_records", "Records read, by topic and outcome", ["topic", "outcome"])
DECISIONS = Counter("consent_decisions", "Decisions, by reason", ["reason"])
NOTIFICATIONS = Counter("consent_notifications", "Messages to customers written, by kind", ["kind"])
DEAD_LETTERS = Counter("consent_dead_letters", "Dead letters written, by code", ["code"])
MISROUTED = Counter("consent_misrouted", "Records found in a foreign partition and sent home, by topic", ["topic"])
REPEATED = Counter("consent_repeated_outputs_skipped", "Outputs found already written after a restart", ["topic"])
LAG = Gauge("consent_lag_records", "Records not yet worked on, by topic and partition", ["topic", "partition"])
BATCH = Histogram("consent_batch_records", "Records per checkpoint, by topic", ["topic"], buckets=_RECORDS)
STEP = Histogram(
    "consent_checkpoint_step_seconds",
    "Time of each step of a checkpoint, by topic",
    ["topic", "step"],
    buckets=_SECONDS,
)
FENCES = Counter(
    "consent_fences", "How the ends of consent.changes were found, by way: same fetch, asked, or not confirmed", ["way"]
)
FENCE_WAIT = Histogram("consent_fence_wait_seconds", "How long requests waited for the state", buckets=_SECONDS)
ENFORCEMENT = Histogram(
    "consent_optout_enforcement_seconds",
    "From an accepted opt-out's broker timestamp to the end of the checkpoint that applied it",
    buckets=_SECONDS,
)
RESTORED = Counter("consent_restored_records", "Changelog records restored, by partition", ["partition"])
RESTORE_LEFT = Gauge(
    "consent_restore_remaining_records", "Changelog records still to restore, by partition", ["partition"]
)
READY = Gauge("consent_ready", "1 while this worker is ready, as /readyz says, else 0")
PARTITIONS = Gauge("consent_partitions", "Partitions of every topic, as this worker was told")
OWNED = Gauge("consent_partitions_open", "Partitions that this worker has restored and works on")
CHECKPOINT_AT = Gauge(
    "consent_last_checkpoint_timestamp_seconds", "When each partition's last checkpoint ended", ["partition"]
)
SETTINGS = Gauge(
    "consent_settings_version", "Version of an org's settings in force, by partition", ["org_id", "partition"]
)
LOGIN_FAILURES = Counter("consent_login_failures", "HTTP requests with refused credentials, by reason", ["reason"])
RATE_LIMITED = Counter("consent_rate_limited_requests", "HTTP requests beyond the rate limit, by user", ["user"])


def count_records(topic: str, outcomes: Mapping[str, int]) -> None:
    """So many more records of a topic were read with each outcome."""
    for outcome, more in outcomes.items():
        count(of(RECORDS, topic, outcome), more)
