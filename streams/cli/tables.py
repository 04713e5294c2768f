"""Tables on stdout: as wide as the terminal, and never cut when they go into a file."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

FILE_WIDTH = 200


def print_table(table: Table) -> None:
    """Print a table; colours only on a terminal that has them."""
    width = None if sys.stdout.isatty() else FILE_WIDTH
    Console(file=sys.stdout, width=width, highlight=False, markup=False).print(table)
