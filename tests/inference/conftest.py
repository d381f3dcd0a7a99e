"""Packages, tables and real model servers for the data plane's tests; everything that is started is ended."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.domain.access import KeyRecord
from modelyard.domain.contract import Labelling, LabelSource, ModelContract, ModelFormat, ServingPackage, Task
from modelyard.domain.routing import Backend, RoutingTable, ServiceRoute
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.documents import to_json, write_package

TYPES = {
    DataType.FP32: TensorProto.FLOAT,
    DataType.INT8: TensorProto.INT8,
    DataType.BYTES: TensorProto.STRING,
    DataType.BOOL: TensorProto.BOOL,
}
PATIENCE_S = 20.0


def until(condition: Callable[[], object], *, patience_s: float = PATIENCE_S) -> object:
    """Poll `condition` until it holds; what it gave."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    pytest.fail(f"did not come true within {patience_s} s")


def spec(name: str, datatype: DataType = DataType.FP32, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape or (-1,))


class Packages:
    """Writes serving packages into one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def graph(self, name: str, nodes: list, contract: ModelContract, *, constants: dict | None = None, **more) -> Path:
        directory = self.root / name
        directory.mkdir(parents=True)
        values = [
            [
                helper.make_tensor_value_info(s.name, TYPES[s.datatype], [None if d < 0 else d for d in s.shape])
                for s in specs
            ]
            for specs in (contract.inputs, [s for s in contract.outputs if s.name != "label"])
        ]
        start = [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()]
        graph = helper.make_graph(nodes, name, *values, start)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(directory / "model.onnx"))
        write_package(
            directory,
            ServingPackage(
                name=name,
                digest=f"sha256:{name}",
                format=ModelFormat.ONNX,
                runtime="onnxruntime",
                entry="model.onnx",
                platform="onnx_onnxv1",
                contract=contract,
                **more,
            ),
        )
        return directory

    def linear(self, name: str = "m1", *, scale: float = 1.0, **more) -> Path:
        """y = scale · x[:, :2]; x FP32 [-1, 3]."""
        weights = np.zeros((3, 2), dtype="f4")
        weights[0, 0] = weights[1, 1] = scale
        contract = ModelContract(
            inputs=(spec("x", DataType.FP32, -1, 3),), outputs=(spec("y", DataType.FP32, -1, 2),), max_batch_size=10000
        )
        return self.graph(
            name, [helper.make_node("MatMul", ["x", "w"], ["y"])], contract, constants={"w": weights}, **more
        )

    def classifier(self, name: str = "sorter", **more) -> Path:
        """Probabilities of two classes named no and yes."""
        weights = np.array([[1, 0], [0, 1], [0, 0]], dtype="f4")
        contract = ModelContract(
            inputs=(spec("x", DataType.FP32, -1, 3),),
            outputs=(spec("label", DataType.BYTES), spec("p", DataType.FP32, -1, 2)),
            task=Task.CLASSIFICATION,
            labels=("no", "yes"),
            labelling=Labelling(source="p", rule=LabelSource.ARGMAX),
            max_batch_size=64,
        )
        nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["p"])]
        return self.graph(name, nodes, contract, constants={"w": weights}, **more)

    def same(self, name: str, *specs: TensorSpec) -> Path:
        """A model that gives its first input back as y."""
        contract = ModelContract(
            inputs=specs,
            outputs=(TensorSpec(name="y", datatype=specs[0].datatype, shape=specs[0].shape),),
            max_batch_size=64,
        )
        nodes = [helper.make_node("Identity", [specs[0].name], ["y"])]
        return self.graph(name, nodes, contract)


def backend(package: Path, **more) -> Backend:
    given = {"model": package.name, "version": "1", "revision": 1} | more
    return Backend(digest=f"sha256:{package.name}", package=str(package), **given)


def service(name: str, *backends: Backend, **more) -> ServiceRoute:
    return ServiceRoute(name=name, revision=max((b.revision for b in backends), default=1), backends=backends, **more)


def table(*services: ServiceRoute, revision: int = 1, keys: tuple[KeyRecord, ...] = ()) -> RoutingTable:
    return RoutingTable(revision=revision, services=services, keys=keys, auth_required=bool(keys))


@dataclass
class Server:
    """A model server that is listening."""

    process: subprocess.Popen
    port: int
    log: Path
    config: dict = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **more) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **more)

    def figures(self, **more) -> dict[str, float]:
        with self.client(**more) as client:
            text = client.get("/metrics").text
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    def is_ready(self) -> bool:
        with self.client() as client:
            return client.get("/v2/health/ready").status_code == 200

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


class Servers:
    """Starts model servers and workers; `close` ends them all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics = root / "metrics"
        self._started: list[subprocess.Popen] = []

    def program(
        self, module: str, arguments: list[str], *, name: str, fds: tuple[int, ...] = ()
    ) -> tuple[subprocess.Popen, Path]:
        """Start a supervised program and wait until it says that it is ready."""
        read_fd, write_fd = os.pipe()
        log = self.root / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, "--ready-fd", str(write_fd)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=(*fds, write_fd),
            )
        self._started.append(process)
        os.close(write_fd)
        said = os.read(read_fd, 200)
        os.close(read_fd)
        if not said:
            code = process.wait(10)
            pytest.fail(f"{name} did not start and ended with {code}: {log.read_text()[-2000:]}")
        return process, log

    def start(self, routes: RoutingTable | None = None, **config) -> Server:
        """A model server on a free port, from a static table unless the config names another source."""
        index = len(self._started)
        name = config.get("id", f"model-server-{index}")
        if routes is not None:
            path = self.root / f"{name}.table.json"
            path.write_bytes(to_json(routes))
            config["table"] = {"static": str(path)}
        full = {
            "id": name,
            "index": index,
            "port": 0,
            "metrics": str(self.metrics),
            "drain_s": 5.0,
            "address_file": str(self.root / f"{name}.address"),
        } | config
        if "fds" in config:
            del full["port"]
        settings = self.root / f"{name}.json"
        settings.write_text(json.dumps(full))
        fds = (*full.get("fds", ()), *full.get("grpc_fds", ()))
        process, log = self.program("modelyard.processes.model_server", ["--config", str(settings)], name=name, fds=fds)
        port = int(Path(full["address_file"]).read_text().split()[0].rsplit(":", 1)[1])
        return Server(process, port, log, full)

    def worker(self, package: Path, socket: Path, *, name: str = "worker") -> subprocess.Popen:
        arguments = ["--package", str(package), "--socket", str(socket), "--title", f"modelyard: model-worker {name}"]
        return self.program("modelyard.processes.model_worker", arguments, name=name)[0]

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
        for process in self._started:
            process.wait()


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path / "packages")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    started = Servers(tmp_path)
    yield started
    started.close()


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("ab" * 32)
    path.chmod(0o600)
    return path


