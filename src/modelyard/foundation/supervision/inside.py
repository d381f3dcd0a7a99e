"""The supervised side: what every child program does first and says when it is ready.

`--config FILE` names its settings (JSON), `--ready-fd N` the descriptor that takes the ready line, `--tied-to PID` the
process without which it shall not live.
"""

import argparse
import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import setproctitle

_PR_SET_PDEATHSIG: Final = 1
_STDERR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildArguments:
    """The command line of a supervised program."""

    config: Path
    ready_fd: int | None
    tied_to: int | None

    def ready(self, message: str = "ready") -> None:
        """Tell the supervisor that the work can begin. To be called once."""
        if self.ready_fd is not None:
            with suppress(BrokenPipeError):
                os.write(self.ready_fd, message.encode() + b"\n")
            os.close(self.ready_fd)


def child_arguments(argv: Sequence[str], *, title: str) -> ChildArguments:
    """Read the command line, name the process and tie it to its supervisor when that was asked for."""
    parser = argparse.ArgumentParser(prog=title)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--tied-to", type=int)
    given = parser.parse_args(argv)
    begin_child(title, tied_to=given.tied_to)
    return ChildArguments(config=given.config, ready_fd=given.ready_fd, tied_to=given.tied_to)


def begin_child(title: str, *, tied_to: int | None) -> None:
    """Take the name that `ps` shows, leave a trace of a crash; with `tied_to`, end when that process does."""
    setproctitle.setproctitle(title)
    faulthandler.enable(_STDERR)  # a native library that crashes says at least where it was called
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's: it stops its children in order
    if tied_to is not None:
        _end_with_parent(tied_to)


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above stood
        sys.exit(0)
