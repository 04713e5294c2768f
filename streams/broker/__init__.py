"""A Kafka to work with, wherever the product is started: named, found, in Docker, or embedded with nothing but pip.

- `find_or_start` makes the choice and is what commands and tests call;
- `EmbeddedBroker` is real Kafka on a JVM of our own, which tests also kill, suspend and restart;
- `running_address` finds the embedded broker that another command started on the same data folder;
- `run_foreground` is the command `consent-streams broker`;
- every failure is a `BrokerError` whose text is one line.

Nothing here knows of topics, Faust or the rest of the product.
"""

from .address import running_address
from .choose import ChosenBroker, find_or_start
from .embedded import EmbeddedBroker
from .errors import BrokerError
from .foreground import run_foreground
from .jars import KAFKA_VERSION, kafka_jars
from .java import find_java
from .settings import FAST_JVM, SMALL_JVM

__all__ = [
    "FAST_JVM",
    "KAFKA_VERSION",
    "SMALL_JVM",
    "BrokerError",
    "ChosenBroker",
    "EmbeddedBroker",
    "find_java",
    "find_or_start",
    "kafka_jars",
    "run_foreground",
    "running_address",
]
