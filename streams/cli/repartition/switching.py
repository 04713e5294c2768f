"""The switch: when the copy is complete, whether it is the same, and what makes it the installation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streams import topics
from streams.config import Config
from streams.kafka.admin import delete_records
from streams.kafka.groups import committed
from streams.kafka.topic_configs import alter

from .closing import open_inputs
from .comparing import States, states_of
from .copying import Copying
from .making import LIVE, TIMES
from .reading import ends_of

POLL_S = 0.5

Tell = Callable[[str], None]


async def drain(copying: Copying, old: Config, new: Config, tell: Tell) -> None:
    """Copy on until all that was written to the old installation is worked off in both."""
    while not await is_drained(copying, old, new, tell):
        await copying.catch_up()
        await asyncio.sleep(POLL_S)


async def is_drained(copying: Copying, old: Config, new: Config, tell: Tell) -> bool:
    """Whether all that was written to the old installation is worked off in both.

    Working off what others wrote may write changes; so whether all of those are copied is looked at last.
    """
    for config in (old, new):
        left = await _behind(config)
        if left:
            tell(f"{left} records left to the workers of {_name(config)}")
            return False
    ends = await ends_of(old, topics.CHANGES)
    return all(copying.positions[number] >= end for number, end in ends.items())


async def compare(old: Config, new: Config) -> tuple[States, list[dict[str, str]]]:
    """The old installation's states, and what differs in the new one."""
    before, after = await states_of(old), await states_of(new)
    return before, before.differences(after)


async def finish(new: Config) -> None:
    """Make the copy an installation: messages that were sent before are not sent again, and inputs are taken.

    The broker sets the times from here on, which says that the switch is done: so that is the last step.
    """
    ends = await ends_of(new, topics.NOTIFICATIONS)
    await delete_records(new, new.topic(topics.NOTIFICATIONS.name), ends)
    await open_inputs(new)
    await alter(new, {topics.CHANGES.name: {TIMES: LIVE}})


async def _behind(config: Config) -> int:
    """Records of all sources that the group has not worked off, markers of transactions included."""
    left = 0
    # One after the other: where changes are worked off, what that wrote to the identities counts there.
    for spec in topics.SOURCES:
        ends = await ends_of(config, spec)
        done = await committed(config, [(config.topic(spec.name), number) for number in ends])
        left += sum(max(0, end - done[config.topic(spec.name), number]) for number, end in ends.items())
    return left


def _name(config: Config) -> str:
    return f"prefix {config.topic_prefix!r}" if config.topic_prefix else "no prefix"
