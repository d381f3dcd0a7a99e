"""What a server under test has to tell: how it is prepared and started, and at which address a model answers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[3]
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server may write, where the models lie, and the port that it shall listen on."""

    directory: Path
    models: Path
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A command with what it needs. `headers` go with every request."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Peer(Protocol):
    """One kind of server."""

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """What it can serve at once; the first one is asked for the start time."""
        ...

    @property
    def has_binary(self) -> bool:
        """Whether it reads and writes the binary tensor extension."""
        ...

    @property
    def style(self) -> str:
        """`v2`: bodies and answers of the Open Inference Protocol; `mlflow`: inputs and predictions; `echo`."""
        ...

    def launch(self, place: Place) -> Launch:
        """Prepare it in `place`."""
        ...

    def path(self, model: str) -> str:
        """Where `model` answers."""
        ...


def python(name: str) -> str:
    """The interpreter of a peer's own environment."""
    return str(ROOT / ".envs" / "peers" / name / "bin" / "python")


def environment(place: Place) -> dict[str, str]:
    """Variables for the programs of the peers."""
    return {
        "MODELS": str(place.models),
        "PORT": str(place.port),
        "PYTHONPATH": str(PROGRAMS),
        "OMP_NUM_THREADS": "1",
        "HOME": str(place.directory),
        "PATH": os.environ.get("PATH", ""),
        "NO_PROXY": "*",
    }
