"""From a path that a person typed to the files that the inspection receives."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.names import suggest_name
from modelyard.inspection import ReceivedFile
from modelyard.inspection.companions import with_companions

_CHUNK_BYTES: Final = 1 << 20
_ENDINGS: Final = (".tar.gz", ".tgz")


def received_files(path: Path) -> list[ReceivedFile]:
    """The file, or the files of the directory, with their digests.

    Raises:
        InvalidRequest: nothing is there, nothing is in it, or it holds something that is not a plain file.
    """
    if not path.exists():
        raise InvalidRequest(
            f"there is no {quote(path)}", hint="give the path of a model file, a directory or an archive"
        )
    found = list(_files(path))
    if not found:
        raise InvalidRequest(f"the directory {quote(path)} holds no files", hint="give the directory of a model bundle")
    return [_receive(file, name) for file, name in found]


def name_of(path: Path) -> str:
    """The service name that follows from a path: its stem, made valid."""
    text = path.resolve().name
    for ending in _ENDINGS:
        if text.endswith(ending):
            return suggest_name(text.removesuffix(ending))
    return suggest_name(text if path.is_dir() else Path(text).stem)


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield from ((file, file.name) for file in with_companions(path))
        return
    for entry in sorted(os.scandir(path), key=lambda item: item.name):
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if not entry.is_file():
            raise InvalidRequest(
                f"{quote(entry.name)} in {quote(path)} is not a plain file",
                hint="a bundle is a flat directory: move its files to the top, or serve the one file that matters",
            )
        yield Path(entry.path), entry.name


def _receive(path: Path, name: str) -> ReceivedFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return ReceivedFile(name=name, path=path, size=size, sha256=digest.hexdigest())
