"""Two listening processes against one, on all cores, with the load on the same cores: what a second process brings."""

from pathlib import Path

from benchmarks.serving.load import drive, write_script
from benchmarks.serving.models import MODELS
from benchmarks.serving.peers.modelyard import Serve
from benchmarks.serving.servers import start

_CONNECTIONS = 64


def two_against_one(models: Path, *, rounds: int, seconds: int) -> tuple[float, ...]:
    """Ratios of the rates of `modelyard serve m.onnx --workers 2` and `--workers 1`, round by round."""
    model = MODELS["m"]
    servers = [start(Serve("m", workers=workers), models, core=None) for workers in (1, 2)]
    try:
        requests = [servers[0].request(model, model.rows(1, seed=seed)) for seed in range(256)]
        script = models.parent / "two.lua"
        write_script(script, [body for body, _ in requests], requests[0][1])
        found = []
        for _ in range(rounds):
            one, two = (
                drive(
                    server.url(model),
                    script,
                    connections=_CONNECTIONS,
                    seconds=seconds,
                    core=None,
                    pids=[server.process.pid],
                ).rate
                for server in servers
            )
            found.append(two / one)
        return tuple(found)
    finally:
        for server in servers:
            server.stop()
