"""The identities agent: who has which identifier, as the changes agent tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from schemas.identities import IDENTITY
from streams import metrics, topics
from streams.agents.reading import UnreadableError, parse, validate
from streams.agents.writing import Scribe
from streams.domain.identities import Awaited, Holders
from streams.engine.outputs import Outputs
from streams.engine.partition import View
from streams.kafka.records import Record


class Identities:
    """Applies the records of one partition. They are the worker's own; a foreign one is a dead letter."""

    def __init__(self, scribe: Scribe, max_bytes: int) -> None:
        self._scribe = scribe
        self._max_bytes = max_bytes
        self._outcomes: Counter[str] = Counter()

    def apply(self, view: View, record: Record, out: Outputs) -> None:
        """One record into the state of its identifier."""
        key = record.key
        try:
            if not key:
                raise UnreadableError("missing_key", "the record has no key; it must be {org_id}:{kind}:{identifier}")
            event = validate(parse(record, self._max_bytes), IDENTITY)
        except UnreadableError as exc:
            self._outcomes["dead_letter"] += 1
            self._scribe.dead_letter(out, record, exc.code, str(exc))
            return
        holders: Holders = view.state(key) or Holders()
        _tell(holders, event)
        view.put(key, holders)
        self._outcomes["applied"] += 1

    def checkpoint(self) -> Callable[[], None]:
        """Everything applied since the last call is being made to last; what this returns is called when it is."""
        counted = partial(metrics.count_records, topics.IDENTITIES.name, self._outcomes)
        self._outcomes = Counter()
        return counted


def _tell(holders: Holders, event: dict[str, Any]) -> None:
    customer_id, position = event["customer_id"], event["position"]
    if event["event"] == "identity.linked":
        holders.link(customer_id, position["partition"], position["offset"])
    elif event["event"] == "identity.unlinked":
        holders.unlink(customer_id, position["offset"])
    else:
        place = (event["source"], event["account_id"], event["priority"], event["org_unit_id"])
        holders.wait_for(Awaited(event["keyword"], customer_id, *place, event["verifies"], event["expires_at"]))
