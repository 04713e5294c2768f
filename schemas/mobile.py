"""How customers opt in and out by phone: the section `mobile` of an org's settings (domain section 7)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import WHOLE_ORG, ChangeType, Id, Int64, Priority, Source
from schemas.sections import Section, repeated

Number = Annotated[str, Field(min_length=1, max_length=64)]
Command = Annotated[str, Field(min_length=1, max_length=160)]


class MobileRule(Section):
    """How customers opt in and out of a place by phone (domain section 7): by SMS, or by missed calls.

    SMS: one `number`, and a command for each action. MISSED_CALL: one of `numbers` for each action.
    """

    source: Source
    account_id: Id
    org_unit_id: Int64 = WHOLE_ORG
    priority: Priority
    mode: Literal["SMS", "MISSED_CALL"]
    number: Number | None = None
    commands: dict[ChangeType, Command] = Field(default_factory=dict)
    numbers: dict[ChangeType, Number] = Field(default_factory=dict)

    def place(self) -> tuple[object, ...]:
        """What the rule applies to."""
        return (self.source, self.account_id, self.org_unit_id, self.priority)

    def actions(self) -> Iterator[tuple[str, tuple[str, str | None], ChangeType]]:
        """For each action its path, the number and command that stand for it (None: a call), and the action."""
        if self.mode == "SMS" and self.number is not None:
            for action, command in self.commands.items():
                yield f"commands.{action}", (spaceless(self.number), command.strip().casefold()), action
        if self.mode == "MISSED_CALL":
            for action, number in self.numbers.items():
                yield f"numbers.{action}", (spaceless(number), None), action


def spaceless(number: str) -> str:
    """A number without what people write between its digits."""
    return re.sub(r"[\s().\-/]+", "", number)


def mobile_faults(
    rules: Sequence[MobileRule], units: set[int], channels: Mapping[tuple[str, str], Collection[str]]
) -> Iterator[str]:
    """Contradictions of the rules with each other, and with the org's units and the channels of its accounts."""
    yield from repeated("mobile", [rule.place() for rule in rules])
    meanings: dict[tuple[str, str | None], str] = {}
    for i, rule in enumerate(rules):
        path = f"mobile[{i}]"
        mapped = channels.get((rule.source, rule.account_id))
        if mapped is None:
            yield f"{path}.account_id: no account {rule.source} {rule.account_id}"
        elif "MOBILE" not in mapped:
            yield f"{path}: {rule.source} {rule.account_id} is not mapped to MOBILE"
        if rule.org_unit_id not in {WHOLE_ORG, *units}:
            yield f"{path}.org_unit_id: no org unit has the id {rule.org_unit_id}"
        yield from _mode_faults(path, rule)
        for field, meaning, _ in rule.actions():
            if meaning in meanings:
                what = f"{meaning[1]!r} to {meaning[0]}" if meaning[1] is not None else f"a call to {meaning[0]}"
                yield f"{path}.{field}: {what} already means {meanings[meaning]}"
            meanings.setdefault(meaning, f"{path}.{field}")


def _mode_faults(path: str, rule: MobileRule) -> Iterator[str]:
    """A place is served by SMS or by missed calls, not by both (domain section 7)."""
    sms, calls = ["number", "commands"], ["numbers"]
    needed, foreign = (sms, calls) if rule.mode == "SMS" else (calls, sms)
    for field in needed:
        if not getattr(rule, field):
            yield f"{path}.{field}: needed with mode {rule.mode}"
    for field in foreign:
        if getattr(rule, field):
            yield f"{path}.{field}: not with mode {rule.mode}"


def resets(before: Sequence[MobileRule], after: Sequence[MobileRule]) -> Iterator[str]:
    """What is given up where a place changes between SMS and missed calls, a line for each."""
    former = {rule.place(): rule for rule in before}
    for i, rule in enumerate(after):
        old = former.get(rule.place())
        if old is not None and old.mode != rule.mode:
            numbers = ", ".join(dict.fromkeys(number for _, (number, _), _ in old.actions()))
            place = f"{rule.source} {rule.account_id} {rule.org_unit_id} {rule.priority}"
            yield f"mobile[{i}]: {place} changes from {old.mode} to {rule.mode}, what {numbers} meant there is given up"
