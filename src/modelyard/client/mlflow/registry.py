"""What a source of MLflow models gives: versions with where they came from, and their files. Without mlflow."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import NotFound

FILE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
MLMODEL: Final = "MLmodel"
MLMODEL_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """One version as the source keeps it. `location` is for the source alone; "" when it cannot be reached."""

    name: str
    version: int
    location: str
    status: str = "READY"
    run_id: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


class Source(Protocol):
    """A registry or a folder of models."""

    uri: str

    def versions(self) -> Iterable[RegisteredVersion]:
        """All versions, by name, oldest first."""

    def files(self, version: RegisteredVersion) -> Mapping[str, int]:
        """Names and sizes of the files right in the model's directory; `NotFound` where it cannot be reached."""

    def fetch(self, version: RegisteredVersion, name: str, into: Path, *, limit: int) -> Path:
        """The file as `into/name`; `NotFound` when it is gone or longer than `limit` bytes."""

    def close(self) -> None:
        """Let go of connections."""


def require_file_name(name: str) -> str:
    """A plain file name; a source may be hostile, and names become paths here."""
    if not FILE_NAME.fullmatch(name) or name in {".", ".."}:
        raise NotFound(f"{quote(name)} is no file name that is taken over")
    return name


def in_order(versions: Sequence[RegisteredVersion]) -> list[RegisteredVersion]:
    """By name, oldest version first, so that version numbers keep their order."""
    return sorted(versions, key=lambda one: (one.name, one.version))
