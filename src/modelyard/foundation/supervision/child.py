"""One supervised process: what it is, where it stands, and how it is started."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from modelyard.foundation.supervision.adoption import AdoptedProcess

EXIT_REFUSED: Final = 78
"""A child that ends with this code must not be started again as it is (sysexits.h: EX_CONFIG)."""
_TAIL_BYTES: Final = 4096


class ChildState(StrEnum):
    """Where a child stands."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A Python program to be kept running.

    `module` runs as `python -m module arguments… --ready-fd N`; the program writes a line to that descriptor and closes
    it when it can do its work. `fds` are descriptors it inherits under their numbers. `log` takes its output; None
    leaves it on ours. `tied` children end when the supervisor does, however it ends; others go on serving. A child
    without its `own_session` is in the supervisor's process group. One that holds more than `memory_bytes`, with its
    own children, is ended (`Supervisor.check_memory`).
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()
    log: Path | None = None
    tied: bool = True
    own_session: bool = True
    restart: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None


class Child:
    """A started `ChildSpec` and its history."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state = ChildState.STARTING
        self.restarts = 0
        self.reason = ""
        self.process: asyncio.subprocess.Process | AdoptedProcess | None = None
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.failures: deque[float] = deque(maxlen=16)
        self.verdict = ""

    @property
    def pid(self) -> int | None:
        """Process id while there is one."""
        return self.process.pid if self.process is not None and self.process.returncode is None else None

    def adopt(self, pid: int) -> None:
        """Take over a process that already does this child's work."""
        self.process = AdoptedProcess(pid)
        self.state = ChildState.RUNNING
        self.ready.set()

    async def spawn(self) -> None:
        """Start the process and watch for its ready line."""
        read_fd, write_fd = os.pipe()
        log = open_log(self.spec.log) if self.spec.log is not None else None
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.spec.module,
                *self.spec.arguments,
                "--ready-fd",
                str(write_fd),
                *(("--tied-to", str(os.getpid())) if self.spec.tied else ()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(*self.spec.fds, write_fd),
                start_new_session=self.spec.own_session,
            )
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
            if log is not None:
                os.close(log)
        self._watch_ready(read_fd)

    def _watch_ready(self, read_fd: int) -> None:
        loop = asyncio.get_running_loop()

        def readable() -> None:
            data = os.read(read_fd, 64)
            loop.remove_reader(read_fd)
            os.close(read_fd)
            if data and self.state is ChildState.STARTING:
                self.state = ChildState.RUNNING
                self.ready.set()

        loop.add_reader(read_fd, readable)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is gone."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end_for(self, verdict: str) -> None:
        """End it at once; `verdict` is the reason that is told."""
        self.verdict = verdict
        self.signal(signal.SIGKILL)

    def explain(self, code: int) -> str:
        """Why it ended, in words: our own verdict, or the signal or exit code and the last line that it wrote."""
        if self.verdict:
            verdict, self.verdict = self.verdict, ""
            return verdict
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = last_line(self.spec.log) if self.spec.log is not None else ""
        return f"{how}: {last}" if last else how


def open_log(path: Path) -> int:
    """A descriptor that appends to `path`, private to the user."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def last_line(path: Path) -> str:
    """The last line of a log that is not empty, cut to a readable length."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
