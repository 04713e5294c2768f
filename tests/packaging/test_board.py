"""The Grafana board and the alert rules ask for metrics that there are, in PromQL that parses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from streams import metrics

FOLDER = Path(metrics.__file__).parent / "operations"
BOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text("utf-8"))
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
#: Prometheus' own, and what the client library tells of every process.
OF_OTHERS = {
    "up": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_open_fds": set[str](),
    "process_max_fds": set[str](),
    "process_cpu_seconds_total": set[str](),
}
#: What Prometheus adds to every series.
TARGET = {"instance", "job"}
SUFFIXES = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
OURS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]


def series_of(metric: MetricWrapperBase) -> Iterator[tuple[str, set[str]]]:
    """The names of a metric's series, and the labels of each."""
    for suffix in SUFFIXES[type(metric)]:
        yield metric._name + suffix, {*metric._labelnames} | ({"le"} if suffix == "_bucket" else set())


KNOWN = {name: labels for metric in OURS for name, labels in series_of(metric)} | OF_OTHERS
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in ALERTS]


def plain(expression: str) -> str:
    """The expression with Grafana's variables filled in."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Name and matched labels of every selector below a node."""
    if isinstance(node, promql_parser.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
    for part in (getattr(node, name, None) for name in ("expr", "lhs", "rhs")):
        if part is not None:
            yield from selectors(part)
    for part in getattr(node, "args", None) or []:
        yield from selectors(part)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_parses_and_asks_for_series_and_labels_that_there_are(expression: str) -> None:
    text = plain(expression)
    found = list(selectors(promql_parser.parse(text)))
    assert {name for name, _ in found} == {name for name in re.findall(r"\b[a-z_]+\b", text) if name in KNOWN}
    for name, labels in found:
        assert labels <= KNOWN[name] | TARGET, name
    grouped = {label.strip() for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", text) for label in labels.split(",")}
    assert grouped <= TARGET.union(*(KNOWN[name] for name, _ in found))


@pytest.mark.parametrize("metric", OURS, ids=lambda metric: metric._name)
def test_every_metric_has_its_place_on_the_board(metric: MetricWrapperBase) -> None:
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert any(re.search(rf"\b{name}\b", shown) for name, _ in series_of(metric))


def test_a_panel_says_what_it_shows_and_shows_only_labels_that_it_keeps() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in PANELS:
        assert panel["description"]
        assert panel["title"]
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = re.search(r"\bby \(([^)]*)\) \((?!.*\bby\b)", target["expr"])
            labels = {label.strip() for label in kept[1].split(",")} if kept else TARGET | {"partition"}
            assert wanted <= labels, target


def test_panels_do_not_lie_on_each_other() -> None:
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_grave_it_is_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert len(rule["annotations"]["runbook"]) > 60
    # An increase is over by itself; what is compared with a limit must last, or it is a blip.
    assert "for" in rule or "increase(" in rule["expr"]


def test_an_alert_watches_what_must_not_happen_unseen() -> None:
    watched = " ".join(rule["expr"] for rule in ALERTS)
    for name in ("consent_optout_enforcement_seconds_bucket", "consent_lag_records", "consent_dead_letters_total",
                 "consent_misrouted_total", "consent_ready", "consent_partitions_open",
                 "consent_last_checkpoint_timestamp_seconds", "consent_login_failures_total"):  # fmt: skip
        assert name in watched
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
