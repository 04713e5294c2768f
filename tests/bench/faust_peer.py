"""The reduced job in plain faust-streaming, as its manual would have it: records, agents, a table, one event at a time.

All defaults (at least once, commit every 2.8 s, standard event loop), RocksDB through rocksdict, one worker. Times of
the bench's events are written alike, so they compare as text.
"""

# mypy: disable-error-code="call-arg,misc,untyped-decorator"
# (the product's type check does not follow imports into Faust)

from __future__ import annotations

import faust

from tests.bench import reduced

app = faust.App(
    reduced.GROUP,
    broker="kafka://" + reduced.BOOTSTRAP,
    store="rocksdb://",
    datadir=str(reduced.STATE),
    topic_partitions=reduced.PARTITIONS,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
)


class Change(faust.Record, serializer="json"):
    event_id: str
    channel: str
    account_id: str
    priority: str
    type: str
    org_unit_id: int
    source: str
    occurred_at: str


class Request(faust.Record, serializer="json"):
    request_id: str
    channel: str
    account_id: str
    priority: str
    org_unit_id: int


class Audit(faust.Record, serializer="json"):
    event_id: str
    key: str
    status: str


class Decision(faust.Record, serializer="json"):
    request_id: str
    eligible: bool
    reason: str


# The driver is an option of the table: in the store's URL it would be ignored.
cells = app.Table("cells", default=dict, key_type=str, partitions=reduced.PARTITIONS, options={"driver": "rocksdict"})
audits = app.topic(reduced.AUDIT, key_type=str, value_type=Audit, partitions=reduced.PARTITIONS)
decisions = app.topic(reduced.DECISIONS, key_type=str, value_type=Decision, partitions=reduced.PARTITIONS)


@app.agent(app.topic(reduced.CHANGES, key_type=str, value_type=Change))
async def apply(changes: faust.Stream[Change]) -> None:
    """Keep the latest entry of each cell, write what became of the change."""
    async for key, change in changes.items():
        known = cells[key]
        cell = f"{change.channel}|{change.account_id}|{change.priority}|{change.org_unit_id}|{change.source}"
        before = known.get(cell)
        status = "STALE"
        if before is None or before[1] <= change.occurred_at:
            known[cell] = [change.type, change.occurred_at]
            cells[key] = known
            status = "APPLIED"
        await audits.send(key=key, value=Audit(event_id=change.event_id, key=key, status=status))


@app.agent(app.topic(reduced.REQUESTS, key_type=str, value_type=Request))
async def decide(requests: faust.Stream[Request]) -> None:
    """Answer from the table: the most recent entry over all sources."""
    async for key, request in requests.items():
        asked = f"{request.channel}|{request.account_id}|{request.priority}|{request.org_unit_id}|"
        found = [entry for cell, entry in (cells.get(key) or {}).items() if cell.startswith(asked)]
        latest = max(found, key=lambda entry: entry[1])[0] if found else "NOT_SET"
        answer = Decision(request_id=request.request_id, eligible=latest != "OPTOUT", reason=latest)
        await decisions.send(key=key, value=answer)


if __name__ == "__main__":
    app.main()
