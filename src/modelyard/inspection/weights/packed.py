"""Compressed pickles, as `joblib.dump(..., compress=…)` writes them, unpacked to a private file within bounds."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from modelyard.domain.errors.uploads import ArchiveBomb, WeightsFormat
from modelyard.inspection.policy import MIB, InspectionPolicy

_CHUNK: Final = MIB
_LZMA_MEMORY: Final = 128 * MIB
_FLOOR: Final = 64 * MIB
_LZ4: Final = b"\x04\x22\x4d\x18"


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Zlib:
    """zlib and gzip behind the interface of the other two."""

    def __init__(self, window: int) -> None:
        self._inner = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail


_PACKINGS: Final[tuple[tuple[bytes, str, Callable[[], _Unpacker]], ...]] = (
    (b"\x1f\x8b", "gzip", lambda: _Zlib(16 + zlib.MAX_WBITS)),
    (b"BZh", "bz2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY)),
    (b"\x5d\x00\x00", "lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY)),
    (b"\x78\x01", "zlib", lambda: _Zlib(zlib.MAX_WBITS)),
    (b"\x78\x5e", "zlib", lambda: _Zlib(zlib.MAX_WBITS)),
    (b"\x78\x9c", "zlib", lambda: _Zlib(zlib.MAX_WBITS)),
    (b"\x78\xda", "zlib", lambda: _Zlib(zlib.MAX_WBITS)),
)


def unpack_pickle(path: Path, place: Path, policy: InspectionPolicy) -> str | None:
    """The packing that `path` has, its content then in the new file `place`; None when it is not packed.

    Raises:
        WeightsFormat: damaged, several streams, or a packing that is not read.
        ArchiveBomb: it expands beyond `pickle_expanded_bytes` or `archive_ratio`.
    """
    with path.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(_LZ4):
        raise WeightsFormat("lz4 packing is not read", hint="use joblib.dump(model, path, compress=3)")
    for mark, name, make in _PACKINGS:
        if head.startswith(mark):
            _unpack(path, place, make(), policy)
            return name
    return None


def _unpack(path: Path, place: Path, unpacker: _Unpacker, policy: InspectionPolicy) -> None:
    size = path.stat().st_size
    limit = min(policy.pickle_expanded_bytes, max(policy.archive_ratio * size, _FLOOR))
    written = 0
    with path.open("rb") as stream, place.open("xb") as out:
        try:
            while not unpacker.eof:
                data = stream.read(_CHUNK) if unpacker.needs_input else b""
                if not data and unpacker.needs_input:
                    raise WeightsFormat("the packed stream is cut short")
                written += out.write(unpacker.decompress(data, _CHUNK))
                if written > limit:
                    raise ArchiveBomb(f"{size} packed bytes expand to more than {limit}")
            if unpacker.unused_data or stream.read(1):
                raise WeightsFormat("bytes follow the packed stream")
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise WeightsFormat("the packed stream is damaged") from error
