"""What is well and what is not of what Kafka said: pure functions from what was seen to findings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from streams import topics
from streams.config import NOT_PROMISED, Config
from streams.kafka.admin import Problem, TopicState, problems
from streams.kafka.conditions import Configs, unmet
from streams.links import MIN_SECRET
from streams.topics import LEAST_IN_SYNC, REPLICAS

from .cluster import Group, Seen
from .findings import Finding, ok, problem, skipped, some, warning

#: More records than these waiting are worth a look; one worker decides some ten thousand in a second.
MUCH_LAG = 10_000
#: A clock that is so far ahead makes changes look as if they came from the future.
CLOCK_S = 2.0

CREATE = "`consent-streams topics create` creates what is missing; other settings: `kafka-configs.sh --alter`"
START = "start one: `consent-streams worker`"


def judge(config: Config, seen: Seen) -> Iterator[Finding]:
    """Every check that needs Kafka alone, in the order in which problems follow from each other."""
    yield ok("broker", f"Kafka {seen.release} at {config.bootstrap_servers}, cluster {seen.cluster.cluster_id}")
    yield from _topics(list(problems(config, seen.cluster.topics, seen.configs)))
    yield from _replication(seen.cluster.topics, seen.configs)
    if config.read_barrier != "quorum":
        yield warning("read barrier", NOT_PROMISED, "unset CONSENT_READ_BARRIER where the brokers are Apache Kafka's")
    if seen.group is None:
        yield skipped("workers", f"there is no topic {config.topic(topics.CHANGES.name)}")
        return
    yield _members(config, seen.group)
    yield from _lag(seen.group)
    yield _links(config, seen.group)
    yield _broker_clock(seen.newest_ms, time.time() * 1000)


def _topics(found: list[Problem]) -> Iterator[Finding]:
    for one in found:
        finding = problem if one.fatal else warning
        yield finding("topics", one.text, "" if "consent-streams topics create" in one.text else CREATE)
    if not found:
        yield ok("topics", f"all {len(topics.ALL)} are there with the right partitions and settings")


def _replication(there: Mapping[str, TopicState], configs: Configs) -> Iterator[Finding]:
    states = list(there.values())
    leaderless = [state.name for state in states if not state.ready]
    if leaderless:
        yield problem("replication", f"without a leader: {some(leaderless)}", "bring the brokers that have them back")
    least = {state.name: int((configs[state.name] or {}).get(LEAST_IN_SYNC, 1)) for state in states}
    refusing = [state.name for state in states if state.in_sync < least[state.name]]
    if refusing:
        text = f"fewer replicas in sync than min.insync.replicas, so writes are refused: {some(refusing)}"
        yield problem("replication", text, "bring the missing brokers back")
    weak = list(unmet(there, configs))
    yield from (warning("replication", one.line(), one.remedy) for one in weak)
    behind = [state.name for state in states if state.in_sync < state.replicas and state.name not in refusing]
    if behind:
        yield warning("replication", f"replicas are missing or behind: {some(behind)}", "look at the brokers' logs")
    if states and not (leaderless or refusing or weak or behind):
        yield ok("replication", f"{REPLICAS} or more replicas of every topic, all in sync")


def _members(config: Config, group: Group) -> Finding:
    if not group.members:
        return problem("workers", f"nobody is in the group {config.group}", START)
    owned = frozenset[int]().union(*(member.partitions for member in group.members))
    count = f"{len(group.members)} in the group {config.group}"
    if group.state != "Stable":
        return warning("workers", f"{count}, which is {group.state}", "partitions are being assigned: look again soon")
    missing = sorted(set(range(config.partitions)) - owned)
    if missing:
        return problem("workers", f"{count}, but partitions {missing} have none", "restart the workers, one by one")
    return ok("workers", f"{count}, every partition has one")


def _lag(group: Group) -> Iterator[Finding]:
    total = sum(group.lag.values())
    worst = sorted(group.lag, key=lambda place: -group.lag[place])
    where = some([f"{topic}-{number} ({group.lag[topic, number]})" for topic, number in worst])
    stuck = [f"{topic}-{number}" for topic, number in worst if (topic, number) in group.stuck]
    if total and not group.members:
        yield problem("lag", f"{total} records wait and nobody works on them: {where}", START)
        return
    if stuck:
        remedy = "see the worker's log and whether Kafka takes its writes; restart the worker: nothing is lost"
        yield problem("lag", f"nothing moves though records wait: {some(stuck)}", remedy)
    if total > MUCH_LAG:
        yield warning("lag", f"{total} records wait: {where}", "add workers, up to one for each partition")
    elif not stuck:
        yield ok("lag", f"{total} records wait" if total else "no record waits")


def _links(config: Config, group: Group) -> Finding:
    """Set here: what the workers were started with cannot be seen, so this command needs their environment."""
    if config.link_secret and len(config.link_secret) < MIN_SECRET:
        text = f"CONSENT_LINK_SECRET has {len(config.link_secret)} characters, {MIN_SECRET} are needed"
        return problem("links", text, "openssl rand -hex 32 makes one")
    if config.link_secret:
        return ok("links", "CONSENT_LINK_SECRET is set")
    if len(group.members) > 1:
        text = f"{len(group.members)} workers and no CONSENT_LINK_SECRET: each refuses the links that another signed"
        return problem("links", text, "give all workers, and this command, the same one")
    return ok("links", "signed with the secret in the one worker's data folder")


def _broker_clock(newest_ms: int | None, now_ms: float) -> Finding:
    """Only one side can be seen without writing: a record cannot be newer than now."""
    if newest_ms is None:
        return skipped("broker clock", "there is no change yet whose time, the broker's, could be compared")
    ahead = (newest_ms - now_ms) / 1000
    if ahead > CLOCK_S:
        text = f"the newest change is {ahead:.1f} s ahead of this machine's clock"
        return problem("broker clock", text, "let NTP set the clocks of the brokers and of this machine")
    return ok("broker clock", f"not ahead of this machine's; the newest change is {-ahead:.0f} s old")
