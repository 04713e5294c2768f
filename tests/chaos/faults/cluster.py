"""What is done to the brokers of a cluster. No worker may end because of it."""

from __future__ import annotations

import time

from tests.chaos.driver import Round
from tests.chaos.faults.loads import behind_opt_outs
from tests.chaos.faults.registry import cluster_fault
from tests.cluster import SESSION_S
from tests.integration.harness import CHANGES, REQUESTS, wait_for

#: A worker's session, a broker's, and the time in which a replaced leader is noticed, on a busy machine. A produce that
#: waits for a broker that hangs would take longer by itself.
TAKEN_OVER_WITHIN_S = 25.0
#: How long a leader is cut off at least.
CUT_S = 2 * SESSION_S


def _leader(round_: Round) -> int:
    """The node that leads some partition of the changes; where there is one, of which it does not lead the requests.

    A worker hears of such requests though it may know nothing of another leader of the changes.
    """
    seen, config = round_.cluster.seen().partitions, round_.world.config
    numbers = range(round_.partitions)
    leaders = [(seen[config.topic(CHANGES), n].leader, seen[config.topic(REQUESTS), n].leader) for n in numbers]
    apart = [changes for changes, requests in leaders if changes != requests]
    return round_.rng.choice(apart or [changes for changes, _ in leaders])


def _comes_back(round_: Round, *nodes: int) -> None:
    round_.cluster.start(*nodes)
    round_.goes_on()
    round_.cluster.wait_until_whole()
    round_.goes_on()


@cluster_fault("a leader kill -9 and restart")
def kill(round_: Round) -> None:
    node = _leader(round_)
    round_.goes_on()
    round_.cluster.kill(node)
    round_.goes_on()
    _comes_back(round_, node)


@cluster_fault("a leader ended in order and restarted")
def end(round_: Round) -> None:
    node = _leader(round_)
    round_.goes_on()
    round_.cluster.stop(node)
    round_.goes_on()
    _comes_back(round_, node)


@cluster_fault("a leader SIGSTOP for less than its session")
def suspend_briefly(round_: Round) -> None:
    for _ in range(2):
        node = _leader(round_)
        round_.goes_on()
        round_.cluster.suspend(node)
        time.sleep(round_.rng.uniform(0.3, 0.6) * SESSION_S)  # not to wait for anything: this is how long it hangs
        round_.cluster.resume(node)
        round_.goes_on()
    round_.cluster.wait_until_whole()


@cluster_fault("a leader SIGSTOP for longer than its session")
def suspend(round_: Round) -> None:
    node = _leader(round_)
    round_.goes_on()
    led = round_.cluster.led_by(node)
    round_.cluster.suspend(node)
    round_.cluster.wait_until_moved(node, led)
    round_.goes_on()
    round_.cluster.resume(node)
    behind_opt_outs(round_)
    round_.cluster.wait_until_whole()
    round_.goes_on()


@cluster_fault("leaders moved by election")
def elect(round_: Round) -> None:
    for _ in range(2):
        round_.goes_on()
        round_.cluster.elect_away(_leader(round_))
        behind_opt_outs(round_)
    round_.cluster.balance()
    round_.goes_on()


@cluster_fault("leaders moved by reassignment")
def reassign(round_: Round) -> None:
    round_.goes_on()
    round_.cluster.reassign_away(_leader(round_))
    round_.goes_on()
    round_.cluster.reassign_back()
    round_.goes_on()


def _cut(round_: Round, node: int) -> None:
    """Clients reach it, and it answers them; those who write have gone over to the others."""
    led = round_.cluster.led_by(node)
    round_.cluster.cut(node)
    cut_at = time.monotonic()
    round_.cluster.wait_until_moved(node, led)
    round_.leave(node)
    behind_opt_outs(round_)
    round_.passes_time(CUT_S - (time.monotonic() - cut_at))
    assert led <= round_.cluster.led_by(node, by=node), "it knows that it does not lead any more"
    round_.cluster.join(node)
    round_.goes_on()
    round_.cluster.wait_until_whole()
    round_.goes_on()


