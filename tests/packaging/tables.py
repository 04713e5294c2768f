"""The README's tables that the code already says: `python -m tests.packaging.tables` puts them there anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from streams import metrics, topics
from streams.config import Config, default_datadir

README = Path(__file__).parents[2] / "README.md"
DAY_MS = topics.DAY_MS


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def options() -> str:
    """Every field of `Config`: its variable, default and meaning."""
    plain = Config()

    def default(name: str) -> str:
        if name == "datadir":
            return "`~/.local/share/consent-streams`"
        value = getattr(plain, name)
        return f"`{value}`" if value != "" else ""

    assert plain.datadir == default_datadir()
    rows = ((f"`CONSENT_{f.name.upper()}`", default(f.name), str(f.metadata["doc"])) for f in fields(Config))
    return _table(("variable", "default", "meaning"), rows)


def metric_rows() -> str:
    """Every metric of `streams/metrics.py` as Prometheus shows it."""
    found = [m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)]

    def name(metric: MetricWrapperBase) -> str:
        labels = f"{{{', '.join(metric._labelnames)}}}" if metric._labelnames else ""
        return f"`{metric._name}{'_total' if isinstance(metric, Counter) else ''}{labels}`"

    return _table(("metric", "kind", "meaning"), ((name(m), m._type, m._documentation) for m in found))


USERS = {
    "consent.changes": ("your producers, `publish`, `settings apply`, the ways in", "the worker"),
    "consent.inbound": ("your SMS and missed-call gateways, HTTP", "the worker"),
    "eligibility.requests": ("your campaign engine, `ask`, HTTP", "the worker"),
    "eligibility.decisions": ("the worker", "your campaign engine"),
    "consent.audit": ("the worker", "analytics, `audit`"),
    "consent.notifications": ("the worker", "your message sender"),
    "consent.deadletter": ("the worker", "operators, `deadletter`"),
    topics.IDENTITIES.name: ("the worker", "the worker"),
    topics.CHANGELOG.name: ("the worker", "the worker"),
    topics.IDENTITIES_CHANGELOG.name: ("the worker", "the worker"),
}


def topic_rows() -> str:
    """Every topic with its key, retention, writers and readers."""

    def kept(spec: topics.TopicSpec) -> str:
        retention = int(spec.config.get("retention.ms", topics.KEEP))
        return "compacted" if spec.changelog else "kept" if retention == topics.KEEP else f"{retention // DAY_MS} days"

    rows = ((f"`{s.name}`", s.key if " " in s.key else f"`{s.key}`", kept(s), *USERS[s.name]) for s in topics.ALL)
    return _table(("topic", "key", "retention", "written by", "read by"), rows)


TABLES: dict[str, Callable[[], str]] = {"options": options, "metrics": metric_rows, "topics": topic_rows}


def with_tables(text: str) -> str:
    """The text with each table between its markers."""
    for name, rows in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        text, count = re.subn(
            f"{begin}.*?{end}", lambda _, b=begin, r=rows, e=end: f"{b}\n{r()}\n{e}", text, flags=re.DOTALL
        )
        assert count == 1, f"README.md has {count} places for {name}"
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text("utf-8")), "utf-8")
