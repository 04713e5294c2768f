"""`consent-streams`, also `python -m streams`."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command line and exit with its code: 0, 1 for a failure, 2 for wrong use, 130 for Ctrl-C."""
    try:
        from streams.cli import cli  # noqa: PLC0415 - a Ctrl-C while this is imported is no traceback either

        cli()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
