"""A folder of MLflow model directories: each directory with an `MLmodel` file is one version."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from modelyard.client.mlflow.registry import MLMODEL, MLMODEL_BYTES, RegisteredVersion, in_order, require_file_name
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, NotFound

_DEPTH: Final = 8
_ENTRIES: Final = 200_000


class ModelFolder:
    """A source on this machine. Links are not followed.

    A directory is named after itself. `name/1`, `name/2` are versions of `name`, and an `artifacts` directory (as
    `mlruns` and `mlartifacts` have them) counts as its parent; what is alike in name becomes versions in order of age.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InvalidRequest(f"{quote(root)} is no directory", hint="give a folder of models, or http://host:port")
        self.uri = str(root)
        self._root = root

    def close(self) -> None:
        """Nothing is held."""

    def versions(self) -> list[RegisteredVersion]:
        """All model directories below the root."""
        found: dict[str, list[tuple[float, Path]]] = {}
        for directory in self._directories():
            found.setdefault(self._name(directory), []).append(((directory / MLMODEL).stat().st_mtime, directory))
        numbered: list[RegisteredVersion] = []
        for name, places in found.items():
            for position, (_, directory) in enumerate(sorted(places), start=1):
                number = (
                    int(directory.name) if directory.name.isdecimal() and len(directory.name) < _DEPTH else position
                )
                run_id = _run_id(directory / MLMODEL)
                numbered.append(RegisteredVersion(name=name, version=number, location=str(directory), run_id=run_id))
        return in_order(numbered)

    def _directories(self) -> Iterator[Path]:
        waiting, seen = [(self._root, 0)], 0
        while waiting:
            directory, depth = waiting.pop()
            if (directory / MLMODEL).is_file() and not (directory / MLMODEL).is_symlink():
                yield directory
                continue
            for item in sorted(directory.iterdir()):
                seen += 1
                if seen > _ENTRIES:
                    raise InvalidRequest(f"{quote(self._root)} holds more than {_ENTRIES} entries")
                if depth < _DEPTH and item.is_dir() and not item.is_symlink():
                    waiting.append((item, depth + 1))

    def _name(self, directory: Path) -> str:
        while directory != self._root and (directory.name == "artifacts" or directory.name.isdecimal()):
            directory = directory.parent
        return directory.resolve().name

    def files(self, version: RegisteredVersion) -> dict[str, int]:
        """Plain files right in the directory."""
        place = Path(version.location)
        return {one.name: one.stat().st_size for one in place.iterdir() if one.is_file() and not one.is_symlink()}

    def fetch(self, version: RegisteredVersion, name: str, into: Path, *, limit: int) -> Path:
        """A copy of one file."""
        path = Path(version.location) / require_file_name(name)
        if path.is_symlink() or not path.is_file() or path.stat().st_size > limit:
            raise NotFound(f"{quote(name)} is no plain file of at most {limit} bytes")
        return Path(shutil.copyfile(path, into / name))


def _run_id(path: Path) -> str:
    """The run that wrote the model, from its top-level line in MLmodel."""
    with path.open("rb") as file:
        lines = file.read(MLMODEL_BYTES).decode("utf-8", "replace").splitlines()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("run_id:")]
    return found[0] if found and found[0].isalnum() else ""
