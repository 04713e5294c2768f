"""What the workers say of themselves over HTTP: readiness, clock, counters, settings in force, open files."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx
from prometheus_client.parser import text_string_to_metric_families

from streams.cli.http import base_url, credentials
from streams.cli.root import Failure
from streams.config import Config
from streams.http.tls import trusted

from .cluster import Member
from .findings import Finding, ok, problem, skipped, some, warning

TIMEOUT_S = 3.0
#: HTTP's clock has whole seconds.
CLOCK_S = 2.0
#: What a worker may need: see "Memory and open files" in the README.
LEAST_FILES = 1_024
NO_METRICS = "no worker shows its metrics here: it has to be reachable, and CONSENT_HTTP_TOKEN its token"

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker's answers. `ready` is None if it does not answer; `why` is what /readyz says; `metrics` by series."""

    url: str
    ready: bool | None
    why: str = ""
    clock_ahead_s: float = 0.0
    metrics: Mapping[str, Mapping[Labels, float]] | None = None

    def sums(self, series: str, label: str) -> Counter[str]:
        """A series summed by one of its labels."""
        found: Counter[str] = Counter()
        for labels, value in (self.metrics or {}).get(series, {}).items():
            found[dict(labels).get(label, "")] += int(value)
        return found

    def value(self, series: str) -> float | None:
        """The value of a series without labels."""
        return (self.metrics or {}).get(series, {}).get(frozenset())


def ask_all(config: Config, members: Iterable[Member]) -> list[Worker]:
    """Every worker of the group, and the one that these options describe if there is one."""
    urls = {member.url.rstrip("/") for member in members if member.url}
    try:
        own = base_url(config)
    except Failure:  # any free port: the group knows which
        own = ""
    known = [_ask(config, url) for url in sorted(urls)]
    if own and own not in urls and (found := _ask(config, own)).ready is not None:
        known.append(found)
    return known


def _ask(config: Config, url: str) -> Worker:
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=trusted(config)) as client:
        try:
            before = time.time()
            answer = client.get(f"{url}/readyz")
            after = time.time()
            shown = client.get(f"{url}/metrics", headers=credentials(config))
        except httpx.TransportError as error:
            return Worker(url, None, type(error).__name__)
    why = " ".join(answer.text.split())[:200]
    metrics = _series(shown.text) if shown.is_success else None
    return Worker(url, answer.is_success, why, _ahead(answer.headers.get("date", ""), before, after), metrics)


def _ahead(date: str, before: float, after: float) -> float:
    """By how much a clock is ahead at the least; 0 if its time lies between the question and the answer."""
    try:
        told = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0
    if told > after:
        return told - after
    return min(0.0, told + 1 - before)


def _series(text: str) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][frozenset(sample.labels.items())] = sample.value
    return found


def judge_workers(config: Config, workers: list[Worker]) -> Iterator[Finding]:
    """Each worker's readiness, then what their metrics say together."""
    for worker in workers:
        yield _readiness(worker)
    yield from _clocks(workers)
    told = [worker for worker in workers if worker.metrics is not None]
    if not told:
        yield skipped("misrouted, dead letters, logins, settings, open files", NO_METRICS)
        return
    yield from _counters(told)
    yield _logins(told)
    yield from _settings(config, told)
    for worker in told:
        yield _files(worker)


def _readiness(worker: Worker) -> Finding:
    check = f"worker {worker.url}"
    if worker.ready is None:
        text = f"does not answer from here ({worker.why})"
        return warning(check, text, "the other workers must reach it: see CONSENT_HTTP_ADVERTISED_URL and the firewall")
    if not worker.ready:
        return problem(check, f"not ready: {worker.why}", "a restore takes its time; else see its log, and restart it")
    return ok(check, "ready")


def _clocks(workers: list[Worker]) -> Iterator[Finding]:
    answering = [worker for worker in workers if worker.ready is not None]
    off = [f"{w.url} ({w.clock_ahead_s:+.0f} s)" for w in answering if abs(w.clock_ahead_s) > CLOCK_S]
    if off:
        yield problem("worker clocks", f"not this machine's time: {some(off)}", "let NTP set the clocks")
    elif answering:
        yield ok("worker clocks", "as this machine's")


def _counters(workers: list[Worker]) -> Iterator[Finding]:
    misrouted, dead = Counter[str](), Counter[str]()
    for worker in workers:
        misrouted += worker.sums("consent_misrouted_total", "topic")
        dead += worker.sums("consent_dead_letters_total", "code")
    if misrouted:
        text = f"misrouted since the workers' start: {_counts(misrouted)}"
        yield warning("misrouted", text, "give the producer Kafka's murmur2 (librdkafka: partitioner=murmur2_random)")
    else:
        yield ok("misrouted", "no record since the workers' start")
    if dead:
        text = f"since the workers' start: {_counts(dead)}"
        yield warning("dead letters", text, "`consent-streams deadletter list` shows them")
    else:
        yield ok("dead letters", "none since the workers' start")


def _logins(workers: list[Worker]) -> Finding:
    failures = Counter[str]()
    for worker in workers:
        failures += worker.sums("consent_login_failures_total", "reason")
    guessed = {reason: count for reason, count in failures.items() if reason in {"blocked", "busy"}}
    if guessed:
        remedy = "the workers' logs name the addresses: a system with an old password, or somebody who guesses"
        return warning("logins", f"turned away: {_counts(guessed)}", remedy)
    return ok("logins", f"{failures.total()} failed" if failures else "none failed")


def _settings(config: Config, workers: list[Worker]) -> Iterator[Finding]:
    """Every partition that was asked must hold the same version of each org's settings."""
    versions: dict[str, dict[str, int]] = defaultdict(dict)
    asked = 0
    for worker in workers:
        asked += int(worker.value("consent_partitions_open") or 0)
        for labels, version in (worker.metrics or {}).get("consent_settings_version", {}).items():
            place = dict(labels)
            versions[place["org_id"]][place["partition"]] = int(version)
    odd = [
        f"org {org}: version {min(found.values())} to {max(found.values())}, in {len(found)} of {asked} partitions"
        for org, found in sorted(versions.items())
        if len(set(found.values())) > 1 or len(found) < asked
    ]
    if odd:
        remedy = "on its way if it was just applied; else `settings apply` a higher version, to every partition"
        yield problem("settings", f"not the same everywhere: {some(odd)}", remedy)
    elif asked < config.partitions:
        yield ok("settings", f"{_orgs(len(versions))}, the same in the {asked} of {config.partitions} partitions asked")
    else:
        yield ok("settings", f"{_orgs(len(versions))}, the same in every partition")


def _files(worker: Worker) -> Finding:
    used, most = worker.value("process_open_fds"), worker.value("process_max_fds")
    check = f"open files of {worker.url}"
    if used is None or most is None:
        return skipped(check, "its system does not say")
    text = f"{used:.0f} of {most:.0f}"
    if most < LEAST_FILES or used > most / 2:
        return warning(check, text, f"raise the limit to {LEAST_FILES} or more (LimitNOFILE, ulimit -n)")
    return ok(check, text)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _orgs(count: int) -> str:
    return f"{count} org{'' if count == 1 else 's'}"
