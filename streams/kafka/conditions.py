"""The conditions of what is guaranteed, as far as Kafka's settings show them: what was acknowledged stays.

Every reader that trusts the end of a log relies on them. For `consent.changes` that is the promise that no decision is
made without a change that was acknowledged before. That producers write with acks=all cannot be seen here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from streams.kafka.admin import TopicState
from streams.topics import ALL, IN_SYNC, LEAST_IN_SYNC, REPLICAS, UNCLEAN

#: Settings by a topic's full name; None where they cannot be read.
Configs = Mapping[str, Mapping[str, str] | None]


@dataclass(frozen=True, slots=True)
class Unmet:
    """A condition that these topics (full names) do not meet, what that can lose, and what to do about it."""

    what: str
    topics: tuple[str, ...]
    loss: str
    remedy: str

    def line(self) -> str:
        """What, where, and what that can lose."""
        where = f"all {len(ALL)} topics" if len(self.topics) == len(ALL) else ", ".join(self.topics)
        return f"{self.what}: {where}; {self.loss}"


def unmet(topics: Mapping[str, TopicState], configs: Configs) -> Iterator[Unmet]:
    """What topics do not meet, as `describe` and `readable_configs_of` found them; `consent.changes` is named first."""
    there = [topics[spec.name] for spec in ALL if spec.name in topics]
    unread = [state for state in there if not _is_read(configs.get(state.name))]
    known = {state.name: configs[state.name] or {} for state in there if state not in unread}
    if unread:
        yield Unmet(
            f"{UNCLEAN} and {LEAST_IN_SYNC} cannot be read", _names(unread),
            "it is not known whether acknowledged records can be lost",
            "grant DescribeConfigs on the topics, see `consent-streams topics acls`",
        )  # fmt: skip
    unclean = [state for state in there if known.get(state.name, {}).get(UNCLEAN) == "true"]
    if unclean:
        yield Unmet(
            f"{UNCLEAN} is true", _names(unclean),
            "a replica that lacks acknowledged records can become the leader, and they are lost",
            f"kafka-configs.sh --alter --add-config {UNCLEAN}=false",
        )  # fmt: skip
    few = [state for state in there if state.replicas < REPLICAS]
    if few:
        least = min(state.replicas for state in few)
        loss = (
            "a lost disk loses acknowledged records"
            if least < 2
            else "while one broker is away, a lost disk loses acknowledged records"
        )
        remedy = f"CONSENT_REPLICATION={REPLICAS} at `consent-streams topics create`, or kafka-reassign-partitions.sh"
        yield Unmet(f"fewer than {REPLICAS} replicas", _names(few), loss, remedy)
    weak = [
        state for state in there
        if state.replicas >= REPLICAS and state.name in known and int(known[state.name][LEAST_IN_SYNC]) < IN_SYNC
    ]  # fmt: skip
    if weak:
        yield Unmet(
            f"{LEAST_IN_SYNC} is below {IN_SYNC}", _names(weak),
            "a record can be acknowledged by one broker alone, and be lost with it",
            f"kafka-configs.sh --alter --add-config {LEAST_IN_SYNC}={IN_SYNC}",
        )  # fmt: skip


def _is_read(config: Mapping[str, str] | None) -> bool:
    return config is not None and UNCLEAN in config and config.get(LEAST_IN_SYNC, "").isdecimal()


def _names(states: Sequence[TopicState]) -> tuple[str, ...]:
    return tuple(state.name for state in states)
