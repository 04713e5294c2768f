"""Every topic of the product: its name, key, retention and settings, declared once."""

from __future__ import annotations

from dataclasses import dataclass, field

DAY_MS = 86_400_000
KEEP = -1  # retention.ms of a topic that is never cut

#: Broker settings of inputs: one megabyte is Kafka's own default, stated so that `topics check` can compare it.
INPUT_BYTES = 1_048_588
#: Outputs carry their input plus our own fields and headers, so they must be allowed to be larger than any input.
OUTPUT_BYTES = 4 * INPUT_BYTES
#: The changelog of one checkpoint is one Kafka record batch; a single customer's state must always fit.
CHANGELOG_BYTES = 16 * INPUT_BYTES
#: An input that takes nothing: every event and request is larger, the end of a transaction (78 bytes) is not.
CLOSED_BYTES = 80

#: A log that others depend on keeps its records through the loss of one machine, and while that is replaced.
REPLICAS, IN_SYNC = 3, 2
LEAST_IN_SYNC, UNCLEAN = "min.insync.replicas", "unclean.leader.election.enable"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic: `name` without prefix, `key` as documented, `config` as given to the broker, see `config_for`."""

    name: str
    key: str
    config: dict[str, str] = field(default_factory=dict)
    changelog: bool = False

    def config_for(self, replication: int) -> dict[str, str]:
        """What the topic is created with: `config`, and that no record is lost which was acknowledged.

        With fewer replicas than REPLICAS, `min.insync.replicas` stays the broker's: two of two in sync would mean
        that nothing is acknowledged while one is away.
        """
        kept = {LEAST_IN_SYNC: str(IN_SYNC)} if replication >= REPLICAS else {}
        return {**self.config, UNCLEAN: "false", **kept}


def _config(retention_ms: int, max_bytes: int, **more: str) -> dict[str, str]:
    return {"retention.ms": str(retention_ms), "max.message.bytes": str(max_bytes), **more}


# The worker compares `occurred_at` with the broker's clock and measures enforcement from it: the broker sets the time.
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}

CHANGES = TopicSpec("consent.changes", "{org_id}:{customer_id}", _config(KEEP, INPUT_BYTES, **_BROKER_TIME))
INBOUND = TopicSpec("consent.inbound", "{org_id}:{kind}:{identifier}", _config(7 * DAY_MS, INPUT_BYTES))
REQUESTS = TopicSpec("eligibility.requests", "{org_id}:{customer_id}", _config(7 * DAY_MS, INPUT_BYTES))
DECISIONS = TopicSpec("eligibility.decisions", "as its request", _config(7 * DAY_MS, OUTPUT_BYTES))
AUDIT = TopicSpec("consent.audit", "{org_id}:{customer_id}", _config(KEEP, OUTPUT_BYTES))
NOTIFICATIONS = TopicSpec("consent.notifications", "{org_id}:{customer_id}", _config(7 * DAY_MS, OUTPUT_BYTES))
DEADLETTER = TopicSpec("consent.deadletter", "as the record it holds", _config(30 * DAY_MS, OUTPUT_BYTES))
APP_ID = "consent-streams"


def _changelog(table: str) -> TopicSpec:
    """The changelog of a state table, named as Faust names it: `{app id}-{table}-changelog`."""
    config = {"cleanup.policy": "compact", "max.message.bytes": str(CHANGELOG_BYTES)}
    return TopicSpec(f"{APP_ID}-{table}-changelog", "the state key", config, changelog=True)


#: Who has which identifier: from the registrations, on the way to the identity table.
IDENTITIES = TopicSpec(f"{APP_ID}-identities", "{org_id}:{kind}:{identifier}", _config(7 * DAY_MS, OUTPUT_BYTES))

#: The tables: every customer's consent, and the customers of every identifier.
CUSTOMERS_TABLE, IDENTITIES_TABLE = "customers", "identities"
CHANGELOG = _changelog(CUSTOMERS_TABLE)
IDENTITIES_CHANGELOG = _changelog(IDENTITIES_TABLE)
CHANGELOGS = {CUSTOMERS_TABLE: CHANGELOG, IDENTITIES_TABLE: IDENTITIES_CHANGELOG}

#: What others write.
INPUTS = (CHANGES, INBOUND, REQUESTS)

#: What a worker reads in batches, each by a lane of its own.
SOURCES = (CHANGES, REQUESTS, IDENTITIES, INBOUND)

#: The state was built of these: with others of the same names it would be wrong.
STATEFUL = (CHANGES, IDENTITIES, CHANGELOG, IDENTITIES_CHANGELOG)

#: The topics of the contract, then the internal ones. All have the same number of partitions.
PUBLIC = (CHANGES, INBOUND, REQUESTS, DECISIONS, AUDIT, NOTIFICATIONS, DEADLETTER)
ALL = (*PUBLIC, IDENTITIES, CHANGELOG, IDENTITIES_CHANGELOG)
