"""Real model servers with a gRPC port, and a plain gRPC client for them."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from modelyard.inference.grpc.messages import POOL, message


def _data_plane_kit() -> ModuleType:
    """The packages, tables and servers of the data plane's own tests."""
    name = "data_plane_kit"
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "inference" / "conftest.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


SERVICE = "inference.GRPCInferenceService"


class Grpc:
    """Calls of every service by method name, from the descriptors that the server itself uses."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def method(self, name: str, service: str = SERVICE) -> Callable[..., Any]:
        found = POOL.FindServiceByName(service).FindMethodByName(name)
        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
        make = getattr(self.channel, kinds[found.client_streaming, found.server_streaming])
        return make(
            f"/{service}/{name}",
            request_serializer=lambda each: each if isinstance(each, bytes) else each.SerializeToString(),
            response_deserializer=message(found.output_type.full_name).FromString,
        )

    def ask(
        self, name: str, request: Any = None, *, service: str = SERVICE, key: str | None = None, **more: Any
    ) -> Any:
        """One unary call; waits until the server is there."""
        found = POOL.FindServiceByName(service).FindMethodByName(name)
        wanted = message(found.input_type.full_name)() if request is None else request
        metadata = [*more.pop("metadata", ()), *([("authorization", f"Bearer {key}")] if key else [])]
        return self.method(name, service)(wanted, metadata=metadata, **{"timeout": 20, "wait_for_ready": True} | more)

    def refusal(self, *given: Any, **more: Any) -> grpc.RpcError:
        """The error of a call that has to fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(*given, **more)
        return caught.value


def make_request(*rows: list[float], model: str = "m1", raw: bool = False, **more: Any) -> Any:
    """A ModelInferRequest for a model with the FP32 input x."""
    import numpy as np

    values = np.array(rows or ([1.0, 2.0, 3.0],), dtype="<f4")
    request = message("inference.ModelInferRequest")(model_name=model, **more)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=values.shape)
    if raw:
        request.raw_input_contents.append(values.tobytes())
    else:
        tensor.contents.fp32_contents.extend(values.ravel().tolist())
    return request


def code_of(error: Any) -> str:
    return dict(error.trailing_metadata())["modelyard-code"]


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    return _data_plane_kit()


@pytest.fixture
def packages(kit, tmp_path: Path):
    return kit.Packages(tmp_path / "packages")


@pytest.fixture
def servers(kit, tmp_path: Path) -> Iterator[Any]:
    started = kit.Servers(tmp_path)
    yield started
    started.close()


@pytest.fixture(scope="session")
def shared_server(kit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """m1 (y = 2·x[:, :2]) in two versions, and a classifier; for tests that leave it as it was, but for its counts."""
    root = tmp_path_factory.mktemp("shared")
    packages, servers = kit.Packages(root / "packages"), kit.Servers(root)
    m1, old, sorter = packages.linear("m1", scale=2.0), packages.linear("old", scale=5.0), packages.classifier()
    new = kit.backend(m1, version="3", revision=7)
    table = kit.table(
        kit.service("m1", new, kit.backend(old, version="2", revision=6, weight=0)),
        kit.service("sorter", kit.backend(sorter)),
    )
    try:
        yield servers.start(table, grpc_port=0)
    finally:
        servers.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Any], Grpc]]:
    """A client of a server; closed with the test."""
    opened: list[Grpc] = []

    def make(server: Any, credentials: Any = None, **options: Any) -> Grpc:
        address = grpc_address(server)
        channel = (
            grpc.insecure_channel(address, list(options.items()))
            if credentials is None
            else grpc.secure_channel(address, credentials, list(options.items()))
        )
        opened.append(Grpc(channel))
        return opened[-1]

    yield make
    for each in opened:
        each.channel.close()


def grpc_address(server: Any) -> str:
    lines = Path(server.config["address_file"]).read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("grpc "))


@pytest.fixture(scope="session")
def ask_for() -> Callable[..., Any]:
    return make_request


@pytest.fixture(scope="session")
def error_code() -> Callable[[Any], str]:
    return code_of


@pytest.fixture(scope="session")
def address_of() -> Callable[[Any], str]:
    return grpc_address
