"""Runs trials beside each other, each in a process of its own, and watches their bounds.

They are forked from a warm process (`nursery`), so that a trial begins within milliseconds. `close` leaves no process
behind, and nor does the end of this process.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.platform import JobFailed
from modelyard.foundation.memory import held_memory
from modelyard.foundation.telemetry import redact
from modelyard.integrations.tuning.errands import (
    EXIT_MEMORY,
    LOG_FILE,
    METRICS_FILE,
    Errand,
    prepare,
)

_TURN_S, _LOOK_S = 0.1, 0.25
_LONGEST_LINE: Final = 1 << 16
_MOST_LINES: Final = 100_000
_LAST_WORDS: Final = 4000


@dataclass(slots=True)
class Running:
    """A trial that runs, and what it said."""

    errand: Errand
    began: float
    limit_s: float
    read: int = 0
    lines: int = 0
    values: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    looked: float = 0.0
    pid: int | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A value on the way."""

    running: Running
    step: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class End:
    """A trial has ended: with `values`, or with the `reason` why it failed."""

    running: Running
    values: dict[str, float]
    seconds: float
    reason: str


class Crew:
    """See the module."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-B", "-m", "modelyard.integrations.tuning.nursery"]
        self._nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._running: dict[int, Running] = {}
        self._rest = b""

    def __len__(self) -> int:
        return len(self._running)

    def start(self, errand: Errand, *, limit_s: float) -> None:
        """Begin a trial."""
        prepare(errand)
        self._running[errand.number] = Running(errand, time.monotonic(), limit_s)
        self._order({"start": asdict(errand)})

    def turn(self) -> Iterator[Step | End]:
        """What has happened since the last turn; waits a moment where nothing has.

        Raises:
            JobFailed: the process that trials are forked from is gone.
        """
        self._hear(_TURN_S)
        for running in list(self._running.values()):
            has_ended = running.status is not None
            yield from self._steps(running)
            if running.errand.number not in self._running:  # it was stopped meanwhile
                continue
            if running.pid is not None and not has_ended and not running.reason:
                self._look(running)
            if has_ended or running.reason:
                yield self._ended(running)

    def stop(self, running: Running) -> float:
        """End a trial that nobody waits for; how many seconds it ran."""
        if running.status is None:
            self._order({"end": running.errand.number})
            while running.status is None:
                self._hear(_TURN_S)
        self._running.pop(running.errand.number, None)
        return time.monotonic() - running.began

    def close(self) -> None:
        """End all."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait()
        self._nursery.stdout.close()
        self._running.clear()

    def _order(self, order: dict[str, Any]) -> None:
        assert self._nursery.stdin is not None
        try:
            self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError as error:
            raise _gone() from error

    def _hear(self, wait_s: float) -> None:
        """Take in what the nursery says, for at most `wait_s` when it says nothing."""
        assert self._nursery.stdout is not None
        if not select.select([self._nursery.stdout], [], [], wait_s)[0]:
            return
        data = self._nursery.stdout.read(1 << 16)
        if not data:
            raise _gone()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word = json.loads(line)
            running = self._running.get(word.get("started", word.get("ended")))
            if running is not None and "pid" in word:
                running.pid, running.began = word["pid"], time.monotonic()
            elif running is not None:
                running.status = word["status"]

    def _steps(self, running: Running) -> Iterator[Step]:
        path = Path(running.errand.directory) / METRICS_FILE
        try:
            with path.open("rb") as stream:
                stream.seek(running.read)
                data = stream.read(_MOST_LINES * 64)
        except OSError:
            return
        whole = data if running.status is not None else data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            running.read += len(line)
            running.lines += 1
            said = _numbers(line, running.lines)
            if isinstance(said, str):
                running.reason = said
                return
            step = said.pop("step", None)
            running.values |= said  # what is said last counts, a step's values too
            if step is not None:
                yield Step(running, int(step), said)

    def _look(self, running: Running) -> None:
        now = time.monotonic()
        if now - running.began > running.limit_s:
            running.reason = f"it was not done after {running.limit_s:g} seconds"
        elif now - running.looked >= _LOOK_S:
            running.looked = now
            if held_memory(running.pid or 0) > running.errand.memory_bytes:
                running.reason = _too_much_memory(running.errand)
            elif _size(Path(running.errand.directory)) > running.errand.disk_bytes:
                running.reason = f"it wrote more than {running.errand.disk_bytes >> 20} MiB"

    def _ended(self, running: Running) -> End:
        seconds = self.stop(running)
        status = running.status
        reason = running.reason
        if not reason and status == EXIT_MEMORY:
            reason = _too_much_memory(running.errand)
        elif not reason and status:
            how = f"the signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            last = last_words(running.errand).strip().splitlines()
            reason = f"it ended with {how}" + (f": {last[-1][:300]}" if last else "")
            if last and "[Errno 1] Operation not permitted" in last[-1]:
                reason += " (a script has no network and starts no processes)"
        elif not reason and not running.values:
            reason = f"it ended without metrics in {METRICS_FILE}"
        return End(running, running.values, seconds, reason)


def last_words(errand: Errand) -> str:
    """The end of a trial's log, with what looks like a secret blacked out."""
    try:
        with (Path(errand.directory) / LOG_FILE).open("rb") as stream:
            stream.seek(max(os.fstat(stream.fileno()).st_size - _LAST_WORDS, 0))
            return redact(stream.read().decode(errors="replace"))
    except OSError:
        return ""


def _numbers(line: bytes, place: int) -> dict[str, float] | str:
    """The numbers of a line by name, or what is wrong with it."""
    if len(line) > _LONGEST_LINE or place > _MOST_LINES:
        return f"{METRICS_FILE} is too long"
    try:
        found = json.loads(line)
    except ValueError:
        return f"line {place} of {METRICS_FILE} is no JSON"
    if not isinstance(found, dict) or not all(_is_number(value) for value in found.values()):
        return f"line {place} of {METRICS_FILE} is no object of numbers"
    return {str(name): value for name, value in found.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _too_much_memory(errand: Errand) -> str:
    return f"it needs more than the {errand.memory_bytes >> 20} MiB of memory that a trial may have"


def _gone() -> JobFailed:
    return JobFailed("the process that trials are forked from has ended", hint="the log of the job may say why")


def _size(place: Path) -> int:
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            with suppress(OSError):
                total += (Path(folder) / name).lstat().st_blocks * 512
    return total
