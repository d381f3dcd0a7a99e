"""A real control plane as its own process: real SQLite, real HTTP, ended to the last process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

DEADLINE_S = 60.0


def eventually(claim: Callable[[], object], *, within_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


@dataclass
class Control:
    """Starts and ends one control plane on one data directory."""

    data: Path
    options: dict[str, object] = field(default_factory=dict)
    module: str = "modelyard.processes.control_plane"
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    def start(self) -> "Control":
        self.data.mkdir(parents=True, exist_ok=True)
        address = self.data / "address"
        address.unlink(missing_ok=True)
        config = self.data / "config.json"
        given = {"data": str(self.data), "port": 0, "address_file": str(address), **self.options}
        config.write_text(json.dumps(given))
        with (self.data / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "--config", str(config)],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        eventually(lambda: address.exists() or self._dead())
        self.url = "http://" + address.read_text().split()[0]
        return self

    def _dead(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError((self.data / "log").read_text())
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    @property
    def internal_socket(self) -> Path:
        from modelyard.foundation.places import Places

        return Places(self.data).control_socket

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url + "/api/v1", timeout=60, trust_env=False, **options)  # type: ignore[arg-type]

    def left_over(self) -> list[str]:
        """Files that no version names: everything received, and every package and blob."""
        places = [self.data / "incoming", self.data / "packages", self.data / "artifacts"]
        return [str(path.relative_to(self.data)) for place in places for path in place.rglob("*") if path.is_file()]
