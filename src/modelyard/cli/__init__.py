"""The `modelyard` command: talks to the client, or starts a process."""

from modelyard.cli.main import main

__all__ = ["main"]
