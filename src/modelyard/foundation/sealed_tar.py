"""Sealed tar archives, in which backups are written: any `tar` lists them, and damage shows before they are believed.

Behind the two empty blocks that end a tar archive stands one line of fixed length: the seal with the SHA-256 of
everything before it, or, where the archive could not be finished, the reason. So a file that is cut off, altered or
given up is told from a whole one. Written and read as a stream; nothing of it is held in memory.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import BackupDamaged

LAST_LINE_BYTES: Final = 512
_SEAL: Final = re.compile(rb"modelyard backup sealed sha256 ([0-9a-f]{64}) *\n")
_GIVEN_UP: Final = re.compile(rb"modelyard backup given up: (.*?) *\n", re.DOTALL)
_CHUNK: Final = 1 << 20
BLOCK: Final = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive that is to be written: from memory, or from a stream that is closed afterwards."""

    name: str
    size: int
    content: bytes | IO[bytes]
    mode: int = 0o600


class SealedTarWriter:
    """Turns members into the bytes of an archive. `size` and `digest` are of what was given out so far.

    `given_up` is true once a member could not be read.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0
        self.given_up = False

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all bytes given out."""
        return self._hash.hexdigest()

    def blocks(self, members: Iterable[Member]) -> Iterator[bytes]:
        """The whole archive. An error of ours while a member is read ends it with the reason instead of the seal."""
        try:
            for member in members:
                yield from map(self._count, _member_blocks(member))
        except ModelyardError as error:
            self.given_up = True
            yield self._count(_last_line(f"modelyard backup given up: {error.detail}"))
            return
        yield self._count(b"\0" * 2 * BLOCK)
        yield self._count(_last_line(f"modelyard backup sealed sha256 {self.digest}"))

    def _count(self, block: bytes) -> bytes:
        self._hash.update(block)
        self.size += len(block)
        return block


def _last_line(text: str) -> bytes:
    line = text.encode("ascii", "replace")[: LAST_LINE_BYTES - 1].replace(b"\n", b" ")
    return line.ljust(LAST_LINE_BYTES - 1) + b"\n"


def _member_blocks(member: Member) -> Iterator[bytes]:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode = member.size, member.mode
    yield info.tobuf(tarfile.PAX_FORMAT)
    if isinstance(member.content, bytes):
        yield member.content
    else:
        left = member.size
        with member.content as stream:
            while left and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
        if left:
            raise BackupDamaged(f"{member.name} became shorter while it was read", hint="make the backup again")
    yield b"\0" * (-member.size % BLOCK)


def check_seal(stream: IO[bytes], *, first: str) -> str:
    """Read the whole file and give the digest that its seal confirms; the stream stands at its beginning afterwards.

    `first` is the name of the first member, by which such an archive is known.

    Raises:
        BackupDamaged: it is none, is cut off, was altered, or was given up; the text says which.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if not stream.read(BLOCK).startswith(first.encode() + b"\0"):
        raise BackupDamaged("this is not a backup of Modelyard", hint="`modelyard backup FILE` makes one")
    stream.seek(max(0, size - LAST_LINE_BYTES))
    sealed = sealed_digest(stream.read())
    if _digest_of(stream, size - LAST_LINE_BYTES) != sealed:
        raise BackupDamaged("the file was altered: its bytes are not those that were sealed", hint="copy it again")
    stream.seek(0)
    return sealed


def sealed_digest(last_line: bytes) -> str:
    """The digest in the last line of an archive.

    Raises:
        BackupDamaged: the line says that the archive was given up, or is not there.
    """
    given_up = _GIVEN_UP.fullmatch(last_line)
    if given_up is not None:
        reason = given_up[1].decode("ascii", "replace")
        raise BackupDamaged(f"the backup was given up while it was made: {reason}", hint="mend that, then make it anew")
    sealed = _SEAL.fullmatch(last_line)
    if sealed is None:
        raise BackupDamaged("the file ends before the backup does: it is cut off", hint="copy or make it again")
    return sealed[1].decode()


def _digest_of(stream: IO[bytes], size: int) -> str:
    stream.seek(0)
    digest = hashlib.sha256()
    while size and (chunk := stream.read(min(_CHUNK, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def unpack(stream: IO[bytes], directory: Path, *, members: re.Pattern[str]) -> None:
    """Write every member below `directory`, new files only, private to this user. To be called after `check_seal`.

    Raises:
        BackupDamaged: a member whose name `members` does not match.
    """
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for info in archive:
            if not info.isreg() or not members.fullmatch(info.name):
                raise BackupDamaged("the backup holds a file that does not belong into one", hint="use another backup")
            source = archive.extractfile(info)
            assert source is not None
            for folder in reversed(Path(info.name).parents[:-1]):
                (directory / folder).mkdir(exist_ok=True, mode=0o700)
            _write(source, directory / info.name, mode=info.mode & 0o700)


def _write(source: IO[bytes], path: Path, *, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode or 0o600)
    with os.fdopen(fd, "wb") as out:
        while chunk := source.read(_CHUNK):
            out.write(chunk)
        out.flush()
        os.fsync(fd)
