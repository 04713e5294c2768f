"""The benchmark behind `make bench`: `python -m tests.bench [--quick] [--only STAGE,...] [--skip SYSTEM,...]`.

One embedded broker, one input with a fixed seed, one system after another in the same run on the same machine; then the
product's latency again on three brokers. Only ratios between systems of one run mean anything elsewhere; the machine's
description stands above the tables, commit and command below each of them.

Systems. *consent-streams* is the whole product, `consent-streams worker` with everything on: validation, settings,
audit with its inputs, fence, durable changelog, RocksDB, commits, HTTP. *Kafka Streams* (`kstreams/`, where Java and
Maven are at hand), *Quix Streams* (`quix_peer.py`) and *plain Faust* (`faust_peer.py`) do the reduced job of
`reduced.py`, idiomatically, on the same bytes in as many partitions: the latest entry of every cell in a durable table
with changelog, an audit record per change, a decision per request. The peers do less; the product has to be faster all
the same. Plain Faust gets the first `FAUST_EVENTS_CAP` events only.

How it is measured. Every worker is a process of its own and knows nothing of the bench. The input of a phase is in its
topic before the worker starts; the clock (`measure.py`) polls the end offsets of the output topic and reads the
process's user and system time from /proc, at the first sight of an output and at the last one. Start-up is outside, so
is the final commit, which is waited for before the worker is ended. Then all outputs are read back and compared with
`reference.py`: exactly one per input, and the right one, or the run fails instead of giving a number.

Stages, in this order (`--only` takes any of them and adds what they build on):
- `changes`: 20 000 registered customers; N `consent.changed` until their audit records are visible.
- `decisions`: N requests against that state until their decisions are visible.
- `restore`: a worker with an empty folder reads its changelog; records per second, product and plain Faust.
- `latency`: first the highest rate that the product sustains (`sustained.py` defines it; a tenth of the records are
  changes), searched by at most `PROBES` loads of a minute. Then a bare echo (`echo.py`), which is the floor of Kafka
  and aiokafka, and the product take turns, five times: lone requests, one at a time; half of the rate; nine tenths of
  it; the loads open, from a generator process (`load.py`). p50 and p99 from produce to consumed output, and until an
  opt-out was enforced by the worker's own metric: the median of the turns, their least and most, and the median of the
  ratios of product to echo, turn by turn. `--rate` gives the half load and leaves the search out.
- `footprint`: 10 000 and 1 000 000 customers (`--quick`: 100 000), each registered and opted in once: folder size per
  customer and resident memory.
- `intake`: 200 requests per second of the v2 subscription API over HTTP, open loop, with credentials; from due to
  answered.

On three brokers (`broker.py`): the product's `changes` and `decisions`, from which the search starts, and `latency`.
Every topic, the echo's as well, has three replicas of which two must be in sync, and all producers wait for these.
`--brokers 1` or `--brokers 3` leaves the other out.

`--against FOLDER` measures nothing of this, but compares this checkout with another one, see `against.py`.

Linux only, because of /proc. A run takes about 40 minutes on two cores, 26 of them for the two stages `latency`;
`--quick` about nine. `--against` takes about ten, with --quick three.
"""
