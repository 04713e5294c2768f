"""What is done to the topics that workers read."""

from __future__ import annotations

import random
import subprocess
import sys

import yaml

from tests.chaos.driver import Round
from tests.chaos.faults.registry import fault
from tests.integration.harness import CHECKOUT
from tests.integration.orgs import dump
from tests.model.generate import Step, _Maker

#: Whose settings the command writes, in versions that the load does not come to before.
ORG = 100
FAR_AHEAD = 100_000


def _maker(round_: Round) -> _Maker:
    return _Maker(random.Random(round_.rng.random()), 12, round_.base_ms, round_.partitions)


@fault("a burst of 100 times the load")
def burst(round_: Round) -> None:
    round_.goes_on()
    round_.load(1_500, pause_s=0.0).join()
    round_.goes_on()


@fault("a producer with the wrong partitioner")
def wrong_partitioner(round_: Round) -> None:
    """Nothing it writes is where it belongs, settings excepted: they have no home."""

    def astray(step: Step) -> Step:
        kind, key, value, partition = step
        if key is None or partition is not None:
            return step
        return kind, key, value, (round_.world.home(key) + 1) % round_.partitions

    round_.load(steps=[astray(next(round_.scenario)) for _ in range(200)], pause_s=0.0).join()


@fault("poison of every kind")
def poison(round_: Round) -> None:
    maker = _maker(round_)
    for _ in range(60):
        maker.bad_change()
        maker.bad_request()
    for _ in range(3):
        maker.too_large(round_.world.config.max_record_bytes)
    for n in range(len(maker.steps)):
        maker.steps[n] = _own_id(maker.steps[n], f"poison-{round_.rng.random()}")
    round_.load(steps=maker.steps, pause_s=0.0).join()


def _own_id(step: Step, name: str) -> Step:
    """Bad requests of several poisonings must not share their ids."""
    kind, key, value, partition = step
    value = value and value.replace(b'"request_id":"r-', f'"request_id":"{name}-'.encode())
    return kind, key, value, partition


@fault("requests right behind opt-outs while the changes are loaded")
def behind_opt_outs(round_: Round) -> None:
    """A request follows each opt-out as soon as that is acknowledged, in the midst of other changes."""
    maker = _maker(round_)
    steps: list[Step] = []
    for number in range(60):
        steps += [next(round_.scenario) for _ in range(5)]
        org_id = maker.org_id()
        customer = maker.customer(org_id)
        place = maker.place(org_id)
        name = f"behind-{round_.rng.random()}-{number}"
        opt_out = maker.event("consent.changed", org_id, customer) | place | {"type": "OPTOUT", "event_id": name}
        request = {"request_id": name, "org_id": org_id, "customer_id": customer} | place
        key = maker.key(opt_out)
        steps += [("change", key, dump(opt_out), None), ("request", key, dump(request), None)]
    round_.load(steps=steps, pause_s=0.0).join()


@fault("a settings command killed half way")
def half_settings(round_: Round) -> None:
    """The settings are in all partitions or in none."""
    document = _maker(round_).document(ORG, FAR_AHEAD)
    tried = []
    for turn in range(3):
        document["version"] = (round_.count() + 1) * FAR_AHEAD
        tried.append(document["version"])
        command = subprocess.Popen(
            [sys.executable, "-m", "streams", "settings", "apply", "-"],
            env=round_.environment(), cwd=CHECKOUT, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert command.stdin is not None
        command.stdin.write(yaml.safe_dump(document).encode())
        command.stdin.close()
        round_.passes_time(round_.rng.uniform(0.4, 1.6))
        if turn < 2:
            command.kill()
        command.wait()
    round_.settings_are_at(ORG, tried[-1])
    found = round_.settings_in_log(ORG)
    for version in tried:
        places = sorted(place.partition for place, there in found if there == version)
        assert places in ([], list(range(round_.partitions))), (version, places)
