"""The one error of this package."""

from __future__ import annotations


class BrokerError(Exception):
    """A broker could not be found, fetched, started or kept running.

    `str(error)` is one line fit for a terminal; `detail` may hold the tail of a log, several lines.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
