"""What `topics repartition` does: once, for ever, or to the switch."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from streams.config import Config

from .closing import close_inputs, open_inputs
from .copying import Copying, copying
from .switching import Tell, compare, drain, finish, is_drained

FOLLOW_S = 0.2


async def copy(old: Config, new: Config, tell: Tell) -> dict[str, Any]:
    """Copy what the old topic has now."""
    async with copying(old, new, tell) as work:
        await work.catch_up()
        return _counts(work)


async def copy_on(old: Config, new: Config, tell: Tell) -> dict[str, Any]:
    """Copy what comes, until it is cancelled."""
    async with copying(old, new, tell) as work:
        while True:
            await work.catch_up()
            await asyncio.sleep(FOLLOW_S)


async def copy_and_switch(old: Config, new: Config, tell: Tell) -> dict[str, Any]:
    """Copy the rest, close the old installation, compare, and make the copy the installation if it is the same.

    From the comparison on nothing is let into the old one. It is opened again unless the copy takes its place.
    """
    async with copying(old, new, tell) as work:
        while True:
            await drain(work, old, new, tell)
            async with AsyncExitStack() as reopen:
                reopen.push_async_callback(open_inputs, old)
                await close_inputs(old)
                tell("comparing the states")
                # Before: what came last must not be compared half applied. After: what was under way at the closing.
                if not await is_drained(work, old, new, tell):
                    continue
                states, differences = await compare(old, new)
                if not await is_drained(work, old, new, tell):
                    continue
                if not differences:
                    await work.confirm()
                    # No way back: cut short from here on, it is the next run that finishes.
                    reopen.pop_all()
                    await finish(new)
                compared = {
                    "customers": len(states.customers),
                    "orgs": len(states.settings),
                    "identifiers": len(states.identifiers),
                }
                return _counts(work) | {"compared": compared, "differences": differences}


def _counts(work: Copying) -> dict[str, Any]:
    return {"copied": work.copied, "left_out": work.left_out}
