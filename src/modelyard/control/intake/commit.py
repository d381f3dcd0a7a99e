"""Keep what was accepted, so that a version is whole or not there, whenever the power goes.

The order is the promise. First every file goes into the artifact store and the package into its own directory, both
synced and renamed into place; nothing names them yet. Then one transaction makes the version visible together with its
history entry. What a crash leaves before that transaction is unnamed and is removed by `sweep` at the next start.
"""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from modelyard.control.catalog import StoredFile
from modelyard.control.intake.received import FULL, remove_tree
from modelyard.domain.digests import PREFIX
from modelyard.domain.errors.platform import StorageFull
from modelyard.foundation.places import Places
from modelyard.inspection import ReceivedFile
from modelyard.ports.artifact_store import ArtifactStore

_TEMPORARY: Final = ".new-"

Step = Callable[[str], None]
"""Called before each step of a commit with its name; tests end the process in it."""


def no_step(name: str) -> None:
    """Nothing happens between two steps."""
    del name


def store_files(
    artifacts: ArtifactStore, files: Mapping[str, str], *, received: Sequence[ReceivedFile], workdir: Path
) -> dict[str, StoredFile]:
    """Put every file of the bundle (name → hex SHA-256) into the store and say what was stored.

    Members of an archive lie somewhere in `workdir`; they are found by their content.
    """
    places = {file.sha256: file.path for file in received}
    if not set(files.values()) <= places.keys():
        places |= _by_digest(workdir)
    stored: dict[str, StoredFile] = {}
    for name, sha256 in files.items():
        path = places[sha256]
        artifacts.put(path, sha256)
        stored[name] = StoredFile(sha256=sha256, size_bytes=path.stat().st_size)
    return stored


def package_path(places: Places, digest: str) -> Path:
    """Where the package of a bundle digest lies."""
    return places.packages / digest.removeprefix(PREFIX)


def place_package(package: Path, digest: str, *, places: Places) -> None:
    """Move a serving package to `packages/<hex>`, synced; one that is there already stays as it is."""
    target = package_path(places, digest)
    if target.exists():
        return
    temporary = places.packages / f"{_TEMPORARY}{secrets.token_hex(8)}"
    try:
        _bring(package, temporary)
        _sync_tree(temporary)
        _rename_once(temporary, target)
        _sync(places.packages)
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull("there is no room for the package", hint="free space in the data directory") from error
        raise
    finally:
        remove_tree(temporary)


def sweep(places: Places, artifacts: ArtifactStore, *, digests: Collection[str], blobs: Collection[str]) -> list[str]:
    """Remove packages and blobs that no version names; returns what was removed. Only before uploads are taken.

    `digests` are those of the bundles that have a package, `blobs` those of the files of all versions, in hex.
    """
    removed: list[str] = []
    wanted = frozenset(digests)
    for place in list(places.packages.iterdir()):
        if place.name not in wanted:
            remove_tree(place)
            removed.append(f"package {place.name}")
    for blob in list(artifacts.digests()):
        if blob not in blobs:
            artifacts.delete(blob)
            removed.append(f"artifact {blob}")
    return removed


def _bring(package: Path, temporary: Path) -> None:
    try:
        package.rename(temporary)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(package, temporary)  # packages lie on another file system than what arrives


def _rename_once(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.exists():  # another upload of the same files placed it first
            raise


def _by_digest(directory: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                with path.open("rb") as stream:
                    found.setdefault(hashlib.file_digest(stream, "sha256").hexdigest(), path)
    return found


def _sync_tree(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
