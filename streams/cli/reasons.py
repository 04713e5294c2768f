"""One sentence for each reason code of a decision (domain section 5)."""

from __future__ import annotations

from typing import Any

SENTENCES = {
    "opted_in": "The customer opted in on this profile.",
    "opted_out": "The customer opted out on this profile.",
    "not_set_allowed": "The customer has said nothing, and the opt-in type allows sending then.",
    "not_set_denied": "The customer has said nothing, and the opt-in type needs an opt-in first.",
    "verification_pending": "The customer opted in but has not verified it yet (double opt-in).",
    "recent_opt_in": "The most recent word over all profiles is an opt-in.",
    "recent_opt_out": "The most recent word over all profiles is an opt-out.",
    "liberal_opt_in": "At least one profile is opted in, which is enough under LIBERAL.",
    "liberal_not_set_allowed": "Opted out elsewhere, but a profile with nothing said allows sending (LIBERAL).",
    "liberal_denied": "No profile says yes, so LIBERAL does not send either.",
    "strict_opt_in": "Every profile is opted in, as STRICT asks.",
    "strict_opt_out": "At least one profile is opted out, which STRICT takes as no.",
    "strict_missing_opt_in": "Not every profile is opted in, as STRICT asks.",
    "not_registered": "The customer is not registered, and the org sends only to registered ones.",
    "unknown_org": "The org has no settings: apply some first.",
    "unknown_org_unit": "The org's settings have no such org unit.",
    "unknown_account": "The org's settings have no such active account.",
    "channel_not_mapped": "No active account that was asked about is mapped to the channel.",
    "source_required": "The unified layer is off here: the request must name --source and --account.",
    "state_behind": "The state had not caught up in time, and a late no is safer than a stale yes.",
    "invalid_request": "The request could not be read: a field has a value that is not allowed.",
}


def sentence(reason: str) -> str:
    """The explanation of a reason code; a code from a newer worker explains nothing."""
    return SENTENCES.get(reason, "")


def describe(decision: dict[str, Any]) -> str:
    """A decision in a few lines: yes or no, why, under which policy, and as of which position."""
    lines = [
        f"{'YES' if decision['eligible'] else 'NO'}  {decision['reason']}",
        f"     {sentence(decision['reason'])}",
        f"     policy {decision.get('policy') or '-'}, opt-in type {decision.get('opt_in_type') or '-'}, "
        f"settings version {decision.get('settings_version') or '-'}",
        f"     as of {decision['as_of']['partition']}@{decision['as_of']['offset']}, request {decision['request_id']}",
    ]
    return "\n".join(lines)