def question(*rows: list[float], name: str = "x", **more) -> dict:
    """A V2 request for models with one FP32 input."""
    values = rows or ([1.0, 2.0, 3.0],)
    flat = [value for row in values for value in row]
    return {"inputs": [{"name": name, "shape": [len(values), len(values[0])], "datatype": "FP32", "data": flat}]} | more


@pytest.fixture
def kit(kit_functions: SimpleNamespace) -> SimpleNamespace:
    """The functions of this file, for tests to call."""
    return kit_functions


@pytest.fixture(scope="session")
def make_packages() -> type[Packages]:
    return Packages


@pytest.fixture(scope="session")
def make_servers() -> type[Servers]:
    return Servers


@pytest.fixture(scope="session")
def kit_functions() -> SimpleNamespace:
    return SimpleNamespace(
        until=until, spec=spec, backend=backend, service=service, table=table, question=question, Traffic=Traffic
    )


class Traffic:
    """Clients that ask without pause until they are told to stop. `wrong` keeps what was not the right answer."""

    def __init__(self, port: int, path: str, body: bytes, *, clients: int = 4, right: Callable[[bytes], bool]) -> None:
        self.answered = 0
        self.versions: list[str] = []
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._right = right
        self._threads = [threading.Thread(target=self._ask, args=(port, path, body)) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.answered > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Return when that many more were answered."""
        goal = self.answered + count
        until(lambda: self.answered >= goal or self.wrong)

    def _ask(self, port: int, path: str, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        while not self._stop.is_set():
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))
                return
            if answer.status != 200 or not self._right(content):
                self.wrong.append(f"{answer.status} {content[:300]!r}")
            self.versions.append(answer.headers.get("x-model-version", ""))
            self.answered += 1
        connection.close()
