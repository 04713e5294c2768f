"""The reduced job in Quix Streams 3: both topics concatenated (its way to share a state), RocksDB, changelog.

At least once, commit interval and everything else as Quix has them, but for two settings that favour it: the producer
lingers as long as its consumer's batches take to come, and the consumer does not wait a whole second to fill one.
Times of the bench's events are written alike, so they compare as text.
"""

from __future__ import annotations

from typing import Any

from quixstreams import Application, State

from tests.bench import reduced

LINGER_MS = 20
QUEUE = 500_000  # Quix's own queue is smaller than what one poll of its consumer can bring
POLL_S = 0.1


def _change(event: dict[str, Any], key: str, state: State[Any, Any]) -> dict[str, Any]:
    cells = state.get("cells") or {}
    cell = f"{event['channel']}|{event['account_id']}|{event['priority']}|{event['org_unit_id']}|{event['source']}"
    known = cells.get(cell)
    if known is not None and known[1] > event["occurred_at"]:
        return {"event_id": event["event_id"], "key": key, "status": "STALE"}
    cells[cell] = [event["type"], event["occurred_at"]]
    state.set("cells", cells)
    return {"event_id": event["event_id"], "key": key, "status": "APPLIED"}


def _decision(request: dict[str, Any], state: State[Any, Any]) -> dict[str, Any]:
    asked = f"{request['channel']}|{request['account_id']}|{request['priority']}|{request['org_unit_id']}|"
    found = [entry for cell, entry in (state.get("cells") or {}).items() if cell.startswith(asked)]
    latest = max(found, key=lambda entry: entry[1])[0] if found else "NOT_SET"
    return {"request_id": request["request_id"], "eligible": latest != "OPTOUT", "reason": latest}


def _handle(
    value: dict[str, Any], key: str, _timestamp: int, _headers: object, state: State[Any, Any]
) -> dict[str, Any]:
    return _change(value, key, state) if "event_id" in value else _decision(value, state)


def main() -> None:
    """Run until SIGTERM."""
    app = Application(
        broker_address=reduced.BOOTSTRAP,
        consumer_group=reduced.GROUP,
        auto_offset_reset="earliest",
        state_dir=reduced.STATE,
        loglevel="INFO",
        consumer_poll_timeout=POLL_S,
        producer_extra_config={"linger.ms": LINGER_MS, "queue.buffering.max.messages": QUEUE},
    )
    changes = app.topic(reduced.CHANGES, key_deserializer="str", value_deserializer="json")
    requests = app.topic(reduced.REQUESTS, key_deserializer="str", value_deserializer="json")
    audit = app.topic(reduced.AUDIT, key_serializer="str", value_serializer="json")
    decisions = app.topic(reduced.DECISIONS, key_serializer="str", value_serializer="json")

    frame = app.dataframe(changes).concat(app.dataframe(requests))
    frame = frame.apply(_handle, stateful=True, metadata=True)
    frame.to_topic(lambda value, _key, _timestamp, _headers: audit if "status" in value else decisions)
    app.run()


if __name__ == "__main__":
    main()
