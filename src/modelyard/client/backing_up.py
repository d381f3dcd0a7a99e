"""Save a backup: the archive as it comes, in a file of its own that appears whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import BackupDamaged, Conflict, StorageFull
from modelyard.foundation.durable import sync
from modelyard.foundation.sealed_tar import LAST_LINE_BYTES, sealed_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was saved: where, how large, its digest, and what it says it holds."""

    path: Path
    size_bytes: int
    sha256: str
    summary: Mapping[str, Any]


class BackupFile:
    """Takes the archive's bytes in order. A context manager: what was not finished leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise Conflict(f"{quote(path)} is there already", hint="name another file; a backup is never overwritten")
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._partial.unlink(missing_ok=True)
        self._fd = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._tail = b""
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            with suppress(FileNotFoundError):
                self._partial.unlink()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        held = self._tail + data
        ready, self._tail = held[:-LAST_LINE_BYTES], held[-LAST_LINE_BYTES:]
        self._hash.update(ready)
        self._put(data)

    def finish(self, summary: str) -> Backup:
        """The archive is complete; `summary` is the JSON that it came with.

        Raises:
            BackupDamaged: it is not whole, or was given up; the text says why.
        """
        digest = sealed_digest(self._tail)
        if digest != self._hash.hexdigest():
            raise BackupDamaged("the backup was altered on its way", hint="make it again")
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._partial.rename(self._path)
        sync(self._path.parent)
        return Backup(path=self._path, size_bytes=self._size, sha256=digest, summary=json.loads(summary or "{}"))

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise StorageFull(
                f"{quote(self._path)} cannot be written: {error.strerror}", hint="free space there, or name another"
            ) from error
        self._size += len(data)
