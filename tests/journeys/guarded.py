"""A platform that asks for keys, with the request corpus's models and some real ones deployed on it."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelyard.client import Client
from modelyard.testing.platform import Platform

BATCH = "n"


@dataclass
class Guarded:
    """The platform, its admin key, and keys made on the way."""

    platform: Platform
    admin: str
    keys: dict[str, str] = field(default_factory=dict)

    def key(self, *scopes: str, project: str | None = None) -> str:
        """A key with these scopes, made once."""
        name = f"{' '.join(scopes)} {project or ''}".strip()
        if name not in self.keys:
            body = {"name": name, "scopes": list(scopes), "expires_days": 1}
            if project:
                body["project"] = project
            answer = self.control("POST", "/keys", self.admin, json=body)
            assert answer.status_code == 201, answer.text
            self.keys[name] = answer.json()["key"]
        return self.keys[name]

    def control(self, method: str, path: str, key: str | None, **more: Any) -> httpx.Response:
        """Ask the control API."""
        return ask(method, f"{self.platform.control_url}/api/v1{path}", key, **more)

    def infer(self, path: str, key: str | None, method: str = "POST", **more: Any) -> httpx.Response:
        """Ask the inference listener."""
        return ask(method, self.platform.inference_url + path, key, **more)

    def client(self, project: str | None = None) -> Client:
        """A client with the admin key."""
        return Client(self.platform.control_url, key=self.admin, project=project)


def ask(method: str, url: str, key: str | None, **more: Any) -> httpx.Response:
    """One request on a connection of its own."""
    headers = dict(more.pop("headers", {}))
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return httpx.request(method, url, headers=headers, trust_env=False, timeout=30, **more)


def bootstrap(platform: Platform) -> str:
    """Trade the first start's token for an admin key."""
    token = Path(str(platform.standing["bootstrap_token"])).read_text().strip()
    answer = ask("POST", f"{platform.control_url}/api/v1/keys/bootstrap", None, json={"token": token})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def corpus_models(place: Path) -> list[Path]:
    """The models that the request corpus lists, as ONNX files of these names."""
    place.mkdir(parents=True, exist_ok=True)
    first_two = numpy_helper.from_array(np.eye(3, 2, dtype="f4"), "w")
    return [
        _write(place / "m1.onnx", [("x", TensorProto.FLOAT, [BATCH, 3])], [BATCH, 2], ["MatMul", "x", "w"], first_two),
        _write(place / "m_int8.onnx", [("x", TensorProto.INT8, [BATCH, 3])], [BATCH, 3], ["Identity", "x"]),
        _write(
            place / "m_two.onnx",
            [("x", TensorProto.FLOAT, [BATCH]), ("z", TensorProto.FLOAT, [BATCH])],
            [BATCH],
            ["Add", "x", "z"],
        ),
        _write(place / "m_bytes.onnx", [("x", TensorProto.STRING, [BATCH])], [BATCH], ["Identity", "x"]),
        _write(place / "m_bool.onnx", [("x", TensorProto.BOOL, [BATCH])], [BATCH], ["Identity", "x"]),
    ]


def _write(path: Path, inputs: Sequence[tuple[str, int, list]], shape: list, node: list[str], *constants: Any) -> Path:
    ends = [helper.make_tensor_value_info(name, kind, size) for name, kind, size in inputs]
    output = helper.make_tensor_value_info("y", inputs[0][1], shape)
    graph = helper.make_graph([helper.make_node(node[0], node[1:], ["y"])], path.stem, ends, [output], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def until(condition: Callable[[], Any], *, limit_s: float, what: str) -> float:
    """Seconds until the condition came true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, f"{what} did not come true within {limit_s:g} s"
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def loading_service(guarded: Guarded, name: str = "m_loading") -> Iterator[None]:
    """A service whose package is a pipe that nobody writes to: known to every server, and never ready."""
    path = guarded.platform.directory / f"{name}.onnx"
    _write(path, [("x", TensorProto.FLOAT, [BATCH, 4])], [BATCH, 4], ["Relu", "x"])
    with guarded.client() as client:
        version = client.upload(path, name=name)
        file = guarded.platform.places.packages / version.digest.removeprefix("sha256:") / "model.onnx"
        file.unlink()
        os.mkfifo(file)
        client.deploy(name, wait=False)
        key = guarded.key("infer")
        until(
            lambda: guarded.infer(f"/v2/models/{name}/infer", key, content=b"{}").status_code == 503,
            limit_s=20,
            what="the loading service on the servers",
        )
        try:
            yield
        finally:
            client.undeploy(name)
            for _ in range(2):  # lets a blocked reader of each server go
                with suppress(OSError):
                    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
