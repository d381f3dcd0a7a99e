"""A real platform for tests: `modelyard up` on free ports in a directory of the test's, gone to the last process after.

`Platform` is what a test holds; `Serving` is the same for `modelyard serve`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import psutil

from modelyard.client import Client
from modelyard.foundation.places import Places
from modelyard.foundation.supervision.adoption import read_left

_START_S: Final = 120.0
_STOP_S: Final = 40.0


def wait_until(condition: Callable[[], Any], *, limit_s: float = 30.0, what: str = "the condition") -> Any:  # noqa: ANN401
    """Ask until the answer is true, and return it; `AssertionError` when the time is over."""
    end = time.monotonic() + limit_s
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not become true within {limit_s:g} s")
        time.sleep(0.05)
    return answer


@dataclass
class Command:
    """A `modelyard` command that runs until it is stopped. Its output is kept in `output`."""

    arguments: Sequence[str]
    directory: Path
    output: Path
    process: subprocess.Popen[bytes] | None = None
    _stream: IO[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own."""
        self._stream = self.output.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelyard.cli", *self.arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self) -> str:
        """All that it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, mark: str, *, limit_s: float = _START_S) -> str:
        """The first printed line that holds `mark`; fails with the whole output when the command ends before."""

        def seen() -> str | None:
            assert self.process is not None
            for line in self.text().splitlines():
                if mark in line:
                    return line
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} before it printed {mark!r}:\n{self.text()}")
            return None

        return str(wait_until(seen, limit_s=limit_s, what=f"{mark!r} in the output"))

    def stop(self, *, number: signal.Signals = signal.SIGINT, limit_s: float = _STOP_S) -> int:
        """Send a signal and return the exit code; whatever its tree leaves behind is ended."""
        assert self.process is not None
        tree = _tree(self.process.pid)
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(limit_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if number is not signal.SIGKILL:
                _end(tree)
            if self._stream is not None:
                self._stream.close()
                self._stream = None


@dataclass
class Platform:
    """`modelyard up` with one data directory, startable again and again on it."""

    directory: Path
    options: Sequence[str] = ()
    command: Command | None = None
    standing: dict[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> Places:
        """Where it keeps its things."""
        return Places((self.directory / "data").resolve())

    @property
    def control_url(self) -> str:
        """Address of the control listener."""
        return str(self.standing["control_url"])

    @property
    def inference_url(self) -> str:
        """Address of the inference listener."""
        return str(self.standing["inference_url"])

    def start(self) -> None:
        """Start it and wait until everything answers."""
        ports = (
            []
            if "--control-port" in self.options
            else ["--control-port", "0", "--inference-port", "0", "--grpc-port", "0"]
        )
        servers = [] if "--servers" in self.options else ["--servers", "1"]
        arguments = ["up", "--json", "--data", str(self.places.data), *ports, *servers, *self.options]
        output = self.directory / "up.log"
        output.unlink(missing_ok=True)
        self.command = Command(arguments, self.directory, output)
        self.command.start()
        self.standing = json.loads(self.command.wait_for('"control_url"'))

    def client(self, key: str | None = None) -> Client:
        """A client of it; to be closed by the test."""
        return Client(self.control_url, key=key)

    def environment(self) -> dict[str, str]:
        """That of commands which are for it."""
        return {**os.environ, "MODELYARD_URL": self.control_url}

    def run(self, *arguments: str, limit_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """A command of the command line, run to its end beside its data."""
        return subprocess.run(
            [sys.executable, "-m", "modelyard.cli", *arguments],
            env=self.environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def pid_of(self, name: str) -> int:
        """Process id of a supervised child, once the supervisor has noted it."""

        def noted() -> int | None:
            return {entry.name: entry.pid for entry in read_left(self.places.run / "children.json")}.get(name)

        return int(wait_until(noted, what=f"a process {name}"))

    def stop(self) -> int:
        """Ctrl-C, and its exit code."""
        assert self.command is not None
        return self.command.stop()

    def kill_supervisor(self) -> None:
        """End the supervisor at once; what it started goes on."""
        assert self.command is not None
        self.command.stop(number=signal.SIGKILL)

    def end(self) -> None:
        """End whatever is left of it. Idempotent."""
        left = read_left(self.places.run / "children.json")
        if self.command is not None and self.command.process is not None:
            self.command.stop()
        _end([psutil.Process(entry.pid) for entry in left if entry.is_alive()])


@contextmanager
def running_platform(directory: Path, *options: str) -> Iterator[Platform]:
    """A started platform in `directory`, gone afterwards."""
    platform = Platform(directory, options)
    try:
        platform.start()
        yield platform
    finally:
        platform.end()


@dataclass
class Serving:
    """A running `modelyard serve`."""

    command: Command
    url: str

    @property
    def output(self) -> str:
        """All that it printed."""
        return self.command.text()

    @property
    def base_url(self) -> str:
        """Address of the listener."""
        return self.url.split("/v2/", 1)[0]


@contextmanager
def serving(path: Path, directory: Path, *options: str) -> Iterator[Serving]:
    """`modelyard serve path`, ready, gone afterwards."""
    port = [] if "--port" in options else ["--port", "0"]
    port += [] if "--grpc-port" in options else ["--grpc-port", "0"]
    command = Command(["serve", str(path), *port, *options], directory, directory / "serve.log")
    command.start()
    try:
        line = command.wait_for("ready    ")
        yield Serving(command, next(word for word in line.split() if word.startswith("http")))
    finally:
        command.stop()


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, 10)
    for process in alive:
        with suppress(psutil.Error):
            os.kill(process.pid, signal.SIGKILL)