@cluster_fault("a leader cut off from the other brokers")
def cut(round_: Round) -> None:
    """Nothing is on its way that its silence would hold up: workers have no reason to ask who leads."""
    node = _leader(round_)
    round_.comes_to_rest()
    _cut(round_, node)


@cluster_fault("a leader cut off from the other brokers under load")
def cut_under_load(round_: Round) -> None:
    node = _leader(round_)
    round_.goes_on()
    _cut(round_, node)


@cluster_fault("the group's coordinator kill -9")
def kill_group_coordinator(round_: Round) -> None:
    node = round_.cluster.group_coordinator(round_.world.config.group)
    round_.goes_on()
    round_.cluster.kill(node)
    round_.goes_on()
    _comes_back(round_, node)


@cluster_fault("a coordinator of transactions kill -9 as partitions are taken over")
def kill_transaction_coordinator(round_: Round) -> None:
    """Who opens a partition asks it for ownership."""
    config = round_.world.config
    name = f"{config.owner_ids}changes-{round_.rng.randrange(round_.partitions)}"
    round_.goes_on()
    newcomer = round_.worker().start()
    time.sleep(round_.rng.uniform(0, 3))  # not to wait for anything: each time at another moment of its start
    node = round_.cluster.transaction_coordinator(name)
    round_.cluster.kill(node)
    round_.goes_on()
    _comes_back(round_, node)
    newcomer.ready()
    round_.stop([newcomer])


@cluster_fault("a follower that lags until it leaves the in-sync sets")
def lag(round_: Round) -> None:
    node, changes = round_.rng.choice(list(round_.cluster.nodes)), round_.world.config.topic(CHANGES)
    round_.goes_on()
    round_.cluster.let_lag(node)

    def is_out() -> bool:
        found = round_.cluster.seen().partitions.items()
        return any(place[0] == changes and node not in led.in_sync for place, led in found)

    round_.until("a follower to leave an in-sync set", is_out)
    round_.goes_on()
    round_.cluster.join(node)
    round_.goes_on()
    round_.cluster.wait_until_whole()


@cluster_fault("a leader SIGSTOP as partitions are given up")
def suspend_as_partitions_are_given_up(round_: Round) -> None:
    """Who is left does not wait for the broker that hangs, which is woken only when all partitions are taken over."""
    round_.goes_on()
    victim = round_.pick()
    coordinator = round_.cluster.group_coordinator(round_.world.config.group)
    node = round_.rng.choice(round_.cluster.others(coordinator))
    round_.cluster.suspend(node)
    victim.kill()
    left = [worker for worker in round_.workers if worker.running]
    wait_for(
        "all partitions to be taken over while a broker hangs",
        lambda: sum(worker.open_partitions() for worker in left) == round_.partitions,
        TAKEN_OVER_WITHIN_S,
    )
    round_.cluster.resume(node)
    round_.cluster.wait_until_whole()
    victim.start()
    round_.goes_on()
    victim.ready()


@cluster_fault("two of three brokers kill -9 and back", late=True)
def kill_two(round_: Round) -> None:
    nodes = round_.rng.sample(list(round_.cluster.nodes), len(round_.cluster.nodes) - 1)
    round_.goes_on()
    round_.cluster.kill(*nodes)
    time.sleep(round_.rng.uniform(0, 2) * SESSION_S)  # not to wait for anything: this is how long they are gone
    _comes_back(round_, *nodes)


@cluster_fault("a rolling restart of all brokers")
def roll(round_: Round) -> None:
    for node in round_.rng.sample(list(round_.cluster.nodes), len(round_.cluster.nodes)):
        round_.goes_on(20, 40)
        round_.cluster.restart(node)
        round_.cluster.wait_until_whole()
    round_.goes_on()
