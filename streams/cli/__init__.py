"""The commands of contract section 7, one file per group of commands."""

from .root import cli

__all__ = ["cli"]
