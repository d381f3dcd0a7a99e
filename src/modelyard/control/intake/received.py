"""Files as they arrive: written under names of ours to a private directory, hashed on the way, never held in memory."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.control.intake.limits import UploadLimits
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.edge import BodyTooLarge
from modelyard.domain.errors.platform import StorageFull
from modelyard.domain.errors.uploads import FileTooLarge, TooManyFiles
from modelyard.inspection import ReceivedFile

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Reserve = Callable[[int], None]
"""Asks for room for so many bytes more; raises `QuotaExceeded` or `StorageFull`."""


class FileWriter:
    """One file on its way to the disk."""

    def __init__(self, path: Path, name: str, *, limit: int) -> None:
        self.name = name
        self.size = 0
        self._limit = limit
        self._path = path
        self._digest = hashlib.sha256()
        self._fd = os.open(path, _NEW, 0o600)

    def write(self, data: memoryview) -> None:
        """Append `data`."""
        self.size += len(data)
        if self.size > self._limit:
            raise FileTooLarge(
                f"{quote(self.name)} is larger than the {self._limit} bytes that a file of this kind may have",
                hint="make it smaller, or ask the operator to raise the limit",
                details=[{"file": quote(self.name), "expected": self._limit}],
            )
        self._digest.update(data)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError as error:
                if error.errno in FULL:
                    raise StorageFull(
                        "the upload does not fit on the disk", hint="free space in the data directory, then try again"
                    ) from error
                raise

    def finish(self) -> ReceivedFile:
        """Seal the file: nobody writes to it any more."""
        os.fchmod(self._fd, 0o400)
        self.close()
        return ReceivedFile(name=self.name, path=self._path, size=self.size, sha256=self._digest.hexdigest())

    def close(self) -> None:
        """Let go of the descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(slots=True)
class ReceivedUpload:
    """What one upload has brought so far."""

    directory: Path
    limits: UploadLimits
    reserve: Reserve
    files: list[ReceivedFile]
    total: int = 0
    parts: int = 0

    @classmethod
    def create(cls, directory: Path, *, limits: UploadLimits, reserve: Reserve) -> "ReceivedUpload":
        """Make the private directory for it."""
        directory.mkdir(mode=0o700, parents=False)
        return cls(directory=directory, limits=limits, reserve=reserve, files=[])

    def count_part(self) -> None:
        """One part more, or `TooManyFiles`."""
        self.parts += 1
        if self.parts > self.limits.files:
            raise TooManyFiles(
                f"an upload may have {self.limits.files} files",
                hint="pack what belongs together, and leave out what the model does not need",
            )

    def count_bytes(self, more: int) -> None:
        """`more` bytes of content arrived; `BodyTooLarge` or what `reserve` raises."""
        self.total += more
        if self.total > self.limits.total_bytes:
            raise BodyTooLarge(
                f"the upload is larger than {self.limits.total_bytes} bytes",
                hint="make the model smaller, or ask the operator to raise the limit",
            )
        self.reserve(self.total)

    def begin(self, name: str) -> FileWriter:
        """A file of this client name, under a name of ours."""
        return FileWriter(self.directory / f"{self.parts:04d}", name, limit=self.limits.bytes_for(name))

    def remove(self) -> None:
        """Leave nothing. Idempotent."""
        remove_tree(self.directory)


def remove_tree(directory: Path) -> None:
    """Remove a directory of ours with all that is in it, also what was made read-only."""
    with suppress(FileNotFoundError):
        for folder, _, _ in os.walk(directory):
            os.chmod(folder, 0o700)  # noqa: PTH101  (walk gives strings, and there may be thousands)
        shutil.rmtree(directory)
