"""The isolated model worker: one model in a process of its own, asked over a Unix socket.

    python -m modelyard.processes.model_worker --config FILE [--ready-fd N] [--tied-to PID]
    python -m modelyard.processes.model_worker --package DIR --socket PATH --title NAME [--threads N] [--memory BYTES]

The configuration is the same names as JSON. Loads the model, then listens (0600), then says that it is ready. Runs
leave the event loop, so that it answers pings while the model works. What nobody waits for any more is not begun; a
run that goes on long after that ends the process. Ends with its supervisor, and on SIGTERM after what it has in hand.
A package that cannot be loaded ends it with exit code 78. A package with code of its own is handed over
to `own_code_worker`, which replaces this process.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.routing import SealedSecret
from modelyard.foundation.cores import stay_on
from modelyard.foundation.documents import read_package
from modelyard.foundation.http import run
from modelyard.foundation.memory import bound_memory, is_out_of_memory
from modelyard.foundation.supervision import EXIT_REFUSED
from modelyard.foundation.supervision.inside import begin_child
from modelyard.inference.batching import Lane
from modelyard.inference.hosting import RUNTIMES, HostedModel, load_model
from modelyard.inference.routing.frames import (
    Failure,
    FrameReader,
    Hello,
    Kind,
    frame,
    open_run,
    pack_tensors,
    unpack_tensors,
)
from modelyard.inference.routing.workers.diary import Diary, diary_path
from modelyard.ports.runtime import LoadOptions, ProgramRuntime

_GRACE_S: Final = 30.0
_LAST_WRITES_S: Final = 0.05
_WATCH_EVERY_S: Final = 1.0
_SHORTEST_LIMIT_S: Final = 10.0
_BEYOND_S: Final = 5.0
EXIT_HUNG: Final = 70
"""A run went on long after the last of its callers had gone (sysexits.h: EX_SOFTWARE)."""
_TRANSIENT: Final = (ConnectionError, TimeoutError)
"""What a model raises when something beside it is away: no fault of the input, and it may pass."""
_pack = msgspec.msgpack.Encoder().encode


class WorkerConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of one worker. `memory` bounds what it takes in bytes, `cores` what it uses; None leaves it free.

    `environments` is where the environments of own code lie; `env` are variables of own code, sealed, which the key in
    the file `sealing_key` opens.
    """

    package: str
    socket: str
    title: str = "modelyard: model-worker"
    threads: int = 1
    device: str = "auto"
    memory: int | None = None
    cores: int | None = None
    environments: str | None = None
    env: dict[str, SealedSecret] = msgspec.field(default_factory=dict)
    sealing_key: str | None = None


