"""What each role must be allowed in Kafka, and no more: `consent-streams topics acls` prints it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from streams import topics
from streams.config import Config
from streams.topics import TopicSpec

#: What each role does; the order is that of the listing.
ROLES = {
    "worker": "a worker of the group",
    "producer": "sends consent changes and registrations",
    "campaigns": "asks whether it may send, and reads the decisions",
    "gateway": "hands over text messages and missed calls",
    "sender": "sends the messages to customers",
    "analyst": "reads the audit",
    "operator": "runs all commands but `worker` and `topics repartition`",
    "repartition": "runs `topics repartition`, from these topics to those of another prefix",
}
#: Roles of which a consumer group of their own is part, whose name is theirs to choose.
READERS = ("campaigns", "sender", "analyst")

READ, WRITE, CREATE, DELETE = "Read", "Write", "Create", "Delete"
DESCRIBE, CONFIGS, ALTER_CONFIGS = "Describe", "DescribeConfigs", "AlterConfigs"
#: Kafka's numbers of them.
NUMBERS = {READ: 3, WRITE: 4, CREATE: 5, DELETE: 6, DESCRIBE: 8, CONFIGS: 10, ALTER_CONFIGS: 11}
TOPIC, GROUP, TRANSACTIONAL_ID = "topic", "group", "transactional-id"


@dataclass(frozen=True, slots=True)
class Acl:
    """What a role's principal may do to one resource. `prefixed`: to all whose names begin so."""

    role: str
    principal: str
    resource: str
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False

    def arguments(self) -> list[str]:
        """The words that make Kafka's own `kafka-acls.sh` add it."""
        pattern = ["--resource-pattern-type", "prefixed"] if self.prefixed else []
        operations = [word for operation in self.operations for word in ("--operation", operation)]
        return ["--add", "--allow-principal", self.principal, *operations, f"--{self.resource}", self.name, *pattern]


def acls(
    config: Config,
    principals: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    orgs: Collection[int] = (),
    roles: Collection[str] = tuple(ROLES),
    to_prefix: str | None = None,
) -> list[Acl]:
    """What these roles need under this topic prefix.

    :param principals: by role; default `User:consent-ROLE`.
    :param groups: the consumer groups of READERS; default PREFIX`consent-ROLE`.
    :param orgs: whose settings the operator may write; none: every org's.
    :param to_prefix: of the new topics of `topics repartition`; None: nobody needs any right for it.
    """
    return [
        Acl(role, (principals or {}).get(role, f"User:consent-{role}"), resource, name, operations, prefixed)
        for role in roles
        for resource, name, operations, prefixed in (
            _needs(role, config, groups or {}, orgs) if role != "repartition" else _to_repartition(config, to_prefix)
        )
    ]


Need = tuple[str, str, tuple[str, ...], bool]


def _needs(role: str, config: Config, groups: Mapping[str, str], orgs: Collection[int]) -> Iterator[Need]:
    for spec in topics.ALL:
        if operations := _on_topic(role, spec):
            yield TOPIC, config.topic(spec.name), operations, False
    if role in READERS:
        yield GROUP, groups.get(role, f"{config.topic_prefix}consent-{role}"), (READ,), False
    if role == "worker":
        yield GROUP, config.group, (READ,), False
        yield TRANSACTIONAL_ID, config.owner_ids, (WRITE,), True
    if role == "operator":
        yield GROUP, config.group, (DESCRIBE,), False
        for org in orgs:
            yield TRANSACTIONAL_ID, config.settings_writer(org), (WRITE,), False
        if not orgs:
            yield TRANSACTIONAL_ID, config.settings_writer(""), (WRITE,), True


#: Who reads and who writes which of the topics; to read or write a topic includes to describe it.
_READ = {
    "campaigns": (topics.DECISIONS,),
    "sender": (topics.NOTIFICATIONS,),
    "analyst": (topics.AUDIT,),
    # `import --undo`, `ask`, `audit`, `deadletter`.
    "operator": (topics.CHANGES, topics.DECISIONS, topics.AUDIT, topics.DEADLETTER),
}
_WRITE = {
    "producer": (topics.CHANGES,),
    "campaigns": (topics.REQUESTS,),
    "gateway": (topics.INBOUND,),
    # `publish`, `import` and `settings apply`; `ask`; and to all three, `deadletter replay`.
    "operator": (topics.CHANGES, topics.REQUESTS, topics.INBOUND),
}


def _on_topic(role: str, spec: TopicSpec) -> tuple[str, ...]:
    if role == "worker":
        # It reads its own outputs for what a crash left written, and sends misrouted inputs home.
        return READ, WRITE, CONFIGS
    read = (READ,) if spec in _READ.get(role, ()) else ()
    write = (WRITE,) if spec in _WRITE.get(role, ()) else ()
    return (*read, *write, *((CREATE, DESCRIBE, CONFIGS) if role == "operator" else ()))


def _to_repartition(old: Config, to_prefix: str | None) -> Iterator[Need]:
    """To copy and to close the old topics; to make, compare and open the new ones."""
    if to_prefix is None:
        return
    new = replace(old, topic_prefix=to_prefix)
    compared = (topics.CHANGES, topics.CHANGELOG, topics.IDENTITIES_CHANGELOG)
    for spec in topics.ALL:
        read = (READ,) if spec in compared else ()
        close = (ALTER_CONFIGS,) if spec in topics.INPUTS else ()
        yield TOPIC, old.topic(spec.name), (*read, DESCRIBE, CONFIGS, *close), False
    for spec in topics.ALL:
        read = (READ,) if spec in compared else ()
        write = (WRITE,) if spec is topics.CHANGES else (DELETE,) if spec is topics.NOTIFICATIONS else ()
        yield TOPIC, new.topic(spec.name), (*read, *write, CREATE, DESCRIBE, CONFIGS, ALTER_CONFIGS), False
    for config in (old, new):
        yield GROUP, config.group, (DESCRIBE,), False
    yield GROUP, new.copier, (READ,), False
    yield TRANSACTIONAL_ID, new.copier, (WRITE,), False
