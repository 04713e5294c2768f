"""What `topics repartition` does: once, for ever, or to the switch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from streams.config import Config

from .copying import Copying, copying
from .switching import compare, drain, finish, is_complete, make_topics

FOLLOW_S = 0.2

Tell = Callable[[str], None]


async def copy(old: Config, new: Config, tell: Tell) -> dict[str, Any]:
    """Copy what the old topic has now."""
    await make_topics(old, new)
    async with copying(old, new, tell) as work:
        await work.catch_up()
        return _counts(work)


async def copy_on(old: Config, new: Config, tell: Tell) -> dict[str, Any]:
    """Copy what comes, until it is cancelled."""
    await make_topics(old, new)
    async with copying(old, new, tell) as work:
        while True:
            await work.catch_up()
            await asyncio.sleep(FOLLOW_S)


async def copy_and_switch(old: Config, new: Config, tell: Tell) -> dict[str, Any]:
    """Copy the rest, compare, and make the copy the installation if it is the same."""
    await make_topics(old, new)
    async with copying(old, new, tell) as work:
        while True:
            await drain(work, old, new, tell)
            tell("comparing the states")
            states, differences = await compare(old, new)
            if await is_complete(work, old):
                break
        if not differences:
            await finish(new)
        compared = {
            "customers": len(states.customers), "orgs": len(states.settings), "identifiers": len(states.identifiers)
        }  # fmt: skip
        return _counts(work) | {"compared": compared, "differences": differences}


def _counts(work: Copying) -> dict[str, Any]:
    return {"copied": work.copied, "left_out": work.left_out}
