"""What Kafka's settings say of the conditions under which nothing is lost that was acknowledged."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from streams import topics
from streams.kafka.admin import TopicState
from streams.kafka.conditions import Unmet, unmet
from streams.topics import LEAST_IN_SYNC, UNCLEAN

CHANGES = topics.CHANGES.name
KEPT = {UNCLEAN: "false", LEAST_IN_SYNC: "2"}


def found(config: dict[str, str] | None = None, replicas: int = 3, *, readable: bool = True) -> list[Unmet]:
    """Of one topic that is well but for this, beside one that is well."""
    states = {
        name: TopicState(f"p-{name}", uuid.uuid4(), 4, True, -1, count, count)
        for name, count in ((topics.AUDIT.name, 3), (CHANGES, replicas))
    }
    theirs = KEPT | (config or {}) if readable else None
    return list(unmet(states, {f"p-{topics.AUDIT.name}": KEPT, f"p-{CHANGES}": theirs}))


def test_three_replicas_of_which_two_acknowledge_are_well() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("given", "what", "loss"),
    [
        ({"config": {UNCLEAN: "true"}}, f"{UNCLEAN} is true", "can become the leader"),
        ({"replicas": 1}, "fewer than 3 replicas", "a lost disk loses acknowledged records"),
        ({"replicas": 2}, "fewer than 3 replicas", "while one broker is away, a lost disk"),
        ({"config": {LEAST_IN_SYNC: "1"}}, f"{LEAST_IN_SYNC} is below 2", "one broker alone"),
        ({"readable": False}, f"{UNCLEAN} and {LEAST_IN_SYNC} cannot be read", "not known"),
        ({"config": {LEAST_IN_SYNC: ""}}, f"{UNCLEAN} and {LEAST_IN_SYNC} cannot be read", "not known"),
    ],
)
def test_each_condition_that_is_not_met_names_the_topics_and_what_can_be_lost(
    given: dict[str, Any], what: str, loss: str
) -> None:
    (only,) = found(**given)
    assert (only.what, only.topics) == (what, (f"p-{CHANGES}",))
    assert loss in only.loss
    assert only.remedy


def test_one_replica_is_one_thing_to_say() -> None:
    (only,) = found({LEAST_IN_SYNC: "1"}, replicas=1)
    assert only.what == "fewer than 3 replicas"


def test_topics_are_created_so_that_the_conditions_are_met() -> None:
    for spec in topics.ALL:
        assert spec.config_for(3) == spec.config | KEPT
        assert spec.config_for(1) == spec.config_for(2) == spec.config | {UNCLEAN: "false"}
