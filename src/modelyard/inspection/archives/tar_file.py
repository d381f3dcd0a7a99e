"""A tar file (POSIX ustar, PAX with harmless keys only, GNU without extensions) of a flat bundle, also gzip-packed."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ArchiveBomb, ArchiveInvalid, ArchiveUnsafe
from modelyard.inspection.archives.members import CHUNK, HINT, Extracted, require_flat, write_member
from modelyard.inspection.octets import Octets, mapped
from modelyard.inspection.policy import MIB, InspectionPolicy, ReceivedFile

_BLOCK: Final = 512
_FILE, _DIRECTORY, _PAX, _PAX_GLOBAL = b"0\x00", b"5", b"x", b"g"
_PAX_BYTES: Final = 64 * 1024
_PAX_HARMLESS: Final = frozenset({"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset"})
_PAX_VENDORS: Final = ("LIBARCHIVE.", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink")
_SPECIAL_MODES: Final = 0o7000
_SIGNED: Final = 0x80
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    kind: bytes
    size: int
    mode: int


def extract_tar(archive: ReceivedFile, into: Path, policy: InspectionPolicy) -> Sequence[Extracted]:
    """All members, their files written to `into`. `.tar.gz` is unpacked to a private file first, within limits."""
    with archive.path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
    if packed is archive.name.lower().endswith(".tar"):
        raise ArchiveInvalid("the file is not packed as its name says", hint="name it .tar or .tar.gz after what it is")
    path = archive.path
    if packed:
        path = into / "archive.tar"
        _gunzip(archive, path, policy)
    with mapped(path) as data:
        members = list(_members(data, into, policy))
    if packed:
        path.unlink()
    return members


def _members(data: Octets, into: Path, policy: InspectionPolicy) -> Iterator[Extracted]:
    pos = count = 0
    while True:
        block = data[pos : pos + _BLOCK]
        if len(block) < _BLOCK:
            raise ArchiveInvalid("the tar file ends without its end mark", hint="it is cut short: upload it again")
        if not any(block):
            _require_end(data, pos)
            return
        count += 1
        if count > 2 * policy.archive_members:
            raise ArchiveBomb(f"more than {policy.archive_members} members")
        header = _header(block)
        start, pos = pos + _BLOCK, pos + _BLOCK + -(-header.size // _BLOCK) * _BLOCK
        if start + header.size > len(data):
            raise ArchiveInvalid(f"member {quote(header.name)} is longer than the file")
        if header.kind in (_PAX, _PAX_GLOBAL):
            _require_harmless(data, start, header.size)
            continue
        yield _extract(data, header, start, into / f"m{count:03d}")


def _extract(data: Octets, header: _Header, start: int, place: Path) -> Extracted:
    require_flat(header.name)
    if header.mode & _SPECIAL_MODES:
        raise ArchiveUnsafe(f"member {quote(header.name)} has the setuid, setgid or sticky mode", hint=HINT)
    if header.kind == _DIRECTORY:
        if header.size or "/" in header.name.rstrip("/"):
            raise ArchiveUnsafe(f"member {quote(header.name)} is a folder in a folder", hint=HINT)
        return Extracted(header.name.rstrip("/"), is_directory=True)
    if header.kind not in _FILE:
        raise ArchiveUnsafe(f"member {quote(header.name)} is a link, a device or of an unknown kind", hint=HINT)
    end = start + header.size
    chunks = (data[pos : min(pos + CHUNK, end)] for pos in range(start, end, CHUNK))
    return Extracted(header.name, file=write_member(chunks, place, name=header.name, size=header.size))


def _header(block: bytes) -> _Header:
    stated = _number(block[148:156], "checksum")
    if stated != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise ArchiveInvalid("a tar header is damaged (checksum)")
    try:
        name = block[:100].split(b"\0")[0].decode("utf-8")
        prefix = block[345:500].split(b"\0")[0].decode("utf-8") if block[257:263] == b"ustar\0" else ""
    except UnicodeDecodeError as error:
        raise ArchiveInvalid("a member's name is not text") from error
    name = f"{prefix}/{name}" if prefix else name
    return _Header(name, block[156:157], _number(block[124:136], "size"), _number(block[100:108], "mode"))


def _number(field: bytes, what: str) -> int:
    """An octal field; the binary form is taken when it is not negative (CVE-2025-8194)."""
    if field[0] & _SIGNED:
        if field[0] != _SIGNED:
            raise ArchiveInvalid(f"a tar header has a negative {what}")
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise ArchiveInvalid(f"a tar header has no valid {what}")
    return int(text, 8)


def _require_harmless(data: Octets, start: int, size: int) -> None:
    """PAX records may say when and by whom, never where, how long or how (POSIX.1-2001 "pax Extended Header")."""
    if size > _PAX_BYTES:
        raise ArchiveBomb(f"a PAX header has {size} bytes, at most {_PAX_BYTES} are read")
    records = data[start : start + size]
    while records:
        length, _, rest = records.partition(b" ")
        if not length.isdigit() or len(length) > 6 or not 0 < int(length) <= len(records):  # noqa: PLR2004
            raise ArchiveInvalid("a PAX header is damaged")
        key = rest.partition(b"=")[0].decode("utf-8", "replace")
        if key not in _PAX_HARMLESS and not key.startswith(_PAX_VENDORS):
            raise ArchiveUnsafe(
                f"a PAX header sets {quote(key)}",
                hint="pack with `tar --format=ustar`; names stay under 100 characters",
            )
        records = records[int(length) :]


def _require_end(data: Octets, pos: int) -> None:
    if len(data) - pos < 2 * _BLOCK or len(data) - pos > MIB or any(data[pos:]):
        raise ArchiveInvalid("there are bytes after the end of the tar file")


def _gunzip(archive: ReceivedFile, place: Path, policy: InspectionPolicy) -> None:
    limit = min(policy.bundle_bytes + MIB, max(policy.archive_ratio * archive.size, MIB))
    with archive.path.open("rb") as stream, place.open("xb") as out:
        unpack = zlib.decompressobj(_GZIP_WINDOW)
        written = 0
        try:
            while not unpack.eof:
                pending = unpack.unconsumed_tail or stream.read(CHUNK)
                if not pending:
                    raise ArchiveInvalid("the gzip stream is cut short")
                written += out.write(unpack.decompress(pending, CHUNK))
                if written > limit:
                    raise ArchiveBomb(f"{archive.size} bytes expand to more than {limit}")
        except zlib.error as error:
            raise ArchiveInvalid("the gzip stream is damaged") from error
        if unpack.unused_data or stream.read(1):
            raise ArchiveInvalid("there are bytes after the gzip stream")
