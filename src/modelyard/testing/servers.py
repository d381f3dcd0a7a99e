"""Programs that tests start and end: a database server, brokers. Each ends with the test, however that ends."""

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

_DIE_WITH_PARENT: Final = 1
_READY_S: Final = 60.0
_STOP_S: Final = 30.0
_LAST_WORDS: Final = 2000

Process = subprocess.Popen[bytes]


def start_server(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    again: bool = False,
    **options: Any,  # noqa: ANN401
) -> Process:
    """Start a program and wait until it is `ready`; `again` keeps what its log holds. `options` are those of `Popen`.

    Raises:
        RuntimeError: it ended or took too long; with its last words.
    """
    with log.open("ab" if again else "wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  (one call of the kernel, nothing of Python's)
            **options,
        )
    end = time.monotonic() + _READY_S
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise RuntimeError(log.read_text(errors="replace")[-_LAST_WORDS:])
        time.sleep(0.02)
    return process


def stop_server(process: Process, how: signal.Signals) -> None:
    """End a program that runs, by force when it does not end in time."""
    process.send_signal(how)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_S)


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGQUIT)
