"""May we? The decision as a pure function of settings, state and request (domain sections 1, 3, 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from schemas.base import WHOLE_ORG
from streams.domain.cells import OPTIN, OPTOUT, STATUS, Cell, Entry, dating, newer
from streams.domain.orgs import Org, Place, Unset, Weighed
from streams.domain.state import ERASED, REGISTERED, State


class Verdict(NamedTuple):
    """The answer, how it was found, and everything that was weighed."""

    eligible: bool
    reason: str
    policy: str | None
    opt_in_type: str | None
    inputs: Sequence[Weighed]


def decide(org: Org | None, state: State | None, request: dict[str, Any]) -> Verdict:
    """Whether a message may be sent. Everything unknown is "no"."""
    if org is None:
        return _no("unknown_org", None)
    unit = request.get("org_unit_id", WHOLE_ORG)
    if unit not in org.known_units:
        return _no("unknown_org_unit", None)
    scope = org.scope(request["channel"], request["priority"], unit)
    policy = scope.policy
    if state is None:
        if org.require_registration:
            return _no("not_registered", policy)
    elif state.registration != REGISTERED and (org.require_registration or state.registration == ERASED):
        # Domain section 6: an erased customer is unknown even where registration is not required.
        return _no("not_registered", policy)
    if policy == "existing":
        return _decide_existing(org, state, request, unit)
    if not scope.places:
        return _no("channel_not_mapped", policy)
    own = whole = _NOTHING
    if state is not None:
        own = state.cells_below(scope.part)
        if scope.org_part is not None:
            whole = state.cells_below(scope.org_part)
    if own or whole:
        weighed = [_weigh(org, place, unit, own.get(place.rest), whole.get(place.rest)) for place in scope.places]
        return UNIFIED[policy](weighed)
    verdict: Verdict | None = scope.nothing_set
    if verdict is None:
        verdict = scope.nothing_set = UNIFIED[policy](Unset(place.unset for place in scope.places))
    return verdict


def _no(reason: str, policy: str | None) -> Verdict:
    return Verdict(False, reason, policy, None, [])


_NOTHING: dict[bytes, Cell] = {}


def _weigh(org: Org, place: Place, unit: int, own: Cell | None, whole: Cell | None) -> Weighed:
    """Domain section 3: the effective status is the winner, by rule 2.4, of the unit's own cell and the org's."""
    if whole is None:
        if own is None:
            return place.unset
        cell, where, pending = own, unit, own[1] is not None
    else:
        pending = whole[1] is not None or (own is not None and own[1] is not None)
        if own is None or not own[0] or (whole[0] and newer(whole[0][-1], own[0][-1])):
            cell, where = whole, WHOLE_ORG
        else:
            cell, where = own, unit
    if not cell[0]:
        return _weighed(Weighed, (place, "NOT_SET", pending, None, None))
    newest = cell[0][-1]
    dated = newest if newest[1] else dating(cell, refresh=org.refresh)
    return _weighed(Weighed, (place, STATUS[newest[1]], pending, dated, where if dated[4] is None else dated[4]))


#: A named tuple's own constructor takes a third of the time of weighing.
_weighed = tuple.__new__


def _decide_existing(org: Org, state: State | None, request: dict[str, Any], unit: int) -> Verdict:
    source, account_id, channel = request.get("source"), request.get("account_id"), request["channel"]
    if source is None or account_id is None:
        return _no("source_required", "existing")
    channels = org.channels.get((source, account_id))
    if channels is None:
        return _no("unknown_account", "existing")
    if channel not in channels:
        return _no("channel_not_mapped", "existing")
    place = org.place(source, account_id, channel, request["priority"], unit)
    own = None if state is None else state.cell(place.key)
    whole = None if state is None or place.org_key is None else state.cell(place.org_key)
    one = _weigh(org, place, unit, own, whole)
    if one.status == "OPTIN":
        return Verdict(True, "opted_in", "existing", None, [one])
    if one.status == "NOT_SET":
        kind = place.opt_in_type
        if _allows(one):
            return Verdict(True, "not_set_allowed", "existing", kind, [one])
        return Verdict(False, "verification_pending" if one.pending else "not_set_denied", "existing", kind, [one])
    return Verdict(False, "verification_pending" if one.pending else "opted_out", "existing", None, [one])


def _allows(profile: Weighed) -> bool:
    """Domain section 1: of the three types only SINGLE sends while nothing is set."""
    return profile.place.opt_in_type == "SINGLE"


def _all_not_set(profiles: Sequence[Weighed], policy: str) -> Verdict:
    """Domain section 4: LIBERAL sends if any type allows, RECENT and STRICT only if all do."""
    denying = [p.place.opt_in_type for p in profiles if not _allows(p)]
    if not denying or (policy == "liberal" and len(denying) < len(profiles)):
        return Verdict(True, "not_set_allowed", policy, "SINGLE", profiles)
    return Verdict(False, "not_set_denied", policy, denying[0], profiles)


def _recent(profiles: Sequence[Weighed]) -> Verdict:
    latest: Entry | None = None
    for profile in profiles:
        dated = profile.dated
        if dated is not None and (latest is None or newer(dated, latest)):
            latest = dated
    if latest is None:
        return _all_not_set(profiles, "recent")
    if latest[1] == OPTIN:
        return Verdict(True, "recent_opt_in", "recent", None, profiles)
    return Verdict(False, "recent_opt_out", "recent", None, profiles)


def _liberal(profiles: Sequence[Weighed]) -> Verdict:
    kinds = {p.dated[1] for p in profiles if p.dated is not None}
    if not kinds:
        return _all_not_set(profiles, "liberal")
    if OPTIN in kinds:
        return Verdict(True, "liberal_opt_in", "liberal", None, profiles)
    if any(p.dated is None and _allows(p) for p in profiles):
        return Verdict(True, "liberal_not_set_allowed", "liberal", "SINGLE", profiles)
    denying = next((p.place.opt_in_type for p in profiles if p.dated is None), None)
    return Verdict(False, "liberal_denied", "liberal", denying, profiles)


def _strict(profiles: Sequence[Weighed]) -> Verdict:
    kinds = {None if p.dated is None else p.dated[1] for p in profiles}
    if kinds == {None}:
        return _all_not_set(profiles, "strict")
    if OPTOUT in kinds:
        return Verdict(False, "strict_opt_out", "strict", None, profiles)
    if None in kinds:
        return Verdict(False, "strict_missing_opt_in", "strict", None, profiles)
    return Verdict(True, "strict_opt_in", "strict", None, profiles)


UNIFIED = {"recent": _recent, "liberal": _liberal, "strict": _strict}
