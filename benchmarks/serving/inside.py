"""What our own code takes of a prediction, without sockets and kernel: requests are fed to connections in the process.

    python -m benchmarks.serving.inside [--model s] [--connections 64] [--turns 2000] [--binary] [--off]

The figure is the quickest tenth of the turns, so it holds on a machine that does other things too: compare two states
of the code by it. In each turn every connection gets one request, and the turn ends when all are answered.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from benchmarks.serving.load import binary_body, json_body
from benchmarks.serving.models import MODELS, write_models
from benchmarks.serving.peers.base import Place
from benchmarks.serving.peers.modelyard import Modelyard

from modelyard.foundation.http import new_event_loop
from modelyard.processes import model_server

# ruff: noqa: ASYNC110, ASYNC240, D102, SLF001  (a transport's methods are asyncio's; the server's listener is looked into)


class Sink(asyncio.Transport):
    """A client that takes every answer at once."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0
        self.last = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answers += 1
        self.last = bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class Ready:
    """What the server says it is ready to."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def ready(self, text: str) -> None:
        del text
        self._then()


def requests(given: argparse.Namespace, headers: dict[str, str], port: int) -> list[bytes]:
    """Whole requests that differ."""
    model = MODELS[given.model]
    made = []
    for seed in range(given.connections * 4):
        rows = model.rows(1, seed=seed)
        fields = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json", **headers}
        if given.binary:
            body, size = binary_body(model, rows)
            fields["Inference-Header-Content-Length"] = str(size)
        else:
            body = json_body(model, rows)
        fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        made.append(f"POST /v2/models/{model.name}/infer HTTP/1.1\r\n{head}\r\n".encode() + body)
    return made


async def measure(given: argparse.Namespace, place: Path) -> None:
    """Start a server in this process and feed it."""
    peer = Modelyard("modelyard", everything=not given.off)
    launch = peer.launch(Place(directory=place, models=place / "models", port=0))
    config = msgspec.json.decode(Path(launch.command[-1]).read_bytes(), type=model_server.ServerConfig)
    server = model_server.ModelServer(config)
    listening: list[Any] = []
    listen = server._listen

    async def keep(log: Any) -> Any:  # noqa: ANN401
        listening.append(await listen(log))
        return listening[0]

    server._listen = keep  # type: ignore[method-assign, assignment]
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(Ready(ready.set)))  # type: ignore[arg-type]
    await ready.wait()
    port = int(listening[0].addresses[0].rsplit(":", 1)[1])
    make = listening[0]._connection()
    connections = [make() for _ in range(given.connections)]
    sinks = [Sink() for _ in connections]
    for connection, sink in zip(connections, sinks, strict=True):
        connection.connection_made(sink)
    bodies = requests(given, dict(launch.headers), port)
    times = []
    for turn in range(given.turns):
        first = turn % 4 * given.connections
        began = perf_counter()
        for index, connection in enumerate(connections):
            connection.data_received(bodies[first + index])
        while sinks[-1].answers <= turn:
            await asyncio.sleep(0)
        times.append(perf_counter() - began)
    assert all(sink.answers == given.turns and b" 200 OK" in sink.last for sink in sinks), sinks[0].last
    times.sort()
    each = [time / given.connections * 1e6 for time in times]
    print(
        json.dumps(
            {"quickest_tenth_us": round(each[len(each) // 10], 2), "median_us": round(statistics.median(each), 2)}
        )
    )
    task.cancel()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="s", choices=MODELS)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--binary", action="store_true")
    parser.add_argument("--off", action="store_true")
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory() as place:
        write_models(Path(place) / "models")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(measure(given, Path(place)))


if __name__ == "__main__":
    main()
