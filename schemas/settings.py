"""An org's settings document, checked against itself: every fault is listed by its path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.base import INT64_MAX, WHOLE_ORG, Channel, Id, Int64, Language, OptInType, Source
from schemas.messages import MessageKind, MessageText, in_language, text_faults
from schemas.mobile import MobileRule, mobile_faults
from schemas.sections import Profile, Section, repeated

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class OrgUnit(Section):
    """A part of an org: brand, country, zone."""

    id: Annotated[int, Field(ge=0, le=INT64_MAX)]
    name: str = ""


class OuSync(Section):
    """Which changes on one org unit apply to all (domain section 3)."""

    opt_in: bool = False
    opt_out: Literal["none", "any", "first"] = "none"


class Account(Section):
    """A source account and the channels it is mapped to."""

    source: Source
    account_id: Id
    channels: list[Channel]
    active: bool = True


class _PlaceRule(Section):
    """What is said of a place; a field left out matches everything."""

    source: Source | None = None
    account_id: Id | None = None
    channel: Channel | None = None
    org_unit_id: Int64 | None = None

    def place(self) -> tuple[object, ...]:
        """What the rule applies to."""
        return (self.source, self.account_id, self.channel, self.org_unit_id)


class OptInTypeRule(_PlaceRule):
    """The opt-in type of a place; a field left out matches everything (domain section 1)."""

    type: OptInType


class MessageRule(_PlaceRule):
    """The texts of a place's messages of one kind, by language; a field left out matches everything (section 8)."""

    kind: MessageKind
    texts: dict[Language, MessageText]


class UnifiedOfUnit(Section):
    """An org unit's own answer to the unified layer; a field left out is the org's."""

    enabled: bool | None = None
    policy: Literal["recent", "liberal", "strict"] | None = None


def _unit_of_key(key: object) -> object:
    """The number that a key of JSON text stands for, if it is written the one way that numbers are written."""
    return int(key) if isinstance(key, str) and _NUMBER.fullmatch(key) else key


class Unified(Section):
    """The unified layer (domain section 4)."""

    enabled: bool = False
    policy: Literal["recent", "liberal", "strict"] = "recent"
    # JSON has only text as keys, so here, and only here, "200031783" is a number.
    org_units: dict[Annotated[int, BeforeValidator(_unit_of_key)], UnifiedOfUnit] = Field(default_factory=dict)


class OrgSettings(Section):
    """One org's settings, applied whole; `version` grows with each document."""

    org_id: Int64
    version: Annotated[int, Field(ge=1, le=INT64_MAX)]
    name: str = ""
    default_language: Language = "en"
    require_registration: bool = True
    repeat_opt_in: Literal["ignore", "refresh"] = "ignore"
    max_future_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 300_000
    org_units: list[OrgUnit] = Field(default_factory=list)
    ou_sync: OuSync = OuSync()
    accounts: list[Account] = Field(default_factory=list)
    opt_in_types: list[OptInTypeRule] = Field(default_factory=list)
    unified: Unified = Unified()
    messages: list[MessageRule] = Field(default_factory=list)
    verification_ttl_ms: Annotated[int, Field(ge=60_000, le=31_536_000_000)] = 604_800_000
    mobile: list[MobileRule] = Field(default_factory=list)
    default_region: Annotated[str, Field(pattern="^[A-Z]{2}$", examples=["DE"])] | None = None
    default_profile: Profile | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> OrgSettings:
        faults = list(self._faults())
        if faults:
            raise PydanticCustomError("settings", "{count} contradictions", {"count": len(faults), "faults": faults})
        return self

    def _faults(self) -> Iterator[str]:
        units = {u.id for u in self.org_units}
        profiles = {(a.source, a.account_id): a for a in self.accounts}
        yield from repeated("org_units", [u.id for u in self.org_units])
        yield from repeated("accounts", [(a.source, a.account_id) for a in self.accounts])
        for i, account in enumerate(self.accounts):
            yield from repeated(f"accounts[{i}].channels", account.channels)
        yield from repeated("opt_in_types", [r.place() for r in self.opt_in_types])
        for i, rule in enumerate(self.opt_in_types):
            yield from _rule_faults(f"opt_in_types[{i}]", rule, units, profiles)
        for i in sorted(self._double_for_instore_email(units)):
            yield f"opt_in_types[{i}].type: DOUBLE is not offered for INSTORE EMAIL"
        yield from repeated("messages", [(m.kind, *m.place()) for m in self.messages])
        for i, message in enumerate(self.messages):
            yield from _rule_faults(f"messages[{i}]", message, units, profiles)
            yield from _texts_faults(f"messages[{i}].texts", message, self.default_language)
        for unit in self.unified.org_units:
            if unit not in units:
                yield f"unified.org_units.{unit}: no org unit has this id"
        yield from mobile_faults(self.mobile, units, {place: a.channels for place, a in profiles.items()})
        profile = self.default_profile
        if profile is not None and (profile.source, profile.account_id) not in profiles:
            yield f"default_profile: no account {profile.source} {profile.account_id}"

    def _double_for_instore_email(self, units: set[int]) -> set[int]:
        """Rules that make some INSTORE e-mail place DOUBLE, whether they name it or cover it."""
        found = {
            i
            for i, rule in enumerate(self.opt_in_types)
            if rule.type == "DOUBLE" and rule.source == "INSTORE" and rule.channel == "EMAIL"
        }
        for account in self.accounts:
            if account.source == "INSTORE" and "EMAIL" in account.channels:
                for unit in (WHOLE_ORG, *units):
                    i = matching_rule(self.opt_in_types, "INSTORE", account.account_id, "EMAIL", unit)
                    if i is not None and self.opt_in_types[i].type == "DOUBLE":
                        found.add(i)
        return found


