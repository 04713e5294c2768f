"""An org's settings, prepared for look-ups: the most specific match is found once per place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from schemas.base import WHOLE_ORG
from schemas.messages import MessageKind
from schemas.settings import OrgSettings, matching_rule
from streams.domain.cells import Entry
from streams.domain.identities import normal
from streams.domain.state import cell_key, key_part, key_rest

#: A message's texts by language tag in lower case: the tag as it is configured, and the text.
Texts = Mapping[str, tuple[str, str]]

#: A longer name is cut in messages: a text may name it so often that no broker would take what that makes.
MOST_NAME = 200


class Place:
    """Everything that settings say of one cell: its type, its key, and the key of the whole org's cell beside it."""

    __slots__ = ("account_id", "explained", "key", "opt_in_type", "org_key", "rest", "source", "unset")

    def __init__(self, source: str, account_id: str, channel: str, priority: str, org_unit_id: int, kind: str) -> None:
        self.source = source
        self.account_id = account_id
        self.opt_in_type = kind
        self.key = cell_key(source, account_id, channel, priority, org_unit_id)
        whole = org_unit_id == WHOLE_ORG
        self.org_key = None if whole else cell_key(source, account_id, channel, priority, WHOLE_ORG)
        #: The profile, as it stands in the cell's key behind everything that the other profiles' keys begin with too.
        self.rest = key_rest(self.key, key_part(channel, priority, org_unit_id))
        #: What weighing it gives while nothing is set: the most frequent result by far.
        self.unset = Weighed(self, "NOT_SET", False, None, None)
        #: Room for how an audit record says so, made once.
        self.explained: Any = None


class Weighed(NamedTuple):
    """One profile with its effective status; `dated` is the entry from which it dates, made on `org_unit_id`."""

    place: Place
    status: str
    pending: bool
    dated: Entry | None
    org_unit_id: int | None


class Unset(tuple[Weighed, ...]):
    """All profiles of a scope while nothing is set in any of them."""

    #: Room for how an audit record says so, made once.
    explained: Any = None


class Scope:
    """The policy of a question (`existing`, or the unified layer's), and the active profiles mapped to its channel.

    `part` is what the keys of its cells begin with, `org_part` the same for the whole org's cells beside them.
    """

    __slots__ = ("nothing_set", "org_part", "part", "places", "policy")

    def __init__(self, policy: str, places: tuple[Place, ...], part: bytes, org_part: bytes | None) -> None:
        self.policy = policy
        self.places = places
        self.part = part
        self.org_part = org_part
        #: Room for what is decided while nothing is set, as it is for most customers on most channels.
        self.nothing_set: Any = None


class Action(NamedTuple):
    """What a command to a number, or a call to it, does: `type` at a place of channel MOBILE (domain section 7)."""

    source: str
    account_id: str
    priority: str
    org_unit_id: int
    type: str


class Org:
    """One version of one org's settings. Nothing in it changes but its memory of look-ups."""

    def __init__(self, settings: OrgSettings) -> None:
        self.settings = settings
        self.version = settings.version
        self.require_registration = settings.require_registration
        self.refresh = settings.repeat_opt_in == "refresh"
        self.max_future_ms = settings.max_future_ms
        self.sync_opt_in = settings.ou_sync.opt_in
        self.sync_opt_out = settings.ou_sync.opt_out
        self.units = tuple(unit.id for unit in settings.org_units)
        self.known_units = frozenset((*self.units, WHOLE_ORG))
        self.channels: dict[tuple[str, str], frozenset[str]] = {
            (a.source, a.account_id): frozenset(a.channels) for a in settings.accounts if a.active
        }
        self.default_region = settings.default_region
        #: Whether any message is configured: where none is, looking for one is not worth its time.
        self.has_messages = bool(settings.messages)
        self.name = (settings.name or str(settings.org_id))[:MOST_NAME]
        self._places: dict[tuple[str, str, str, str, int], Place] = {}
        self._texts: dict[tuple[MessageKind, str, str, str, int], Texts | None] = {}
        self._scopes: dict[tuple[str, str, int], Scope] = {}

    def place(self, source: str, account_id: str, channel: str, priority: str, org_unit_id: int) -> Place:
        """Where a change or a question of this profile, channel, priority and org unit belongs."""
        where = (source, account_id, channel, priority, org_unit_id)
        found = self._places.get(where)
        if found is None:
            found = self._places[where] = Place(*where, self._opt_in_type(*where))
        return found

    def _opt_in_type(self, source: str, account_id: str, channel: str, priority: str, org_unit_id: int) -> str:
        """Domain section 1: TRANS is always SINGLE; else the rule that names most of the place, else SINGLE."""
        if priority == "TRANS":
            return "SINGLE"
        rule = matching_rule(self.settings.opt_in_types, source, account_id, channel, org_unit_id)
        return "SINGLE" if rule is None else self.settings.opt_in_types[rule].type

    def texts(
        self, kind: MessageKind, source: str, account_id: str, channel: str, org_unit_id: int
    ) -> Texts | None:
        """The texts of a place's messages of this kind, None if none are configured (domain section 8)."""
        where = (kind, source, account_id, channel, org_unit_id)
        if where not in self._texts:
            rules = [rule for rule in self.settings.messages if rule.kind == kind]
            rule = matching_rule(rules, source, account_id, channel, org_unit_id)
            texts = None if rule is None else {tag.lower(): (tag, text) for tag, text in rules[rule].texts.items()}
            self._texts[where] = texts
        return self._texts[where]

    @cached_property
    def unit_names(self) -> dict[int, str]:
        """What every org unit is called: by its own name, else by the org's."""
        own = {unit.id: unit.name[:MOST_NAME] or self.name for unit in self.settings.org_units}
        return {WHOLE_ORG: self.name, **own}

    def scope(self, channel: str, priority: str, org_unit_id: int) -> Scope:
        """What a question about this channel, priority and org unit is decided by (domain section 4)."""
        where = (channel, priority, org_unit_id)
        found = self._scopes.get(where)
        if found is None:
            places = tuple(
                self.place(source, account_id, channel, priority, org_unit_id)
                for (source, account_id), channels in self.channels.items()
                if channel in channels
            )
            org_part = None if org_unit_id == WHOLE_ORG else key_part(channel, priority, WHOLE_ORG)
            found = Scope(self._policies[org_unit_id], places, key_part(*where), org_part)
            self._scopes[where] = found
        return found

    @cached_property
    def phone_actions(self) -> dict[str, dict[str | None, Action]]:
        """By the org's own numbers: what each command (case-folded) does, and a call (None)."""
        found: dict[str, dict[str | None, Action]] = {}
        for rule in self.settings.mobile:
            for _, (number, command), kind in rule.actions():
                action = Action(rule.source, rule.account_id, rule.priority, rule.org_unit_id, kind)
                found.setdefault(normal("mobile", number, self.default_region), {})[command] = action
        return found

    @cached_property
    def _policies(self) -> dict[int, str]:
        """`existing` or the unified layer's policy per org unit; a unit's own setting beats the org's."""
        unified = self.settings.unified
        found: dict[int, str] = {WHOLE_ORG: unified.policy if unified.enabled else "existing"}
        for unit in self.units:
            own = unified.org_units.get(unit)
            enabled = unified.enabled if own is None or own.enabled is None else own.enabled
            policy = unified.policy if own is None or own.policy is None else own.policy
            found[unit] = policy if enabled else "existing"
        return found
