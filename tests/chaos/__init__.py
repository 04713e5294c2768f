"""Machinery that tries to break the promises of the README, and a checker that tells whether it did.

- `driver`: a broker and workers as real processes, a load, and what happened (`history`);
- `faults`: what is done to them, each under a name and repeatable by its seed;
- `checker`: what must hold afterwards (I1 to I7), and a report in plain text;
- `launcher`: a worker with a fault built in, for moments that no signal from outside hits; the product has no hooks.

`make test` runs every fault once. `make chaos MINUTES=10` picks them at random, several to a round, and prints a table.
"""
