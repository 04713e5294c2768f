"""New topics, like the old ones, that take a copy."""

from __future__ import annotations

from dataclasses import replace

from streams import topics
from streams.config import Config
from streams.kafka import admin
from streams.kafka.topic_configs import alter, own_settings

from ..root import Failure
from .closing import close_inputs, closed_inputs, open_inputs
from .reading import ends_of

TIMES = "message.timestamp.type"
#: The times of a log that takes a copy are its producer's, those of one in use the broker's.
COPIED, LIVE = "CreateTime", "LogAppendTime"


async def make_topics(old: Config, new: Config) -> None:
    """New topics that take a copy, also where an earlier run was cut short in the middle of this or of the switch.

    They are like the old ones, replicas and settings included, with two differences until the switch. A copied change
    keeps the time that it was written at: `occurred_in_future` compares with it, and what a reply can verify ends by
    it. And nobody can ask the new workers anything. Raises Failure.
    """
    await _check(old)
    replicas = (await admin.describe(old)).topics[topics.CHANGES.name].replicas
    await admin.create_topics(replace(new, replication=replicas))
    await _check(new)
    if (await own_settings(new))[topics.CHANGES.name].get(TIMES) != COPIED:
        await _check_unused(old, new)
        await alter(new, await own_settings(old))
    await open_inputs(old)
    await close_inputs(new, [topics.INBOUND, topics.REQUESTS])
    # Last, for it says that they are like the old ones.
    await alter(new, {topics.CHANGES.name: {TIMES: COPIED}})


async def _check(config: Config) -> None:
    problems = await admin.check_topics(config, fatal_only=True)
    if problems:
        raise Failure("; ".join(problems))


async def _check_unused(old: Config, new: Config) -> None:
    shut = await closed_inputs(old)
    if any((await ends_of(new, topics.CHANGES)).values()):
        done = "and the old one is closed: the switch is done"
        raise Failure(f"{new.topic(topics.CHANGES.name)} is in use, {done if shut else 'choose another --to-prefix'}")
    if shut:
        raise Failure(f"the old topics are closed: a switch to another prefix than {new.topic_prefix!r} was begun")
