"""What all tests share: the session's broker, and how hard hypothesis tries."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.broker_fixture import kafka, kafka_version, pytest_addoption

__all__ = ["kafka", "kafka_version", "pytest_addoption"]

# The machine is shared: a slow example is no failure. In CI the same examples are tried each time.
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("local", deadline=None, max_examples=60, suppress_health_check=_QUIET)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
