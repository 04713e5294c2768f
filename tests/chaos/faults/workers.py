"""What is done to workers."""

from __future__ import annotations

import signal

from tests.chaos.driver import Hand, Round
from tests.chaos.faults.registry import fault
from tests.integration.harness import wait_for

#: Every step of a checkpoint, of answering, and of taking a partition over.
STEPS = (
    "take.before", "take.after", "resume.after", "restore.after", "apply.before", "apply.after",
    "outputs.before", "outputs.middle", "outputs.after", "changelog.before", "changelog.after",
    "store.before", "store.after", "ack.before", "ack.after", "commit.before", "commit.after",
    "requests.before", "requests.after",
)  # fmt: skip
#: The first of them come once for each partition that is opened, which may be one only.
AT_OPENING = STEPS[:4]
STATIC = {"CONSENT_INSTANCE_ID": "chaos"}


@fault("kill -9 of a worker")
def kill(round_: Round) -> None:
    worker = round_.pick()
    round_.goes_on()
    worker.kill()
    round_.goes_on()
    worker.start()
    round_.goes_on()
    worker.ready()


@fault("kill -9 of all workers")
def kill_all(round_: Round) -> None:
    round_.goes_on()
    running = [worker for worker in round_.workers if worker.running]
    for worker in running:
        worker.kill()
    round_.goes_on()
    for worker in running:
        worker.start()
    for worker in running:
        worker.ready()


def _kill_at(round_: Round, worker: Hand, step: str) -> None:
    if worker.running:
        worker.kill()
    times = 1 if step in AT_OPENING else round_.rng.randint(1, 3)
    worker.start(CHAOS_AT=f"{step}:{times}").may_end(-signal.SIGKILL)
    round_.until(f"a worker to come to {step}", lambda: not worker.running)
    worker.wait()
    assert worker.came_to(), worker.errors


@fault("kill -9 at steps of a checkpoint", workers=1, env=STATIC, alone=True)
def kill_at_steps(round_: Round) -> None:
    for step in round_.rng.sample(STEPS, 6):
        _kill_at(round_, round_.workers[0], step)


@fault("kill -9 at every step of a checkpoint", workers=1, env=STATIC, alone=True, long=True)
def kill_at_every_step(round_: Round) -> None:
    for step in STEPS:
        _kill_at(round_, round_.workers[0], step)


@fault("kill -9 at a step of a checkpoint, beside others")
def kill_at_a_step(round_: Round) -> None:
    worker = round_.pick()
    _kill_at(round_, worker, round_.rng.choice(STEPS))
    worker.start()
    round_.goes_on()
    worker.ready()


@fault("SIGTERM under load, twice in a row")
def terminate(round_: Round) -> None:
    worker = round_.pick()
    for _ in range(2):
        round_.goes_on(10, 60)
        worker.signal(signal.SIGTERM)
        worker.signal(signal.SIGTERM)
        worker.wait()
        worker.start().ready()


@fault("SIGSTOP past the session, then SIGCONT")
def suspend(round_: Round) -> None:
    worker = round_.pick()
    round_.goes_on()
    worker.suspend()
    round_.others_take_over(worker)
    round_.goes_on()
    _wakes_up(round_, worker)


def _wakes_up(round_: Round, worker: Hand) -> None:
    """To join again and to end with one clear line are both good answers."""
    worker.may_end(0, 1).resume()
    wait_for("it to have partitions again or to end", lambda: not worker.running or worker.open_partitions())
    round_.goes_on()
    if not worker.running:
        worker.wait()
        worker.start().ready()


def _zombie(round_: Round, step: str, **env: str) -> None:
    worker = round_.pick()
    worker.kill()
    worker.start(CHAOS_AT=f"{step}:2", CHAOS_DO="stop", **env)
    round_.until(f"a worker to stop at {step}", worker.came_to)
    round_.others_take_over(worker)
    round_.goes_on()
    _wakes_up(round_, worker)


@fault("SIGSTOP between the look at the lease and the write")
def zombie_in_write(round_: Round) -> None:
    _zombie(round_, round_.rng.choice(("outputs.before", "changelog.before", "outputs.middle")))


@fault("SIGSTOP with the look at the lease switched off", alone=True)
def zombie_without_lease(round_: Round) -> None:
    """Only the broker's fence is left."""
    _zombie(round_, round_.rng.choice(("outputs.before", "changelog.before")), CHAOS_LEASE="off")


@fault("a bug in a handler", workers=1, alone=True)
def bug(round_: Round) -> None:
    """Nothing behind the record that it raises at is acked; without the bug the rest is done."""
    worker = round_.workers[0]
    worker.stop()
    worker.start(CHAOS_AT=f"apply.before:{round_.rng.randint(20, 60)}", CHAOS_DO="raise").may_end(1)
    round_.until("the worker to end", lambda: not worker.running)
    worker.wait()
    assert "BuiltInBug" in worker.last_line, worker.errors
    assert any(committed < end for committed, end in round_.world.unsettled().values())
    worker.start().ready()


def _storm(round_: Round, turns: int) -> None:
    """Every three seconds a worker comes or goes."""
    for turn in range(turns):
        if turn % 2 == 0:
            round_.worker().start()
        else:
            leaving = round_.workers[-2 if turn % 4 == 1 else -1]
            leaving.may_end(0, -signal.SIGTERM).signal(signal.SIGTERM)
        round_.passes_time(3.0)


@fault("a worker added or removed every 3 s", alone=True)
def storm(round_: Round) -> None:
    _storm(round_, 4)


@fault("a worker added or removed every 3 s, for two minutes", alone=True, long=True)
def long_storm(round_: Round) -> None:
    _storm(round_, 40)


@fault("a standby takes over", env={"CONSENT_STANDBY_REPLICAS": "1"}, alone=True)
def standby(round_: Round) -> None:
    worker = round_.pick()
    round_.goes_on()
    worker.kill()
    round_.others_take_over(worker)
    round_.goes_on()
    worker.start().ready()
    both = round_.workers
    wait_for("both to have partitions", lambda: all(0 < one.open_partitions() < round_.partitions for one in both))
