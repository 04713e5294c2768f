"""The open-loop generator, a process of its own: sends requests at a fixed rate and prints how many it sent.

Usage: python -m tests.bench.load BOOTSTRAP REQUESTS CHANGES|- RATE SECONDS CUSTOMERS. Of RATE records per second every
tenth is a consent change, so that no decision can do without its fence; without a topic for changes (the echo) it is
left out, and requests come at the same rate as beside them.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import UTC, datetime

from confluent_kafka import Producer

from tests.bench.events import ASKED_CHANNEL, ASKED_PRIORITY, ORG, ORG_UNITS, SOURCES, TYPES, key_of, request_record
from tests.bench.plan import CHANGE_EVERY, LATENCY_LINGER_MS, NO_NAGLE, PACE_S, PRODUCER_QUEUE

FLUSH_S = 10.0
CHANGE = (
    b'{"event":"consent.changed","event_id":"l%d-%d","org_id":%d,"customer_id":"%d","source":"%s","account_id":"01",'
    b'"channel":"%s","priority":"%s","type":"%s","org_unit_id":%d,"occurred_at":"%s","reason":"bench"}'
)


def run(bootstrap: str, requests: str, changes: str, rate: float, seconds: float, customers: int) -> int:
    """Send `rate` records per second for `seconds`; returns the number of requests."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": LATENCY_LINGER_MS,
            "enable.idempotence": True,
            **NO_NAGLE,
            "queue.buffering.max.messages": PRODUCER_QUEUE,
        }
    )
    pick = random.Random(rate)
    begin = time.monotonic()
    run_id = int(begin * 1000)  # event ids must differ from those of an earlier load
    due = done = sent = 0
    while (elapsed := time.monotonic() - begin) < seconds:
        due = int(elapsed * rate)
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        for number in range(done, due):
            customer = pick.randrange(customers)
            if number % CHANGE_EVERY == 0:
                if changes != "-":
                    producer.produce(changes, _change(pick, run_id, number, customer, at), key_of(customer))
                continue
            key, value = request_record(f"{time.monotonic_ns()}-{number}", customer)
            producer.produce(requests, value, key)
            sent += 1
        done = due
        producer.poll(0)
        time.sleep(PACE_S)
    if producer.flush(FLUSH_S):
        raise SystemExit("load: not everything was acknowledged")
    return sent


def _change(pick: random.Random, run_id: int, number: int, customer: int, at: bytes) -> bytes:
    source, kind = pick.choice(SOURCES).encode(), pick.choice(TYPES).encode()
    what = (source, ASKED_CHANNEL.encode(), ASKED_PRIORITY.encode(), kind, pick.choice(ORG_UNITS), at)
    return CHANGE % (run_id, number, ORG, customer, *what)


def main() -> None:
    """Read the command line, run, print the count."""
    bootstrap, requests, changes, rate, seconds, customers = sys.argv[1:]
    try:
        print(run(bootstrap, requests, changes, float(rate), float(seconds), int(customers)))
    except BufferError:
        raise SystemExit("load: the broker takes records more slowly than they are due") from None


if __name__ == "__main__":
    main()
