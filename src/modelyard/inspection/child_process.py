"""One child process from its start to its last breath: minimal surroundings, bounded time, events in, group killed.

Whoever starts one uses it as a context manager; leaving the block kills the child's whole process group and removes its
temporary directory, however the block was left.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from modelyard.domain.errors.uploads import AuditTimeout, ProbeFailed, UploadRefused, WeightsUnsafe
from modelyard.domain.report import Check, Outcome, Refusal
from modelyard.foundation.documents import from_plain

EXIT_WALL: Final = 86
"""Exit status of a child that its audit hook ended (`children/audit_hook.py`)."""

_MAX_EVENTS: Final = 64 << 20
_MAX_NOISE: Final = 16 << 10
_CHUNK: Final = 1 << 16
_MEMORY_WORDS: Final = ("MemoryError", "bad_alloc", "Cannot allocate memory", "memory exhausted")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildAnswer:
    """What a child said: checks, and either a `result` or a `refusal`."""

    checks: tuple[Check, ...]
    result: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


class StartedChild:
    """A child program that has been started and waits for its request."""

    def __init__(self, program: str, *, imports: str = "", launch: Sequence[str] = ()) -> None:
        """`launch`: the interpreter's arguments up to the program's own; the program of this name when empty."""
        start = launch or ("-m", f"modelyard.inspection.children.{program}")
        self._place = tempfile.TemporaryDirectory(prefix="modelyard-child-", ignore_cleanup_errors=True)
        self._events, theirs = os.pipe()
        self.program = program
        self.started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", *start, str(theirs), imports],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs,),
                env=_surroundings(self._place.name),
                cwd=self._place.name,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._events)
            self._place.cleanup()
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """The child's process id, which is also that of its group."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any], *, wall_s: float, on_check: Callable[[Check], None]) -> ChildAnswer:
        """Send the one request and hear the events until the last; `on_check` hears each check as it arrives."""
        document = {**request, "write": [*request["write"], str(Path(self._place.name).resolve())]}
        conversation = _Conversation(on_check=on_check, unsent=memoryview(json.dumps(document).encode()))
        began = time.monotonic()
        in_time = self._converse(conversation, deadline=began + wall_s)
        status = self._end(began + wall_s if in_time and not conversation.is_over else 0.0)
        if conversation.result is None and conversation.refusal is None:
            spent = time.monotonic() - began
            error = _why_it_ended(conversation, status, None if in_time else wall_s)
            conversation.refusal = refusal_of(error)
            conversation.take_check(_ending(self.program, error, status, spent))
        return ChildAnswer(
            checks=tuple(conversation.checks),
            result=conversation.result or {},
            refusal=conversation.refusal,
        )

    def close(self) -> None:
        """Kill the child's group and remove its directory. Idempotent."""
        self._end(0.0)
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self._events >= 0:
            os.close(self._events)
            self._events = -1
        self._place.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _converse(self, conversation: "_Conversation", *, deadline: float) -> bool:
        """Write the request, read events and noise, until the end of both or the last event; False: out of time."""
        stdin, stderr = self._process.stdin, self._process.stderr
        if stdin is None or stderr is None:  # pragma: no cover  (both were asked for)
            return False
        os.set_blocking(stdin.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ, conversation.take_events)
            selector.register(stderr, selectors.EVENT_READ, conversation.take_noise)
            selector.register(stdin, selectors.EVENT_WRITE)
            while not conversation.is_over and self._events in selector.get_map():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                for key, _ in selector.select(remaining):
                    if key.data is None:
                        _write(selector, stdin, conversation)
                    elif not key.data(os.read(key.fd, _CHUNK)):
                        selector.unregister(key.fileobj)
            return True

    def _end(self, deadline: float) -> int:
        """Let the process end by itself until `deadline`, then kill its group; its exit status."""
        process = self._process
        if process.returncode is not None:
            return process.returncode
        remaining = deadline - time.monotonic()
        if remaining > 0:
            timer = threading.Timer(remaining, self._kill)
            timer.start()
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            timer.cancel()
        self._kill()  # the leader is not reaped yet, so its number is still that of this group
        return process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


