"""What is counted by and by is there when Prometheus asks."""

from __future__ import annotations

from prometheus_client import REGISTRY

from streams import metrics


def test_what_was_counted_is_told_when_it_is_asked_for() -> None:
    labels = {"topic": "a test's", "outcome": "counted"}
    metrics.count_records("a test's", {"counted": 2})
    metrics.count(metrics.of(metrics.RECORDS, "a test's", "counted"))
    assert REGISTRY.get_sample_value("consent_records_total", labels) == 3
    assert REGISTRY.get_sample_value("consent_records_total", labels) == 3, "once"
    metrics.count(metrics.of(metrics.RECORDS, "a test's", "counted"), 4)
    assert REGISTRY.get_sample_value("consent_records_total", labels) == 7
