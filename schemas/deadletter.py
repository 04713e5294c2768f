"""Codes of dead letters (contract section 6)."""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "malformed_json", "not_utf8", "invalid_field", "unknown_event", "key_mismatch", "missing_key",
    "occurred_in_future", "unknown_org", "unknown_account", "unknown_org_unit", "channel_not_mapped", "too_large",
]  # fmt: skip
