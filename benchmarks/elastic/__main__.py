"""Many models in little memory: a hundred services whose models share the memory of ten.

    python -m benchmarks.elastic [--models 100] [--at-once 10] [--requests 1000]

One model server holds all services on demand, asked in random order, and again with all models loaded. Shown are the
memory of both, how many loads that took, what a request costs whose model is there and one whose model is not, and
whether every answer was right.
"""

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import psutil
from benchmarks.figures import Figure, show, store
from onnx import TensorProto, helper, numpy_helper

from modelyard.domain.contract import ModelContract, ModelFormat, ServingPackage
from modelyard.domain.routing import Backend, RoutingTable, ServiceRoute
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.documents import to_json, write_package

_MIB = 1 << 20
_WEIGHTS = 8 * _MIB
_READY_S = 120.0


def write_model(directory: Path, name: str, factor: float) -> ServiceRoute:
    """A model of eight MiB that multiplies two numbers by `factor`, and the route to it."""
    package = directory / name
    package.mkdir()
    weights = np.zeros((2, _WEIGHTS // 8), dtype="f4")
    weights[0, 0] = weights[1, 1] = factor
    ends = {"from": np.array([0]), "to": np.array([2]), "axes": np.array([1])}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("Slice", ["z", "from", "to", "axes"], ["y"]),
        ],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(array, key) for key, array in {"w": weights, **ends}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(package / "model.onnx"))
    tensor = {"datatype": DataType.FP32, "shape": (-1, 2)}
    contract = ModelContract(
        inputs=(TensorSpec(name="x", **tensor),), outputs=(TensorSpec(name="y", **tensor),), max_batch_size=64
    )
    write_package(
        package,
        ServingPackage(
            name=name,
            digest=f"sha256:{name}",
            format=ModelFormat.ONNX,
            runtime="onnxruntime",
            entry="model.onnx",
            platform="onnx_onnxv1",
            contract=contract,
        ),
    )
    backend = Backend(model=name, version="1", digest=f"sha256:{name}", package=str(package), revision=1)
    return ServiceRoute(name=name, revision=1, backends=(backend,), idle_s=3600.0)


class Server:
    """A model server with one table."""

    def __init__(self, place: Path, table: RoutingTable) -> None:
        place.mkdir()
        (place / "table.json").write_bytes(to_json(table))
        config = {
            "table": {"static": str(place / "table.json")},
            "port": 0,
            "address_file": str(place / "address"),
            "metrics": str(place / "metrics"),
            "wait_first_s": _READY_S,
        }
        (place / "config.json").write_text(json.dumps(config))
        run = [sys.executable, "-m", "modelyard.processes.model_server", "--config", str(place / "config.json")]
        with (place / "log").open("wb") as log:
            self.process = subprocess.Popen(run, stdout=log, stderr=log)
        end = time.monotonic() + _READY_S
        while not (place / "address").exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit((place / "log").read_text()[-2000:])
            time.sleep(0.05)
        port = int((place / "address").read_text().split()[0].rpartition(":")[2])
        self.line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    @property
    def memory(self) -> int:
        """What the process has in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def ask(self, name: str, value: float) -> tuple[list[float], float]:
        """The answer of a service, and the seconds it took."""
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [value, 1.0]}
        began = time.perf_counter()
        self.line.request("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}))
        answer = json.loads(self.line.getresponse().read())
        return answer["outputs"][0]["data"], time.perf_counter() - began

    def loads(self) -> float:
        """How often a model was loaded on demand."""
        self.line.request("GET", "/metrics")
        lines = self.line.getresponse().read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("modelyard_model_wakes_total{"))

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def measure(given: argparse.Namespace, place: Path) -> list[Figure]:
    """The figures of one run."""
    factors = {f"m{number}": float(number + 1) for number in range(given.models)}
    models = place / "models"
    models.mkdir()
    routes = tuple(write_model(models, name, factor) for name, factor in factors.items())
    budget = given.at_once * _WEIGHTS
    asleep = tuple(ServiceRoute(**{**_fields(route), "on_demand": True}) for route in routes)
    order = random.Random(7)
    names = [order.choice(list(factors)) for _ in range(given.requests)]

    server = Server(place / "on-demand", RoutingTable(revision=1, services=asleep, model_memory_bytes=budget))
    base, most, wrong, known, warm, cold = server.memory, 0, 0, server.loads(), [], []
    for name in names:
        found, took = server.ask(name, 2.0)
        wrong += found != [2.0 * factors[name], factors[name]]
        loads = server.loads()
        (cold if loads > known else warm).append(took)
        known, most = loads, max(most, server.memory)
    server.stop()

    eager = Server(place / "eager", RoutingTable(revision=1, services=routes))
    for name in factors:
        eager.ask(name, 2.0)
    all_loaded = eager.memory
    eager.stop()

    command = f"python -m benchmarks.elastic --models {given.models} --at-once {given.at_once}"

    def figure(name: str, value: float, unit: str, aim: float | None = None) -> Figure:
        return Figure(name=name, values=(value,), unit=unit, command=command, aim=aim)

    return [
        figure(f"wrong answers of {given.requests}", wrong, "", aim=0),
        figure("models: memory over the empty server, at most", (most - base) / _MIB, "MiB"),
        figure("the same with all of them loaded", (all_loaded - base) / _MIB, "MiB"),
        figure(
            f"memory ÷ that of all, aim {given.at_once}/{given.models} and one load",
            (most - base) / (all_loaded - base),
            "ratio",
        ),
        figure("loads", known, ""),
        figure("a request whose model is there", 1000 * median(warm), "ms"),
        figure("a request that has it loaded", 1000 * median(cold), "ms"),
    ]


def _fields(route: ServiceRoute) -> dict[str, object]:
    return {name: getattr(route, name) for name in route.__dataclass_fields__}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elastic", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--requests", type=int, default=1000)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        figures = measure(given, Path(place))
    show(figures)
    print(f"\nstored as {store('elastic', figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
