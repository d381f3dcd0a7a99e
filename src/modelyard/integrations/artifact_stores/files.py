"""Artifacts as plain files: one file a blob, named by its SHA-256, in a directory of the data folder.

Promises: a blob is whole or absent. It is written to a private temporary file (created exclusively, never through a
link) on the same file system, hashed while it is written, synced, renamed into place, and the directory is synced,
before `put` returns. A blob is read-only and is hashed again before its bytes are given out, so damage is an error and
never a wrong answer. What a crash leaves in `.incoming` is removed when the store is opened.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from modelyard.domain.errors.platform import ArtifactDamaged, InvalidRequest, NotFound, StorageFull

_CHUNK: Final = 1 << 20
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_INCOMING: Final = ".incoming"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileArtifactStore:
    """An `ArtifactStore` below `root`. One process opens a root; its threads may call at the same time.

    A source that is sealed (a regular file of ours without write permission, with one name, on the same file system)
    is linked instead of copied: that saves writing a model of gigabytes a second time. Any other source is copied.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._incoming.iterdir():
            left.unlink()

    def put(self, source: Path, sha256: str) -> None:
        """Take the bytes of `source`; `ArtifactDamaged` when they are not those of `sha256`."""
        place = self._place(sha256)
        if place.exists():
            return
        temporary = self._incoming / secrets.token_hex(16)
        try:
            found = self._take(source, temporary)
            if found != sha256:
                raise ArtifactDamaged(
                    f"the bytes to be stored have the digest {found[:12]}…, not {sha256[:12]}…",
                    hint="they changed on the way; send them again",
                )
            place.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.rename(place)
            sync_directory(place.parent)
            sync_directory(self._root)
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFull(
                    "there is no room to store the artifact", hint="free space in the data directory, then try again"
                ) from error
            raise
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def open(self, sha256: str) -> BinaryIO:
        """The bytes, after they were hashed once more."""
        stream = self._stream(sha256)
        try:
            self._check(stream, sha256)
        except BaseException:
            stream.close()
            raise
        return stream

    def fetch(self, sha256: str, destination: Path) -> None:
        """Copy the bytes to `destination`, checked on the way; it appears whole or not at all."""
        temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(8)}")
        with self._stream(sha256) as stream:
            try:
                self._compare(_copy(stream, temporary, mode=0o600), sha256)
                temporary.rename(destination)
                sync_directory(destination.parent)
            except OSError as error:
                if error.errno in _FULL:
                    raise StorageFull(
                        "there is no room to fetch the artifact", hint="free space, then try again"
                    ) from error
                raise
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self._place(sha256).exists()

    def delete(self, sha256: str) -> None:
        """Forget the blob."""
        place = self._place(sha256)
        with suppress(FileNotFoundError):
            place.unlink()
            sync_directory(place.parent)

    def digests(self) -> Iterator[str]:
        """All digests."""
        for folder in self._root.iterdir():
            if folder.name != _INCOMING and folder.is_dir():
                yield from (blob.name for blob in folder.iterdir() if _HEX.fullmatch(blob.name))

    def _place(self, sha256: str) -> Path:
        if not _HEX.fullmatch(sha256):
            raise InvalidRequest("an artifact is named by the 64 hexadecimal digits of its SHA-256")
        return self._root / sha256[:2] / sha256

    def _stream(self, sha256: str) -> BufferedReader:
        try:
            fd = os.open(self._place(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"no artifact with the digest {sha256[:12]}… is stored") from error
        return os.fdopen(fd, "rb")

    def _check(self, stream: BufferedReader, sha256: str) -> None:
        self._compare(hashlib.file_digest(stream, "sha256").hexdigest(), sha256)
        stream.seek(0)

    @staticmethod
    def _compare(found: str, sha256: str) -> None:
        if found != sha256:
            raise ArtifactDamaged(
                f"the stored artifact {sha256[:12]}… is damaged: its bytes have another digest",
                hint="restore it from a backup, or upload the same files again after deleting it",
            )

    def _take(self, source: Path, temporary: Path) -> str:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            if _link_sealed(source, stream.fileno(), temporary):
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
                return digest
            return _copy(stream, temporary, mode=0o400)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link_sealed(source: Path, fd: int, temporary: Path) -> bool:
    """Give a sealed file a second name; False when it is not sealed or cannot be linked."""
    facts = os.fstat(fd)
    sealed = stat.S_ISREG(facts.st_mode) and not facts.st_mode & 0o222 and facts.st_nlink == 1
    if not sealed or facts.st_uid != os.geteuid():
        return False
    try:
        os.link(source, temporary, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        return False
    if os.path.samestat(facts, temporary.lstat()):
        return True
    temporary.unlink()  # the name was given to another file meanwhile
    return False


def _copy(stream: BinaryIO, temporary: Path, *, mode: int) -> str:
    digest = hashlib.sha256()
    fd = os.open(temporary, _NEW, mode)
    with os.fdopen(fd, "wb", buffering=0) as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[out.write(view) :]
        os.fsync(out.fileno())
    return digest.hexdigest()