class _Conversation:
    """What has been said so far, both ways."""

    def __init__(self, *, on_check: Callable[[Check], None], unsent: memoryview) -> None:
        self.unsent = unsent
        self.checks: list[Check] = []
        self.result: dict[str, Any] | None = None
        self.refusal: Refusal | None = None
        self.wall: str | None = None
        self.noise = b""
        self._on_check = on_check
        self._line = bytearray()
        self._received = 0

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.refusal is not None

    def take_noise(self, data: bytes) -> bool:
        self.noise = (self.noise + data)[-_MAX_NOISE:]
        return bool(data)

    def take_events(self, data: bytes) -> bool:
        self._received += len(data)
        if self._received > _MAX_EVENTS:
            self.refusal = refusal_of(ProbeFailed("the audit's child says more than it may"))
            return False
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if not self.is_over:
                self._take(bytes(line))
        return bool(data)

    def take_check(self, check: Check) -> None:
        self.checks.append(check)
        self._on_check(check)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            match event:
                case {"check": value}:
                    self.take_check(from_plain(value, Check))
                case {"refusal": value}:
                    self.refusal = from_plain(value, Refusal)
                case {"wall": str(value)}:
                    self.wall = value[:64]
                case {"done": dict(value)}:
                    self.result = value
        except (ValueError, RecursionError, msgspec.ValidationError):
            self.refusal = refusal_of(ProbeFailed("the audit's child says something that cannot be read"))


def refusal_of(error: UploadRefused) -> Refusal:
    """The refusal that an error stands for."""
    return Refusal(code=error.code, title=error.title, detail=error.detail, hint=error.hint)


def _write(selector: selectors.BaseSelector, stdin: Any, conversation: _Conversation) -> None:  # noqa: ANN401  (a raw pipe)
    try:
        conversation.unsent = conversation.unsent[os.write(stdin.fileno(), conversation.unsent[:_CHUNK]) :]
    except BlockingIOError:
        return
    except BrokenPipeError:
        conversation.unsent = conversation.unsent[:0]
    if not conversation.unsent:
        selector.unregister(stdin)
        with suppress(OSError):
            stdin.close()


def _surroundings(place: str) -> dict[str, str]:
    """The whole environment of a child: nothing of ours, one thread a library, a temporary place of its own."""
    threads = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
    return {
        **dict.fromkeys(threads, "1"),
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "HOME": place,
        "TMPDIR": place,
        "JOBLIB_TEMP_FOLDER": place,
        "JOBLIB_MULTIPROCESSING": "0",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _why_it_ended(conversation: _Conversation, status: int, wall_s: float | None) -> UploadRefused:
    if conversation.wall is not None or status == -signal.SIGSYS:
        tried = conversation.wall or "a system call that no model needs"
        return WeightsUnsafe(
            f"while it was read or asked, the model tried what it may not: {tried}",
            hint="a model is numbers; code belongs into predict.py, which runs in a worker of its own after review",
        )
    if wall_s is not None:
        return AuditTimeout(
            f"the audit took longer than {wall_s:g} s",
            hint="upload a smaller model, or raise the audit's limit of time",
        )
    if status == -signal.SIGXCPU:
        return AuditTimeout(
            "the audit used up its processor time", hint="upload a smaller model, or raise the audit's limit of time"
        )
    if status == -signal.SIGKILL or any(word.encode() in conversation.noise for word in _MEMORY_WORDS):
        return AuditTimeout(
            "the audit ran out of memory", hint="upload a smaller model, or raise the audit's limit of memory"
        )
    ended = signal.Signals(-status).name if status < 0 else f"status {status}"
    return ProbeFailed(
        f"the model's library ended without an answer ({ended})",
        hint="the file is damaged, or was written by another version of its library",
    )


def _ending(program: str, error: UploadRefused, status: int, spent_s: float) -> Check:
    return Check(
        name=f"{program}.ended",
        outcome=Outcome.FAILED,
        summary=error.detail,
        evidence={"code": error.code, "exit_status": status},
        duration_s=round(spent_s, 3),
        hint=error.hint,
    )
