"""Artifact stores: immutable bytes addressed by their SHA-256."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol


class ArtifactStore(Protocol):
    """Keeps blobs by hex SHA-256. Durable before `put` returns; putting twice is one blob; a blob never changes.

    Reading checks the digest: damage is an error, never wrong bytes. Unknown digests raise `NotFound`; a full disk
    raises `StorageFull` and leaves nothing behind.
    """

    def put(self, source: Path, sha256: str) -> None:
        """Take the bytes of `source`, whose digest the caller has computed; it is checked again."""

    def open(self, sha256: str) -> BinaryIO:
        """The bytes, for reading."""

    def fetch(self, sha256: str, destination: Path) -> None:
        """Place the bytes at `destination`, whole or not at all; may link instead of copying."""

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""

    def delete(self, sha256: str) -> None:
        """Forget the blob; nothing happens when it is not there."""

    def digests(self) -> Iterator[str]:
        """All digests, in no order."""
