"""A real control plane with two real model servers, and what a test asks of them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bundles import bundle
from control_driver import Control, eventually

ROW = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.0, 0.5, 0.0]}]}


@dataclass
class Serving:
    """A control plane with model servers."""

    control: Control
    servers: list["subprocess.Popen[bytes]"]
    addresses: list[str]

    def client(self) -> httpx.Client:
        return self.control.client()

    def ask(self, service: str, server: int = 0) -> httpx.Response:
        url = f"{self.addresses[server]}/v2/models/{service}/infer"
        return httpx.post(url, json=ROW, timeout=30, trust_env=False)

    def deploy(self, **body: Any) -> dict[str, Any]:
        with self.client() as client:
            answer = client.post("/services", json=body)
            assert answer.status_code == 202, answer.text
        return self.settled(body["name"])

    def settled(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = {}

        def is_settled() -> bool:
            nonlocal document
            with self.client() as client:
                document = client.get(f"/services/{name}").raise_for_status().json()
            return document["phase"] in ("serving", "failed")

        eventually(is_settled)
        return document


@contextmanager
def serving_in(
    place: Path, *, settings: str | None = None, environment: dict[str, str] | None = None, **pace: float
) -> Iterator[Serving]:
    """With three versions of the model `m`; `pace` is that of deployments, `settings` a file of settings."""
    options = {"pace": {"patience_s": 30.0, "sweep_s": 0.5, **pace}, "model_servers": 2, "settings": settings}
    control = Control(place / "data", options=options, environment=environment or {}).start()
    servers, files = [], []
    try:
        for index in range(2):
            file = place / f"address-{index}"
            config = {
                "id": f"server-{index}",
                "index": index,
                "table": {"control_socket": str(control.internal_socket), "cache": str(place / f"table-{index}")},
                "port": 0,
                "address_file": str(file),
                "metrics": str(place / "metrics"),
            }
            path = place / f"server-{index}.json"
            path.write_text(json.dumps(config))
            with (place / f"server-{index}.log").open("wb") as log:
                command = [sys.executable, "-m", "modelyard.processes.model_server", "--config", str(path)]
                servers.append(subprocess.Popen(command, stdout=log, stderr=log))
            files.append(file)
        eventually(lambda: all(file.exists() for file in files), within_s=180)
        running = Serving(control, servers, ["http://" + file.read_text().split()[0] for file in files])
        with control.client() as client:
            for number in range(1, 4):
                client.post("/models/m/versions", files=bundle(bias=float(number))).raise_for_status()
            eventually(lambda: len(client.get("/nodes").json()["items"][0]["servers"]) == 2, within_s=180)
        yield running
    finally:
        control.stop()
        for server in servers:
            server.kill()
            server.wait(30)
