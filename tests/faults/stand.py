"""A real platform with models on it, for experiments: `modelyard up` in a directory of its own, gone afterwards."""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from tests.faults import models
from tests.faults.load import Question, right_answers

from modelyard.client import Client
from modelyard.foundation.documents import to_json
from modelyard.foundation.environments import Environment, base_interpreter
from modelyard.foundation.supervision.adoption import read_left
from modelyard.testing.platform import Platform, wait_until

_VALUES = 8


@dataclass
class Service:
    """A deployed service of the stand, with questions and their right answers."""

    stand: "Stand"
    name: str
    model: str
    questions: list[Question]
    digest: str

    @property
    def path(self) -> str:
        """Where it is asked."""
        return f"/v2/models/{self.name}/infer"

    def ask(self, *values: float, timeout_s: float = 60.0) -> httpx.Response:
        """One request."""
        url = self.stand.platform.inference_url + self.path
        headers = {"content-type": "application/json"}
        return httpx.post(url, content=models.question(*values), headers=headers, timeout=timeout_s, trust_env=False)

    def worker_pids(self) -> list[int]:
        """Process ids of its isolated workers that live now."""
        mark = f"model-worker default.{self.name}."
        children = read_left(self.stand.platform.places.run / "children.json")
        return sorted(child.pid for child in children if child.name.startswith(mark) and child.is_alive())

    def order(self, orders: Mapping[str, Any]) -> None:
        """Tell its own code how to behave from now on."""
        package = self.stand.platform.places.packages / self.digest.removeprefix("sha256:")
        partial = package / "orders.partial"
        partial.write_text(json.dumps(orders))
        partial.replace(package / "orders.json")

    def figures(self, family: str) -> dict[str, float]:
        """Series of one figure of this service, by their labels as they stand in the text."""
        text = httpx.get(self.stand.platform.inference_url + "/metrics", timeout=30, trust_env=False).text
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(family + "{"))
        return {name: float(value) for name, value in rows if f'service="{self.name}"' in name}

    def total(self, family: str) -> float:
        """The sum of them."""
        return sum(self.figures(family).values())


@dataclass
class Stand:
    """A platform and what is deployed on it."""

    directory: Path
    options: Sequence[str] = ("--servers", "2")
    settings: str = ""
    services: dict[str, Service] = field(default_factory=dict)
    platform: Platform = field(init=False)

    def __post_init__(self) -> None:
        options = list(self.options)
        if self.settings:
            path = self.directory / "settings.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.settings)
            options += ["--settings", str(path)]
        self.platform = Platform(self.directory, options)

    def start(self) -> "Stand":
        """Start it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._borrow_environment()
        self.platform.start()
        return self

    def end(self) -> None:
        """Wake what is stopped, and end everything."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
        self.platform.end()

    def client(self) -> Client:
        """A client of it, to be closed by the caller."""
        return self.platform.client()

    def control(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the control API."""
        url = f"{self.platform.control_url}/api/v1{path}"
        return httpx.request(method, url, timeout=60, trust_env=False, **more)

    def linear(self, name: str, *, scale: float = 1.0, **options: Any) -> Service:
        """The service `name` over the plain model, deployed once."""
        if name not in self.services:
            file = models.linear(self.directory / "models" / f"{name}.onnx", scale=scale)
            with self.client() as client:
                version = client.upload(file, name=name)
                client.deploy(name, **options)
            self.services[name] = self._service(name, version.digest)
        return self.services[name]

    def own_code(self, name: str, *, sleep_s: float = 0.0, batch: int = 16, **options: Any) -> Service:
        """The service `name` over code that misbehaves on demand, deployed once."""
        if name not in self.services:
            bundle = models.own_code(self.directory / "models" / name, sleep_s=sleep_s, batch=batch)
            with self.client() as client:
                version = client.upload(bundle, name=name)
                client.approve(name, version.version)
                client.deploy(name, **options)
            self.services[name] = self._service(name, version.digest)
        return self.services[name]

    def pids(self) -> list[int]:
        """Every process of the platform."""
        return [process.pid for process in psutil.process_iter() if self.owns(process)]

    def owns(self, process: psutil.Process) -> bool:
        """Whether a process descends from our supervisor."""
        command = self.platform.command
        if command is None or command.process is None:
            return False
        try:
            return process.pid == command.process.pid or command.process.pid in {p.pid for p in process.parents()}
        except psutil.Error:
            return False

    def wait_ready(self, *, limit_s: float = 60.0) -> None:
        """Until the inference listener says that it is ready, many times in a row: every server is."""

        def ready() -> bool:
            try:
                url = self.platform.inference_url + "/v2/health/ready"
                return all(httpx.get(url, timeout=5, trust_env=False).status_code == 200 for _ in range(6))
            except httpx.HTTPError:
                return False

        wait_until(ready, limit_s=limit_s, what="a platform that is ready")

    @property
    def port(self) -> int:
        """Port of the inference listener."""
        return int(urlsplit(self.platform.inference_url).port or 0)

    def _service(self, name: str, digest: str) -> Service:
        path = f"/v2/models/{name}/infer"
        asked = [Question(path, models.question(float(value), float(value) + 0.5)) for value in range(1, 1 + _VALUES)]
        return Service(self, name, name, right_answers(self.platform.inference_url, asked), digest)

    def _borrow_environment(self) -> None:
        """An environment that is the one of the tests themselves, for an empty lock file: nothing is installed."""
        lock = hashlib.sha256(b"").hexdigest()
        place = self.platform.places.environments / lock
        place.mkdir(parents=True, exist_ok=True)
        site = next(path for path in sys.path if path.endswith("site-packages"))
        record = Environment(python=base_interpreter(), site=site, builder="borrowed")
        (place / "environment.json").write_bytes(to_json(record))


def within(condition: Any, *, limit_s: float) -> float:
    """Seconds until `condition` held; the limit when it did not."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        if condition():
            return time.monotonic() - began
        time.sleep(0.05)
    return limit_s
