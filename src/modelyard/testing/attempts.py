"""A place in which a job's code runs without its worker: the port's contract over plain directories."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from modelyard.domain.errors.platform import NotFound
from modelyard.ports.job_runner import JobContext, ServiceAddress


class RecordedAttempt(JobContext):
    """See `JobContext`; what it was told is kept for the test to look at.

    `reports` holds what was reported, `offered` each candidate with its bytes (a directory: none) as `data`, `kept` the
    path of each file by its name.
    """

    def __init__(  # noqa: PLR0913  (what an attempt is made of)
        self,
        root: Path,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        kind: str,
        seed: int = 0,
        attempt: int = 1,
        address: ServiceAddress | None = None,
    ) -> None:
        self._inputs, self._address = inputs, address
        self._parameters, self._kind, self._seed, self._attempt = parameters, kind, seed, attempt
        self._directory, self._checkpoint = root / "scratch", root / "checkpoint"
        self._directory.mkdir(parents=True)
        self._checkpoint.mkdir(exist_ok=True)
        self.cancelled = False
        self.reports: list[SimpleNamespace] = []
        self.offered: list[SimpleNamespace] = []
        self.kept: dict[str, Path] = {}

    @property
    def id(self) -> str:
        """One id."""
        return "j"

    @property
    def kind(self) -> str:
        """As given."""
        return self._kind

    @property
    def parameters(self) -> Mapping[str, Any]:
        """As given."""
        return self._parameters

    @property
    def directory(self) -> Path:
        """Below the root."""
        return self._directory

    @property
    def seed(self) -> int:
        """As given."""
        return self._seed

    @property
    def attempt(self) -> int:
        """As given."""
        return self._attempt

    def input(self, name: str) -> Path:
        """As given."""
        if name not in self._inputs:
            raise NotFound(name)
        return self._inputs[name]

    def service(self) -> ServiceAddress:
        """As given."""
        if self._address is None:
            raise NotFound("the job asks no service")
        return self._address

    def report(self, *, done: float | None, text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Kept."""
        self.reports.append(SimpleNamespace(done=done, text=text, metrics=dict(metrics or {})))

    def keep(self, name: str, path: Path) -> None:
        """Kept."""
        assert name not in self.kept, f"{name} is kept already"
        self.kept[name] = path

    def checkpoint(self) -> Path:
        """Below the root."""
        return self._checkpoint

    def candidate(
        self,
        path: Path,
        *,
        name: str,
        labels: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        parent: str | None,
    ) -> None:
        """Kept, with the bytes as they are now."""
        data = path.read_bytes() if path.is_file() else b""
        self.offered.append(
            SimpleNamespace(path=path, data=data, name=name, labels=labels, config=config, parent=parent)
        )

    def is_cancelled(self) -> bool:
        """As `cancelled` says."""
        return self.cancelled
