"""A model worker of its own process, asked over its socket as a model server asks it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from modelyard.domain.errors.platform import StartRefused
from modelyard.inference.routing.frames import FrameReader, Kind, pack_tensors, run_frame, unpack_tensors
from modelyard.ports.runtime import LoadOptions

Array = np.ndarray[Any, Any]
_LIMIT_S = 240.0
_LEFT_MS = 120_000
_CHUNK = 1 << 16


class IsolatedModel:
    """A package loaded by `modelyard.processes.model_worker`; one question at a time."""

    def __init__(self, package: Path, options: LoadOptions, environments: Path | None = None) -> None:
        """Start a worker and wait until it says that it is ready; `StartRefused` holds its last words."""
        self._place = Path(tempfile.mkdtemp(prefix="my-worker-"))
        config = {
            "package": str(package),
            "socket": str(self._place / "s"),
            "title": "modelyard: model-worker conformance 0",
            "threads": options.threads,
            "device": options.device,
            "environments": None if environments is None else str(environments),
        }
        (self._place / "config.json").write_text(json.dumps(config))
        self._log = self._place / "log"
        reading, writing = os.pipe()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "modelyard.processes.model_worker"),
                        *("--config", str(self._place / "config.json"), "--ready-fd", str(writing)),
                    ],
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                )
        finally:
            os.close(writing)
        self._channel = socket.socket(socket.AF_UNIX)
        try:
            with os.fdopen(reading, "rb") as ready:
                if not ready.read(1):
                    self._process.wait(_LIMIT_S)
                    raise self._last_words()  # noqa: TRY301  (what was begun is ended below)
            self._channel.settimeout(_LIMIT_S)
            self._channel.connect(str(self._place / "s"))
            self._reader, self._waiting, self._asked = FrameReader(), list[tuple[Kind, int, bytes]](), 0
            self.hello: dict[str, Any] = msgspec.msgpack.decode(self._next(Kind.HELLO, 0))
        except BaseException:
            self.close()
            raise

    @property
    def device(self) -> str:
        """Where the worker says that it runs."""
        return str(self.hello["device"])

    @property
    def memory_bytes(self) -> int:
        """What the worker says that loading took."""
        return int(self.hello["memory_bytes"])

    def run(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Answers for one batch; a failure of the model is a `RuntimeError` with its text."""
        self._asked += 1
        self._channel.sendall(run_frame(self._asked, pack_tensors(batch), left_ms=_LEFT_MS))
        return unpack_tensors(self._next(Kind.ANSWER, self._asked))

    def cpu_s(self) -> float:
        """Processor seconds that the worker has used."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End the worker. Idempotent."""
        self._channel.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def _last_words(self) -> StartRefused:
        lines = self._log.read_text(errors="replace").splitlines()
        return StartRefused("\n".join(lines[-2:])[-800:])

    def _next(self, wanted: Kind, number: int) -> bytes:
        end = time.monotonic() + _LIMIT_S
        while time.monotonic() < end:
            while self._waiting:
                kind, of, payload = self._waiting.pop(0)
                if kind is Kind.FAILURE and of == number:
                    raise RuntimeError(msgspec.msgpack.decode(payload)["text"])
                if kind is wanted and (of == number or wanted is Kind.HELLO):
                    return payload
            data = self._channel.recv(_CHUNK)
            if not data:
                raise self._last_words()
            self._waiting += self._reader.feed(data)
        raise TimeoutError("the worker did not answer")