class Worker:
    """The model, its lane and what is in hand. `diary` tells those who outlive it which run it is in."""

    def __init__(self, hosted: HostedModel, loop: asyncio.AbstractEventLoop, diary: Diary) -> None:
        self.hosted = hosted
        self.loop = loop
        self.diary = diary
        self.connections = 0
        self.over_at = float("inf")
        self.lane = Lane("run")
        self.in_hand = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def hello(self, connection: int) -> bytes:
        """The first frame of a connection."""
        hosted = self.hosted
        return frame(
            Kind.HELLO,
            connection,
            _pack(
                Hello(
                    pid=os.getpid(),
                    digest=hosted.package.digest,
                    device=hosted.model.device,
                    memory_bytes=hosted.model.memory_bytes,
                    load_s=hosted.load_s,
                    run_s=hosted.run_s,
                )
            ),
        )

    def run(self, payload: bytes, number: int, connection: "Connection") -> None:
        """Line up one run; its answer goes to `connection`."""
        self.in_hand += 1
        self.idle.clear()
        left_s, tensors = open_run(payload)
        until = time.monotonic() + left_s
        self.lane.submit(lambda: self._run(tensors, number, connection, until=until))

    def end_what_hangs(self) -> None:
        """End the process when its run is over time. The run cannot be stopped, and others wait behind it."""
        if time.monotonic() > self.over_at:
            print("a run did not end, long after its callers had gone", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(EXIT_HUNG)

    def _run(self, payload: bytes, number: int, connection: "Connection", *, until: float) -> None:
        now = time.monotonic()
        if now >= until or number in connection.dropped:
            connection.dropped.discard(number)
            answer = frame(Kind.DROPPED, number)
        else:
            self.diary.began(connection.number, number)
            self.over_at = max(now + _SHORTEST_LIMIT_S, until + _BEYOND_S)
            answer = self._answer(payload, number)
            self.over_at = float("inf")
            self.diary.ended()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self.loop.call_soon_threadsafe(self._done, connection, answer)

    def _answer(self, payload: bytes, number: int) -> bytes:
        try:
            return frame(Kind.ANSWER, number, pack_tensors(self.hosted.run(unpack_tensors(payload))))
        except Exception as error:  # noqa: BLE001  (the plugin edge: a model may raise anything)
            text = f"{type(error).__name__}: {error}"[:2000]
            bound = "memory" if isinstance(error, MemoryError) else ""
            failure = Failure(text=text, transient=isinstance(error, _TRANSIENT), bound=bound)
            return frame(Kind.FAILURE, number, _pack(failure))

    def _done(self, connection: "Connection", answer: bytes) -> None:
        self.in_hand -= 1
        connection.write(answer)
        if not self.in_hand:
            self.idle.set()


class Connection(asyncio.Protocol):
    """One model server that asks."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.number = 0
        self.dropped: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce the model."""
        self._transport = cast("asyncio.Transport", transport)
        self._worker.connections += 1
        self.number = self._worker.connections
        self._transport.write(self._worker.hello(self.number))

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        for kind, number, payload in self._reader.feed(data):
            if kind is Kind.RUN:
                self._worker.run(payload, number, self)
            elif kind is Kind.STREAM:
                self.write(frame(Kind.FAILURE, number, _pack(Failure(text="this runtime gives one answer"))))
            elif kind is Kind.DROP:
                self.dropped.add(number)
            elif kind is Kind.PING:
                self.write(frame(Kind.PONG, number))

    def write(self, data: bytes) -> None:
        """Send, if the other end is still there."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def serve(worker: Worker, listener: socket.socket, *, ready_fd: int | None) -> None:
    """Answer on `listener` until SIGTERM, then finish what is in hand."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_unix_server(lambda: Connection(worker), sock=listener)
    if ready_fd is not None:
        with suppress(BrokenPipeError):
            os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
    watch = loop.create_task(_watch(worker), name="watch")
    await stop.wait()
    server.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(worker.idle.wait(), _GRACE_S)
    watch.cancel()
    await asyncio.sleep(_LAST_WRITES_S)


async def _watch(worker: Worker) -> None:
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        worker.end_what_hangs()


def listen(path: Path) -> socket.socket:
    """A listening socket at `path` that only this user can reach; a leftover there is replaced."""
    listener = bind(path)
    listener.listen()
    return listener


def bind(path: Path) -> socket.socket:
    """A socket at `path` that does not listen yet."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


def read_config(argv: Sequence[str]) -> tuple[WorkerConfig, int | None, int | None]:
    """Settings, ready descriptor and supervisor from the command line."""
    parser = argparse.ArgumentParser(prog="modelyard: model-worker")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--package")
    parser.add_argument("--socket")
    parser.add_argument("--title", default="modelyard: model-worker")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--tied-to", type=int)
    given = parser.parse_args(argv)
    if given.config is not None:
        config = msgspec.json.decode(given.config.read_bytes(), type=WorkerConfig)
    elif given.package and given.socket:
        config = WorkerConfig(
            package=given.package,
            socket=given.socket,
            title=given.title,
            threads=given.threads,
            memory=given.memory,
        )
    else:
        parser.error("give --config, or --package and --socket")
    return config, given.ready_fd, given.tied_to


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker; the exit code."""
    try:
        config, ready_fd, tied_to = read_config(sys.argv[1:] if argv is None else argv)
    except (OSError, msgspec.MsgspecError) as error:
        print(f"the worker's configuration cannot be read: {error}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    begin_child(config.title, tied_to=tied_to)
    if config.cores is not None:
        stay_on(config.cores)
    if config.memory is not None:
        bound_memory(config.memory)
    _hand_over(config, sys.argv[1:] if argv is None else argv)
    options = LoadOptions(threads=config.threads, device=config.device)
    try:
        hosted = load_model(Path(config.package), options=options)
    except Exception as error:  # noqa: BLE001  (the plugin edge: a runtime may raise anything)
        why = error.detail if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
        if config.memory is not None and is_out_of_memory(error):
            why = f"it does not fit into {config.memory >> 20} MiB (resources.memory): {why}"
        print(f"the model cannot be loaded: {why}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    path = Path(config.socket)
    run(_serve(hosted, listen(path), Diary(diary_path(config.socket)), ready_fd=ready_fd))
    path.unlink(missing_ok=True)
    return 0


def _hand_over(config: WorkerConfig, argv: Sequence[str]) -> None:
    """Become `own_code_worker` for a package whose runtime has a program of its own; the process keeps its number.

    A package that cannot be read is left to the loading that follows, which says why. The libraries of that program
    start no threads, for a process with threads cannot enter namespaces.
    """
    try:
        runtime = RUNTIMES.get(read_package(Path(config.package)).runtime)
    except (OSError, ValueError, ModelyardError):
        return
    if isinstance(runtime(), ProgramRuntime):
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "modelyard.processes.own_code_worker", *argv]
        os.execve(sys.executable, command, {**os.environ, **single})  # noqa: S606


async def _serve(hosted: HostedModel, listener: socket.socket, diary: Diary, *, ready_fd: int | None) -> None:
    await serve(Worker(hosted, asyncio.get_running_loop(), diary), listener, ready_fd=ready_fd)


if __name__ == "__main__":
    sys.exit(main())
