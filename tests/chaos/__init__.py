"""Machinery that tries to break the promises of the README, and a checker that tells whether it did.

- `driver`: a broker or a cluster and workers as real processes, a load (`scenario`), and what happened (`history`);
- `faults`: what is done to them, each under a name and repeatable by its seed;
- `checker`: what must hold afterwards (I0 to I7), and a report in plain text; `parts`: the same for what is too large
  for one process, a partition at a time;
- `bulk`: one round of any number of decisions, under a fast load, with one fault after the other;
- `launcher`: a worker with a fault built in, for moments that no signal from outside hits; the product has no hooks.

`make test` has every fault but those that take minutes, and the tests of the checker. `make chaos MINUTES=15` draws
from all, several to a round, and prints a table; `make chaos DECISIONS=1000000` is the one long round. `SEED=` draws
the same again; a single fault is drawn by its name, `ARGS="--only 'broker SIGSTOP 70 s'"`, those that are too large to
be drawn by chance (a million customers) included. `BROKERS=3` does it on a cluster, whose faults are others than the
one broker's; `make test` has one round of these.
"""
