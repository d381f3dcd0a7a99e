"""Servers under test: started on one core, timed to their first correct answer, checked answer by answer, stopped."""

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from benchmarks.serving.load import binary_body, json_body
from benchmarks.serving.models import MODELS, Array, Model, session
from benchmarks.serving.peers.base import Peer, Place
from benchmarks.serving.trees import end

_START_S = 40.0
_POLL_S = 0.01


@dataclass(slots=True, kw_only=True)
class Server:
    """A running one."""

    peer: Peer
    port: int
    process: psutil.Popen
    headers: dict[str, str]
    started_s: float

    def url(self, model: Model) -> str:
        """Where `model` answers."""
        return f"http://127.0.0.1:{self.port}{self.peer.path(model.name)}"

    def request(self, model: Model, rows: Array, *, binary: bool = False) -> tuple[bytes, dict[str, str]]:
        """A body with its headers, in the form that this server reads."""
        headers = {"Content-Type": "application/json", **self.headers}
        if binary:
            body, size = binary_body(model, rows)
            headers |= {"Inference-Header-Content-Length": str(size), "Content-Type": "application/octet-stream"}
            return body, headers
        if self.peer.style == "mlflow":
            return json.dumps({"inputs": {"x": rows.round(4).astype("f8").round(4).tolist()}}).encode(), headers
        return json_body(model, rows), headers

    def stop(self) -> None:
        """End it with all its descendants."""
        end([self.process])


def start(peer: Peer, models: Path, *, core: str | None) -> Server:
    """Start `peer` and wait for its first correct answer. Preparing it is not counted."""
    directory = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=models.parent))
    port = free_port()
    launch = peer.launch(Place(directory=directory, models=models, port=port))
    command = [*launch.command] if core is None else ["taskset", "-c", core, *launch.command]
    log = (directory / "log").open("wb")
    began = time.perf_counter()
    process = psutil.Popen(
        command, cwd=directory, env={**os.environ, **launch.env}, stdout=log, stderr=subprocess.STDOUT
    )
    server = Server(peer=peer, port=port, process=process, headers=dict(launch.headers), started_s=0.0)
    try:
        _await_first(server, models, began)
    except BaseException:
        print((directory / "log").read_text(errors="replace")[-3000:])
        server.stop()
        raise
    server.started_s = time.perf_counter() - began
    return server


def _await_first(server: Server, models: Path, began: float) -> None:
    model = MODELS[server.peer.models[0]]
    rows = model.rows(1)
    wanted = session(models, model).run(None, {"x": rows})[0]
    body, headers = server.request(model, rows)
    with httpx.Client(trust_env=False, timeout=10) as client:
        while True:
            with suppress(httpx.HTTPError):
                answer = client.post(server.url(model), content=body, headers=headers)
                if answer.is_success:
                    _require_equal(server, _outputs(answer), wanted)
                    return
            if server.process.poll() is not None:
                raise RuntimeError(f"{server.peer.name} ended")
            if time.perf_counter() - began > _START_S:
                raise TimeoutError(server.peer.name)
            time.sleep(_POLL_S)


def check_answers(
    server: Server, models: Path, *, model: Model, binary: bool = False, at_once: int = 16, count: int = 100
) -> int:
    """Ask `count` different questions, `at_once` at a time; every answer is held against onnxruntime's.

    Returns how many answers were compared.
    """
    if server.peer.style == "echo":
        return 0
    rows = model.rows(count, seed=7)
    opened = session(models, model)
    wanted = np.concatenate([opened.run(None, {"x": rows[index : index + 1]})[0] for index in range(count)])
    return asyncio.run(_ask_all(server, model, rows, wanted, binary=binary, at_once=at_once))


async def _ask_all(server: Server, model: Model, rows: Array, wanted: Array, *, binary: bool, at_once: int) -> int:
    gate = asyncio.Semaphore(at_once)

    async def ask(client: httpx.AsyncClient, index: int) -> None:
        body, headers = server.request(model, rows[index : index + 1], binary=binary)
        async with gate:
            answer = await client.post(server.url(model), content=body, headers=headers)
        answer.raise_for_status()
        _require_equal(server, _outputs(answer), wanted[index : index + 1])

    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await asyncio.gather(*(ask(client, index) for index in range(len(rows))))
    return len(rows)


def _require_equal(server: Server, found: Array, wanted: Array) -> None:
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-4, atol=1e-5):
        if server.peer.style == "echo":
            return
        raise RuntimeError(f"{server.peer.name} answered {found}, not {wanted}")


def _outputs(answer: httpx.Response) -> Array:
    size = answer.headers.get("inference-header-content-length")
    head: Any = json.loads(answer.content[: int(size)] if size else answer.content)
    if "predictions" in head:
        return np.asarray(_only(head["predictions"]), dtype="f4")
    output = next(one for one in head["outputs"] if one["name"] == "y")
    if size:
        return np.frombuffer(answer.content[int(size) :], "<f4").reshape(output["shape"])
    return np.asarray(output["data"], dtype="f4").reshape(output["shape"])


def _only(predictions: Any) -> Any:  # noqa: ANN401  (a wire value)
    if isinstance(predictions, dict):
        return predictions["y"]
    return [row["y"] for row in predictions] if isinstance(predictions[0], dict) else predictions


def free_port() -> int:
    """A port that nobody listens on, with room for the ports that some peers derive from it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        if port < 60000:
            return port
