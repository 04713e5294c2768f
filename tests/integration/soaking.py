"""A mixed load for hours if need be, and what the worker takes of memory and files meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import httpx

from streams import topics
from streams.links import Link, Links
from tests.integration.harness import CHANGES, REQUESTS, Worker
from tests.integration.orgs import BASE_MS, CELL, INSTORE, NORTH, SOUTH, WEST, Org, dump
from tests.model.wire import time_text

PAGE = os.sysconf("SC_PAGE_SIZE")
#: So many customers that the states of all do not fit into what a worker keeps in memory.
CUSTOMERS = 100_000
#: Records per second by Kafka, in so many portions, and requests per second by HTTP: what two cores do beside a broker.
RECORDS_PER_S, PORTIONS_PER_S, HTTP_PER_S = 1_000, 20, 25
#: New settings of the org so often.
SETTINGS_EVERY_S = 10.0
SECRET, USER, PASSWORD = "a secret of the soak", "soak", "soak password"
HOUR_MS = 3_600_000
SMS = {"mode": "SMS", "number": "1234", "org_unit_id": NORTH, "priority": "BULK",
       "commands": {"OPTIN": "START", "OPTOUT": "STOP"}}  # fmt: skip

Sent = tuple[str, bytes, bytes, int | None]


@dataclass
class Samples:
    """Resident memory (bytes) and open files of a process, once a second."""

    pid: int
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def take(self) -> None:
        """One more sample. Raises OSError when the process has ended."""
        self.memory.append(int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE)
        self.files.append(len(os.listdir(f"/proc/{self.pid}/fd")))

    def growth(self, warm_up: int) -> int:
        """Memory of the last quarter over that of the first quarter after the warm-up, in samples; medians, bytes."""
        steady = self.memory[warm_up:]
        quarter = max(1, len(steady) // 4)
        return int(median(steady[-quarter:]) - median(steady[:quarter]))


class Soak:
    """Writes to Kafka from the clients' loop and asks by HTTP from a thread, at a fixed rate, for one `with` block.

    `over` is set when that fails; leaving the block raises why.
    """

    def __init__(self, org: Org, worker: Worker) -> None:
        self.records = self.asked = 0
        self._org = org
        self._worker = worker
        self._pick = random.Random(1)
        self._tag = f"s{time.time_ns():x}"
        self._numbers = count()
        self.over = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), daemon=True) for work in (self._stream, self._ask)
        ]

    def __enter__(self) -> Soak:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()
        for error in self._errors:
            raise error

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._errors.append(error)
            self.over.set()

    # --- by Kafka -------------------------------------------------------------------------------------

    def _stream(self) -> None:
        begin, portions = time.monotonic(), 0
        settings_at = begin
        while not self.over.wait(max(0.0, begin + portions / PORTIONS_PER_S - time.monotonic())):
            self._org.world.loop.run(self._write(RECORDS_PER_S // PORTIONS_PER_S))
            portions += 1
            if time.monotonic() > settings_at + SETTINGS_EVERY_S:
                settings_at = time.monotonic()
                self._org.configure()

    async def _write(self, number: int) -> None:
        world = self._org.world
        await asyncio.gather(*[await world.sending(*self._record()) for _ in range(number)])
        self.records += number

    def _record(self) -> Sent:
        """A change or a request mostly; now and then whatever else arrives, and what should not."""
        number, chance = next(self._numbers), self._pick.random()
        customer = str(self._pick.randrange(CUSTOMERS))
        key = self._org.key(customer)
        if chance < 0.55:
            return CHANGES, key, dump(self._change(customer, number)), None
        if chance < 0.85:
            return REQUESTS, key, dump(self._org.request(customer_id=customer, org_unit_id=NORTH)), None
        if chance < 0.95:
            return CHANGES, key, dump(self._registration(customer)), None
        if chance < 0.96:
            return CHANGES, key, dump(self._org.event("customer.erased", self._now(), customer_id=customer)), None
        if chance < 0.98:
            return topics.INBOUND.name, f"{self._org.id}:mobile:{_mobile(customer)}".encode(), self._sms(customer), None
        if chance < 0.99:
            foreign = (self._org.home(customer) + 1) % self._org.world.config.partitions
            return CHANGES, key, dump(self._change(customer, number)), foreign
        return CHANGES, key, self._pick.choice([b"", b"no JSON", b'{"event":"consent.changed"}', b"\xff\xfe"]), None

    def _now(self) -> int:
        return int(time.time() * 1000) - BASE_MS

    def _change(self, customer: str, number: int) -> dict[str, object]:
        kind, unit = self._pick.choice(("OPTIN", "OPTOUT")), self._pick.choice((NORTH, SOUTH, WEST))
        fields = {"customer_id": customer, "type": kind, "org_unit_id": unit, "event_id": f"{self._tag}-{number}"}
        return self._org.opt_in_event(self._now(), **fields)

    def _registration(self, customer: str) -> dict[str, object]:
        identifiers = {"mobile": _mobile(customer), "email": f"{customer}@example.com"}
        return self._org.event("customer.registered", self._now(), customer_id=customer, identifiers=identifiers)

    def _sms(self, customer: str) -> bytes:
        said = {"event": "sms.received", "org_id": self._org.id, "to": "1234", "from": _mobile(customer)}
        text = self._pick.choice(("STOP", "START", "what?"))
        return dump(said | {"text": text, "received_at": time_text(BASE_MS + self._now()),
                            "message_id": f"{self._tag}-m{next(self._numbers)}"})  # fmt: skip

    # --- by HTTP --------------------------------------------------------------------------------------

    def _ask(self) -> None:
        begin = time.monotonic()
        kept = httpx.Client(timeout=30)
        with kept:
            for request in self._questions():
                if self.over.wait(max(0.0, begin + self.asked / HTTP_PER_S - time.monotonic())):
                    return
                # Every other question comes on a connection of its own.
                if self.asked % 2:
                    answer = kept.send(request)
                else:
                    with httpx.Client(timeout=30) as client:
                        answer = client.send(request)
                assert answer.status_code not in {500, 502}, (request.url.path, answer.text)
                self.asked += 1

    def _questions(self) -> Iterator[httpx.Request]:
        """The ways to ask in turn, each about somebody else."""
        url, org, auth = self._worker.url, self._org.id, httpx.BasicAuth(USER, PASSWORD)
        entry = {"sourceName": "INSTORE", "accountId": "01", "channel": "MOBILE", "priority": "BULK",
                 "orgUnitId": NORTH}  # fmt: skip
        for number in count():
            customer = str(self._pick.randrange(CUSTOMERS))
            link = Link(org, customer, *(CELL[name] for name in ("source", "account_id", "channel", "priority",
                        "org_unit_id")), "OPTOUT", int(time.time() * 1000) + HOUR_MS)  # fmt: skip
            wrong = httpx.BasicAuth(f"nobody-{number}", "wrong")
            for request in (
                httpx.Request("GET", f"{url}/v1/customers/{org}/{customer}"),
                httpx.Request("POST", f"{url}/v1/eligibility", content=dump(self._org.request(customer_id=customer))),
                httpx.Request(
                    "POST", f"{url}/v2/customers/{customer}/subscriptions", headers={"Idempotency-Key": f"k{number}"},
                    json={"subscriptions": [entry | {"type": "OPTIN"}]},
                ),
                httpx.Request("GET", f"{url}/v2/customers/{customer}/subscriptions"),
                httpx.Request("GET", f"{url}/u/{Links(SECRET).token(link)}"),
                httpx.Request("POST", f"{url}/u/{Links(SECRET).token(link)}"),
                httpx.Request("GET", f"{url}/u/{number}.not-ours"),
            ):  # fmt: skip
                yield next((wrong if number % 10 == 0 else auth).auth_flow(request))


def _mobile(customer: str) -> str:
    return f"+49170{customer:0>7}"


def settings() -> dict[str, object]:
    """What the org of a soak needs beyond the usual."""
    return {"mobile": [INSTORE | SMS], "default_region": "DE", "ou_sync": {"opt_in": False, "opt_out": "any"}}
