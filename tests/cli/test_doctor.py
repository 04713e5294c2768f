"""What the doctor makes of clusters that a test has no machines for."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any

import pytest

from streams import topics
from streams.cli.doctor.cluster import Group, Member, Seen
from streams.cli.doctor.findings import Finding
from streams.cli.doctor.judging import judge
from streams.cli.doctor.workers import Worker, judge_workers
from streams.config import Config
from streams.kafka.admin import Cluster, TopicState
from streams.topics import LEAST_IN_SYNC, UNCLEAN

CONFIG = Config(partitions=4)
GOOD = {"allowed": -1, "replicas": 3, "in_sync": 3, "ready": True, "partitions": 4}
ALONE = Member("10.0.0.1", "http://worker-1:6066", frozenset(range(4)))
STEADY = Group("Stable", (ALONE,), {}, frozenset())


def seen(
    least: int = 2, group: Group = STEADY, newest_ms: int | None = None, unclean: str = "false", **state: Any
) -> list[Finding]:
    """Findings of a cluster whose topics are all alike."""
    states = {spec.name: TopicState(spec.name, uuid.uuid4(), **(GOOD | state)) for spec in topics.ALL}
    settings = {"retention.bytes": "-1", "cleanup.policy": "delete", LEAST_IN_SYNC: str(least), UNCLEAN: unclean}
    configs = {spec.name: settings | spec.config for spec in topics.ALL}
    return list(judge(CONFIG, Seen("4.3", Cluster("c", states), configs, group, newest_ms)))


def said(findings: list[Finding], check: str) -> list[tuple[str, str]]:
    return [(one.status, one.text.partition(":")[0]) for one in findings if one.check == check]


def test_three_replicas_in_sync_are_well() -> None:
    findings = seen()
    assert {one.status for one in findings} <= {"ok", "skipped"}
    assert said(findings, "replication") == [("ok", "3 or more replicas of every topic, all in sync")]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"replicas": 2, "in_sync": 2}, ("warning", "fewer than 3 replicas")),
        ({"least": 1}, ("warning", "min.insync.replicas is below 2")),
        ({"unclean": "true"}, ("warning", "unclean.leader.election.enable is true")),
        ({"in_sync": 2}, ("warning", "replicas are missing or behind")),
        ({"in_sync": 1}, ("problem", "fewer replicas in sync than min.insync.replicas, so writes are refused")),
        ({"ready": False}, ("problem", "without a leader")),
    ],
)
def test_what_a_broken_machine_would_cost_is_said(state: dict[str, Any], expected: tuple[str, str]) -> None:
    assert said(seen(**state), "replication") == [expected]


def test_a_read_barrier_that_asks_the_leader_only_is_worth_a_warning() -> None:
    states = {spec.name: TopicState(spec.name, uuid.uuid4(), **GOOD) for spec in topics.ALL}
    weak = replace(CONFIG, read_barrier="leader")
    found = list(judge(weak, Seen("4.3", Cluster("c", states), dict.fromkeys(states), STEADY, None)))
    assert said(found, "read barrier") == [("warning", "CONSENT_READ_BARRIER is leader")]
    assert said(seen(), "read barrier") == []


def test_settings_that_are_denied_are_said_to_be_unknown() -> None:
    states = {spec.name: TopicState(spec.name, uuid.uuid4(), **GOOD) for spec in topics.ALL}
    denied = list(judge(CONFIG, Seen("4.3", Cluster("c", states), dict.fromkeys(states), STEADY, None)))
    unread = "unclean.leader.election.enable and min.insync.replicas cannot be read"
    assert said(denied, "replication") == [("warning", unread)]
    assert said(denied, "topics") == [("warning", spec.name) for spec in topics.ALL]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Group("Empty", (), {}, frozenset()), ("problem", "nobody is in the group consent-streams")),
        (Group("Stable", (Member("h", "u", frozenset({0, 1})),), {}, frozenset()),
         ("problem", "1 in the group consent-streams, but partitions [2, 3] have none")),
        (Group("PreparingRebalance", (ALONE,), {}, frozenset()),
         ("warning", "1 in the group consent-streams, which is PreparingRebalance")),
    ],
)  # fmt: skip
def test_a_group_that_does_not_have_every_partition_is_named(group: Group, expected: tuple[str, str]) -> None:
    assert said(seen(group=group), "workers") == [expected]


def test_lag_that_shrinks_is_a_warning_and_lag_that_does_not_is_a_problem() -> None:
    place = ("consent.changes", 2)
    assert said(seen(group=Group("Stable", (ALONE,), {place: 400}, frozenset())), "lag") == [("ok", "400 records wait")]
    much = Group("Stable", (ALONE,), {place: 10_001}, frozenset())
    assert said(seen(group=much), "lag") == [("warning", "10001 records wait")]
    stuck = Group("Stable", (ALONE,), {place: 1}, frozenset({place}))
    assert said(seen(group=stuck), "lag") == [("problem", "nothing moves though records wait")]


def test_a_broker_whose_clock_is_ahead_is_found_by_its_newest_record() -> None:
    now_ms = int(time.time() * 1000)
    assert said(seen(newest_ms=now_ms + 60_000), "broker clock")[0][0] == "problem"
    assert said(seen(newest_ms=now_ms - 60_000), "broker clock")[0][0] == "ok"
    assert said(seen(), "broker clock")[0][0] == "skipped"


def told(**metrics: float) -> list[Finding]:
    """What is said of one worker that shows these series."""
    shown = {name: {frozenset[tuple[str, str]](): value} for name, value in metrics.items()}
    return list(judge_workers(CONFIG, [Worker("http://w", True, "ready", metrics=shown)]))


def test_a_low_limit_of_open_files_and_a_used_up_one_are_worth_a_warning() -> None:
    check = "open files of http://w"
    assert said(told(process_open_fds=100, process_max_fds=512), check) == [("warning", "100 of 512")]
    assert said(told(process_open_fds=1_200, process_max_fds=2_048), check) == [("warning", "1200 of 2048")]
    assert said(told(process_open_fds=100, process_max_fds=2_048), check) == [("ok", "100 of 2048")]
    assert said(told(), check)[0][0] == "skipped"


def test_guessed_passwords_are_worth_a_warning_and_mistyped_ones_are_not() -> None:
    def shown(**failures: float) -> list[Finding]:
        series = {frozenset({("reason", reason)}): count for reason, count in failures.items()}
        worker = Worker("http://w", True, "ready", metrics={"consent_login_failures_total": series})
        return list(judge_workers(CONFIG, [worker]))

    assert said(shown(wrong_password=3, blocked=0), "logins") == [("ok", "3 failed")]
    assert said(shown(wrong_password=3, blocked=2), "logins") == [("warning", "turned away")]


def test_workers_that_do_not_answer_are_not_ready_or_have_another_time_are_named() -> None:
    findings = list(judge_workers(CONFIG, [
        Worker("http://a", None, "ConnectError"), Worker("http://b", False, "being restored"),
        Worker("http://c", True, "ready", clock_ahead_s=-7.0),
    ]))  # fmt: skip
    statuses = [(one.check, one.status) for one in findings]
    assert statuses[:4] == [
        ("worker http://a", "warning"), ("worker http://b", "problem"), ("worker http://c", "ok"),
        ("worker clocks", "problem"),
    ]  # fmt: skip
