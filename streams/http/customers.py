"""A customer's state, and an org's settings, as this worker holds them."""

from __future__ import annotations

from typing import Any

from schemas.base import format_instant
from streams.domain.cells import OWN_ENTRY, dating, status
from streams.domain.keys import customer_key
from streams.domain.orgs import Org
from streams.domain.state import ERASED, REGISTERED, State, decode_state, parse_cell_key
from streams.engine.partition import Partition


def customer_document(partition: Partition, org: Org, org_id: int, customer_id: str) -> dict[str, Any] | None:
    """The customer's cells at the partition's position; None if the customer is unknown."""
    key = customer_key(org_id, customer_id)
    state = decode_state(partition.states([key])[key])
    if state is None:
        return None
    return {
        "org_id": org_id,
        "customer_id": customer_id,
        "registered": state.registration == REGISTERED,
        "erased": state.registration == ERASED,
        "identifiers": state.about.get("i", {}),
        "language": state.about.get("l"),
        "as_of": {"partition": partition.number, "offset": partition.applied},
        "settings_version": org.version,
        "cells": _cells(state, org),
    }


def _cells(state: State, org: Org) -> list[dict[str, Any]]:
    return [_cell(key, cell, org) for key, cell in sorted(state.cells().items())]


def _cell(key: bytes, cell: list[Any], org: Org) -> dict[str, Any]:
    source, account_id, channel, priority, unit = parse_cell_key(key)
    newest = cell[0][-1] if cell[0] else None
    dated = dating(cell, refresh=org.refresh) if cell[0] else None
    pending = cell[1]
    return {
        "source": source,
        "account_id": account_id,
        "channel": channel,
        "priority": priority,
        "org_unit_id": unit,
        "status": status(newest),
        "since": None if dated is None else format_instant(dated[0]),
        "event_id": None if newest is None else newest[2],
        "origin": None if newest is None else newest[3],
        "synced_from": None if newest is None else newest[4],
        "batch_id": newest[OWN_ENTRY] if newest is not None and len(newest) > OWN_ENTRY else None,
        "pending": None if pending is None else {"event_id": pending[1], "since": format_instant(pending[0])},
    }
