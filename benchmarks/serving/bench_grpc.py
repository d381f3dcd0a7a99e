"""gRPC: our ModelInfer against constant answers from bare grpcio servers, in interleaved rounds.

    python -m benchmarks.serving.bench_grpc [--rounds 5] [--seconds 2]

Model S, raw contents, driven by h2load; the server has the first core, the load the last. Contestants: `modelyard
serve`, everything on; grpcio's synchronous and asyncio servers with a constant answer. Answers are checked before and
after. Rates depend on what else runs on the machine; the CPU time that a server spends on a request much less, so both
are told. Also: what the first gRPC call of a server costs in time and memory.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import psutil
from benchmarks.figures import Figure, show, store
from benchmarks.serving.models import S, session, write_models
from benchmarks.serving.pinning import LOAD_CORE, SERVER_CORE
from benchmarks.serving.servers import free_port

from modelyard.inference.grpc.messages import InferRequestMessage, InferResponseMessage

PATH = "/inference.GRPCInferenceService/ModelInfer"
LOADS = {16: ("4", "4"), 64: ("8", "8")}
ECHOES = ("sync", "aio")
_WARM_UP_S = 0.3
_COMMAND = "python -m benchmarks.serving.bench_grpc"


@dataclass(slots=True)
class Running:
    """A server under test."""

    name: str
    port: int
    process: psutil.Popen

    def stop(self) -> None:
        """End it with its descendants."""
        tree = [*self.process.children(recursive=True), self.process]
        self.process.terminate()
        _, alive = psutil.wait_procs(tree, 10)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def question(rows: np.ndarray) -> bytes:
    """A ModelInferRequest with raw contents."""
    message = InferRequestMessage(model_name="s")
    message.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    message.raw_input_contents.append(rows.tobytes())
    return bytes(message.SerializeToString())


def constant() -> bytes:
    """The answer that the echoes give."""
    message = InferResponseMessage(model_name="s", model_version="1")
    message.outputs.add(name="y", datatype="FP32", shape=[1, S.outputs])
    message.raw_output_contents.append(b"\0" * 4 * S.outputs)
    return bytes(message.SerializeToString())


def echo(kind: str, port: int) -> None:
    """Serve the constant until the process is ended."""
    body = constant()
    if kind == "sync":
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([_echo_handler(lambda _body, _context: body)])
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        server.wait_for_termination()
        return
    asyncio.run(_echo_aio(body, port))


async def _echo_aio(body: bytes, port: int) -> None:
    async def answer(_body: bytes, _context: object) -> bytes:
        return body

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([_echo_handler(answer)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def _echo_handler(answer: object) -> object:
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(answer)}
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)


def start_all(models: Path) -> dict[str, Running]:
    """Every contestant, answering."""
    ports = {name: free_port() for name in ("ours", *ECHOES)}
    commands = {
        name: [sys.executable, "-m", "benchmarks.serving.bench_grpc", "--echo", name, "--port", str(port)]
        for name, port in ports.items()
    }
    serve = ["serve", str(models / "s.onnx"), "--name", "s", "--port", "0", "--grpc-port", str(ports["ours"])]
    commands["ours"] = [sys.executable, "-m", "modelyard.cli", *serve]
    pin = [] if SERVER_CORE is None else ["taskset", "-c", SERVER_CORE]
    running = {}
    for name, command in commands.items():
        process = psutil.Popen([*pin, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running[name] = Running(name, ports[name], process)
    return running


def ask(port: int, bodies: Sequence[bytes], *, patience_s: float = 40.0) -> list[np.ndarray]:
    """Answers of a server, waiting for it to be there."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PATH)
        answers = [call(body, timeout=patience_s, wait_for_ready=True) for body in bodies]
    return [np.frombuffer(InferResponseMessage.FromString(each).raw_output_contents[0], "<f4") for each in answers]


def check(port: int, models: Path) -> None:
    """Our answers are onnxruntime's."""
    rows = S.rows(50, seed=7)
    wanted = session(models, S).run(None, {"x": rows})[0]
    found = ask(port, [question(rows[index : index + 1]) for index in range(len(rows))])
    np.testing.assert_allclose(np.stack(found), wanted, rtol=1e-4, atol=1e-5)


def cpu_s(server: Running) -> float:
    """CPU time that a server and its children have spent."""
    tree = [server.process, *server.process.children(recursive=True)]
    return sum(times.user + times.system for times in (each.cpu_times() for each in tree))


