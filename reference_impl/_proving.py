"""Proving copies: the place of the sub-command `prove`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