def matching_rule(
    rules: Sequence[_PlaceRule], source: str, account_id: str, channel: str, org_unit_id: int
) -> int | None:
    """Index of the rule for a place: the one that names most of its fields wins, then the first; None: no rule."""
    best, best_named = None, -1
    place = (source, account_id, channel, org_unit_id)
    for i, rule in enumerate(rules):
        given = [(mine, theirs) for mine, theirs in zip(rule.place(), place, strict=True) if mine is not None]
        if len(given) > best_named and all(mine == theirs for mine, theirs in given):
            best, best_named = i, len(given)
    return best


def _rule_faults(path: str, rule: _PlaceRule, units: set[int], profiles: Mapping[Any, Account]) -> Iterator[str]:
    if rule.org_unit_id not in {None, WHOLE_ORG, *units}:
        yield f"{path}.org_unit_id: no org unit has the id {rule.org_unit_id}"
    named = [a for (s, i), a in profiles.items() if rule.source in {None, s} and rule.account_id in {None, i}]
    if (rule.source or rule.account_id) and not named:
        field = "account_id" if rule.account_id else "source"
        yield f"{path}.{field}: no account {rule.source or 'of any source'} {rule.account_id or ''}".rstrip()
    elif rule.source and rule.account_id and rule.channel and rule.channel not in named[0].channels:
        yield f"{path}.channel: {rule.source} {rule.account_id} is not mapped to {rule.channel}"


def _texts_faults(path: str, rule: MessageRule, default_language: str) -> Iterator[str]:
    written: dict[str, str] = {}
    for language, text in rule.texts.items():
        first = written.setdefault(language.lower(), language)
        if first != language:
            yield f"{path}.{language}: the same language as {first}"
        for fault in text_faults(rule.kind, rule.channel, text):
            yield f"{path}.{language}: {fault}"
    if in_language(written, (default_language, "en")) is None:
        yield f"{path}: none in the default language ({default_language}) or in English (en)"


def faults_of(error: Any) -> list[str]:
    """Every fault of a pydantic ValidationError as `path: what is wrong`, with dotted and [indexed] paths."""
    found: list[str] = []
    for item in error.errors(include_url=False, include_context=True):
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"]).lstrip(".")
        if item["type"] == "settings":
            found += [f"{path}.{fault}" if path else fault for fault in item["ctx"]["faults"]]
        else:
            found.append(f"{path}: {item['msg']}" if path else str(item["msg"]))
    return found