def drive(server: Running, in_flight: int, seconds: float, body: Path) -> tuple[float, float]:
    """Answers a second under h2load, and the server's CPU time an answer in µs (its warm-up counted in both)."""
    connections, streams = LOADS[in_flight]
    pin = [] if LOAD_CORE is None else ["taskset", "-c", LOAD_CORE]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command = [
        *pin,
        "h2load",
        "-D",
        f"{seconds * 1000:.0f}ms",
        "--warm-up-time",
        f"{_WARM_UP_S * 1000:.0f}ms",
        "-c",
        connections,
        "-m",
        streams,
    ]
    before = cpu_s(server)
    done = subprocess.run(
        [*command, *headers, "-d", str(body), f"http://127.0.0.1:{server.port}{PATH}"],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    if rate is None or failed is None or failed.groups() != ("0", "0"):
        raise RuntimeError(done.stdout)
    answers = float(rate[1]) * (seconds + _WARM_UP_S)
    return float(rate[1]), (cpu_s(server) - before) / answers * 1e6


def first_call(ours: Running) -> tuple[float, float]:
    """Seconds until the first gRPC answer of a server that is up, and the MiB that it took."""

    def server() -> psutil.Process | None:
        found = [each for each in ours.process.children(recursive=True) if "model-server" in "".join(each.cmdline())]
        return found[0] if found else None

    while not any(each.laddr.port == ours.port for each in psutil.net_connections("tcp")) or server() is None:
        time.sleep(0.05)
    time.sleep(3.0)  # the audit of a small model and its first HTTP answer are over
    process = server()
    assert process is not None
    before, began = process.memory_full_info().uss, time.perf_counter()
    ask(ours.port, [question(S.rows(1))])
    took = time.perf_counter() - began
    return took, (process.memory_full_info().uss - before) / 2**20


def measure(rounds: int, seconds: float) -> list[Figure]:
    """All figures."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is needed (Debian: nghttp2-client)")
    with tempfile.TemporaryDirectory() as place:
        models = Path(place)
        write_models(models)
        message = question(S.rows(1))
        body = models / "body"
        body.write_bytes(b"\0" + len(message).to_bytes(4) + message)
        running = start_all(models)
        try:
            took, grown = first_call(running["ours"])
            for each in running.values():
                ask(each.port, [message])
            check(running["ours"].port, models)
            samples: dict[tuple[str, int], list[tuple[float, float]]] = {}
            for number in range(rounds):
                names = list(running)
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    for in_flight in LOADS:
                        sample = drive(running[name], in_flight, seconds, body)
                        samples.setdefault((name, in_flight), []).append(sample)
            check(running["ours"].port, models)
        finally:
            for each in running.values():
                each.stop()
    return [*_figures(samples), *_costs(took, grown)]


def _figures(samples: dict[tuple[str, int], list[tuple[float, float]]]) -> list[Figure]:
    figures = []
    for (name, in_flight), found in samples.items():
        load = f"gRPC S, {in_flight} in flight: {name}"
        rates, costs = zip(*found, strict=True)
        figures.append(Figure(name=load, values=rates, unit="req/s", command=_COMMAND))
        figures.append(Figure(name=f"{load}, CPU a request", values=costs, unit="µs", command=_COMMAND))
    for in_flight in LOADS:
        for other in ECHOES:
            pairs = list(zip(samples["ours", in_flight], samples[other, in_flight], strict=True))
            load = f"gRPC S, {in_flight} in flight: ours ÷ grpcio's constant echo ({other})"
            aim = 3.0 if other == "sync" else None
            rates = tuple(ours[0] / theirs[0] for ours, theirs in pairs)
            costs = tuple(theirs[1] / ours[1] for ours, theirs in pairs)
            figures.append(Figure(name=load, values=rates, unit="×", command=_COMMAND, aim=aim, better="more"))
            figures.append(Figure(name=f"{load}, by CPU a request", values=costs, unit="×", command=_COMMAND))
    return figures


def _costs(took: float, grown: float) -> list[Figure]:
    return [
        Figure(name="first gRPC answer of a running server", values=(took * 1000,), unit="ms", command=_COMMAND),
        Figure(name="memory that gRPC takes", values=(grown,), unit="MiB", command=_COMMAND),
    ]


def main() -> None:
    """Measure, show, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--echo", choices=ECHOES)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.echo:
        echo(given.echo, given.port)
        return
    figures = measure(given.rounds, given.seconds)
    show(figures)
    print(store("grpc", figures))
    print(f"load average {os.getloadavg()[0]:.1f}, medians of {given.rounds} rounds")


if __name__ == "__main__":
    main()
