"""What all tests share: the session's broker."""

from __future__ import annotations

from tests.broker_fixture import kafka

__all__ = ["kafka"]
