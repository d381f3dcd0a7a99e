"""Interleaved rounds: in each, every case is measured with every server, one right after the other.

Servers that wait for their turn are stopped with SIGSTOP, so that none takes the core from the one being measured. What
was disturbed by other programs of the machine is measured again, as long as the patience for that lasts, and the least
disturbed sample is kept.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from benchmarks.serving.cases import CASES, Case
from benchmarks.serving.load import Sample, drive, write_script
from benchmarks.serving.models import MODELS
from benchmarks.serving.peers.base import ROOT
from benchmarks.serving.pinning import LOAD_CORE, SERVER_CORE
from benchmarks.serving.servers import Server
from benchmarks.serving.trees import tree

_SETTLE_S = 0.1
_DISTURBED, _TRIES, _PATIENCE_S = 0.2, 3, 40.0
_BODIES = {"s": 256, "m": 256, "r": 64}


class Rounds:
    """Collects samples, one a round, for each case and server."""

    def __init__(self, servers: Mapping[str, Server], models: Path, *, seconds: int) -> None:
        self.samples: dict[tuple[str, str], list[Sample]] = {}
        self.kernel: list[float] = []
        self._servers = servers
        self._models = models
        self._seconds = seconds
        self._patience_s = _PATIENCE_S
        for server in servers.values():
            _signal(server, signal.SIGSTOP)

    def run(self, number: int) -> None:
        """One round; the order turns with its number."""
        self.kernel.append(self._kernel())
        for case in CASES:
            names = [name for name in self._servers if takes_part(case, name, self._servers[name])]
            turn = number % len(names) if names else 0
            for name in (*names[turn:], *names[:turn]):
                self.samples.setdefault((case.name, name), []).append(self._measure(case, name))

    def _measure(self, case: Case, name: str) -> Sample:
        server, model = self._servers[name], MODELS[case.model]
        script = self._models.parent / f"{name}-{case.name}.lua".replace(" ", "-").replace(",", "")
        if not script.exists():
            requests = [
                server.request(model, model.rows(1, seed=seed), binary=case.binary)
                for seed in range(_BODIES[case.model])
            ]
            write_script(script, [body for body, _ in requests], requests[0][1])
        samples: list[Sample] = []
        while not samples or (samples[-1].foreign > _DISTURBED and len(samples) < _TRIES and self._patience_s > 0):
            if samples:
                self._patience_s -= self._seconds
            with awake(server):
                sample = drive(
                    server.url(model),
                    script,
                    connections=case.connections,
                    seconds=self._seconds,
                    core=LOAD_CORE,
                    pids=[server.process.pid],
                )
            samples.append(sample)
        return min(samples, key=lambda sample: sample.foreign)

    def _kernel(self) -> float:
        command = [sys.executable, "-m", "benchmarks.serving.kernel", str(self._models)]
        if SERVER_CORE is not None:
            command = ["taskset", "-c", SERVER_CORE, *command]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def takes_part(case: Case, name: str, server: Server) -> bool:
    """Whether a server is measured in a case."""
    return (
        case.model in server.peer.models
        and (not case.only or name in case.only)
        and (not case.binary or server.peer.has_binary)
    )


@contextlib.contextmanager
def awake(server: Server) -> Iterator[None]:
    """Let a stopped server run."""
    _signal(server, signal.SIGCONT)
    time.sleep(_SETTLE_S)
    try:
        yield
    finally:
        _signal(server, signal.SIGSTOP)


def wake(servers: Sequence[Server]) -> None:
    """Let all run again."""
    for server in servers:
        _signal(server, signal.SIGCONT)


def _signal(server: Server, number: int) -> None:
    for process in tree([server.process.pid]):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
