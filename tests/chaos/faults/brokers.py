"""What is done to the one broker, and what every broker can be told to do."""

from __future__ import annotations

import time

from tests.chaos.driver import Round
from tests.chaos.faults.registry import fault, one_broker_fault
from tests.integration.harness import AUDIT, CHANGELOG, DECISIONS, wait_for

RESTORED = {AUDIT: {"retention.ms": "-1"}, DECISIONS: {}, CHANGELOG: {"cleanup.policy": "compact"}}
ENOUGH_BYTES = str(20 << 20)


def _hangs(round_: Round, seconds: float) -> None:
    round_.goes_on()
    round_.broker.suspend()
    time.sleep(seconds)  # not to wait for anything: this is how long it hangs
    round_.broker.resume()


@one_broker_fault("broker SIGSTOP 5 s")
def hang(round_: Round) -> None:
    _hangs(round_, 5)
    round_.goes_on()


@one_broker_fault("broker SIGSTOP 70 s", long=True, alone=True, late=True)
def long_hang(round_: Round) -> None:
    _hangs(round_, 70)
    round_.goes_on()


@one_broker_fault("broker kill -9 and restart")
def kill(round_: Round) -> None:
    round_.goes_on()
    round_.broker.kill()
    round_.broker.start()
    round_.goes_on()


@one_broker_fault("broker kill -9 as partitions are taken over", long=True)
def kill_at_takeover(round_: Round) -> None:
    round_.goes_on()
    running = [worker for worker in round_.workers if worker.running]
    wait_for("all partitions to be shared", lambda: all(worker.open_partitions() for worker in running))
    newcomer = round_.worker().start()
    # It may go too fast to be seen.
    wait_for(
        "partitions to be given up or taken over",
        lambda: newcomer.open_partitions() or not all(worker.open_partitions() for worker in running),
    )
    time.sleep(round_.rng.uniform(0, 0.5))  # not to wait for anything: each time at another moment of it
    round_.broker.kill()
    round_.broker.start()
    round_.goes_on()
    newcomer.ready()
    round_.stop([newcomer])


@one_broker_fault("clean bounces of the broker")
def bounce(round_: Round) -> None:
    for _ in range(2):
        round_.goes_on(20, 40)
        round_.broker.stop()
        round_.broker.start()
    round_.goes_on()


@one_broker_fault("five clean bounces of the broker", long=True)
def bounces(round_: Round) -> None:
    for _ in range(5):
        round_.goes_on(20, 40)
        round_.broker.stop()
        round_.broker.start()


@fault("an output topic that refuses writes")
def refuse(round_: Round) -> None:
    """Whoever is refused ends with 1; everybody may be. With the topic restored, all goes on."""
    topic = round_.rng.choice(list(RESTORED))
    running = [worker for worker in round_.workers if worker.running]
    for worker in running:
        worker.may_end(0, 1)
    round_.world.configure(topic, **{"max.message.bytes": "100"})
    round_.until("a worker to end", lambda: not all(worker.running for worker in running))
    round_.world.configure(topic, **{"max.message.bytes": ENOUGH_BYTES}, **RESTORED[topic])
    ended = [worker for worker in running if not worker.running]
    for worker in ended:
        assert worker.wait() == 1
        assert round_.world.config.topic(topic) in worker.last_line, worker.errors
    round_.goes_on()
    for worker in running:
        if not worker.running:  # another one may have been refused in the meantime
            worker.wait()
            worker.start()
    for worker in running:
        if worker.running:
            worker.ready()
