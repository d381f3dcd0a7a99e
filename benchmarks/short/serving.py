"""The serving path in short: S JSON over 64 connections, everything on, against a bare echo in the same minute."""

import shutil
import tempfile
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.serving.load import Sample, drive, write_script
from benchmarks.serving.models import MODELS, write_models
from benchmarks.serving.peers.modelyard import Echo, Modelyard
from benchmarks.serving.pinning import LOAD_CORE, SERVER_CORE
from benchmarks.serving.servers import Server, start

_COMMAND = "python -m benchmarks.serving --peers none"
_CONNECTIONS, _SECONDS, _WARM_S = 64, 2, 1


def measure(rounds: int = 5) -> list[Figure]:
    """Ratios of paired rounds; nothing where wrk is not installed."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: the serving path is left out")
        return []
    model = MODELS["s"]
    with tempfile.TemporaryDirectory() as place:
        models = Path(place) / "models"
        write_models(models)
        servers: list[Server] = []
        try:
            servers.append(start(Echo(), models, core=SERVER_CORE))
            servers.append(start(Modelyard("modelyard", everything=True), models, core=SERVER_CORE))
            scripts = [_script(Path(place), server) for server in servers]

            def once(index: int, seconds: int) -> Sample:
                server = servers[index]
                return drive(
                    server.url(model),
                    scripts[index],
                    connections=_CONNECTIONS,
                    seconds=seconds,
                    core=LOAD_CORE,
                    pids=[server.process.pid],
                )

            pairs = []
            for number in range(rounds + 1):
                order = (0, 1) if number % 2 else (1, 0)
                samples = {index: once(index, _SECONDS if number else _WARM_S) for index in order}
                if number:
                    pairs.append((samples[0], samples[1]))
        finally:
            for server in servers:
                server.stop()
    ratios = tuple(ours.rate / echo.rate for echo, ours in pairs)
    failed = float(sum(ours.bad for _, ours in pairs))
    return [
        Figure(
            name="S JSON, 64 connections: rate ÷ bare echo",
            values=ratios,
            unit="ratio",
            command=_COMMAND,
            aim=0.6,
            better="more",
        ),
        Figure(
            name="S JSON, 64 connections: requests",
            values=tuple(o.rate for _, o in pairs),
            unit="1/s",
            command=_COMMAND,
            better="more",
        ),
        Figure(name="S JSON, 64 connections: p99", values=tuple(o.p99 for _, o in pairs), unit="ms", command=_COMMAND),
        Figure(name="S JSON, 64 connections: failed answers", values=(failed,), unit="", command=_COMMAND, aim=0),
    ]


def _script(place: Path, server: Server) -> Path:
    model = MODELS["s"]
    requests = [server.request(model, model.rows(1, seed=seed)) for seed in range(256)]
    path = place / f"{server.peer.name}.lua"
    write_script(path, [body for body, _ in requests], requests[0][1])
    return path
