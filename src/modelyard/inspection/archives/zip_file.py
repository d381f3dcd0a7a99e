"""A zip file of a flat bundle, taken apart member by member as streams; also one member read into memory, bounded."""

import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ArchiveBomb, ArchiveInvalid, ArchiveUnsafe
from modelyard.inspection.archives.members import CHUNK, HINT, Extracted, require_flat, write_member
from modelyard.inspection.archives.zip_directory import DEFLATED, ZipMember, read_directory
from modelyard.inspection.octets import Octets, mapped
from modelyard.inspection.policy import MIB, InspectionPolicy, ReceivedFile


def extract_zip(archive: ReceivedFile, into: Path, policy: InspectionPolicy) -> Sequence[Extracted]:
    """All members, their files written to `into`; what is wrong is found before the first byte is unpacked."""
    with mapped(archive.path) as data:
        members = read_directory(data, max_members=policy.archive_members)
        require_bounded(members, policy)
        for member in members:
            _require_plain(member)
        return [_extract(data, member, into / f"m{index:03d}") for index, member in enumerate(members)]


def require_bounded(members: Sequence[ZipMember], policy: InspectionPolicy) -> None:
    """Refuse a total beyond the bundle limit, or a member that grows more than `archive_ratio` times."""
    total = sum(member.size for member in members)
    if total > policy.bundle_bytes:
        raise ArchiveBomb(f"the members expand to {total} bytes, at most {policy.bundle_bytes} are accepted")
    for member in members:
        if member.size > MIB and member.size > policy.archive_ratio * max(member.packed, 1):
            raise ArchiveBomb(
                f"member {quote(member.name)} grows from {member.packed} to {member.size} bytes, "
                f"more than {policy.archive_ratio} times"
            )


def unpacked(data: Octets, member: ZipMember) -> Iterator[bytes]:
    """The bytes of a member in chunks; never more than it states, and its CRC-32 must fit."""
    crc, size = 0, 0
    for chunk in _chunks(data, member):
        size += len(chunk)
        if size > member.size:
            raise ArchiveBomb(f"member {quote(member.name)} expands to more than the {member.size} bytes it states")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != member.size or crc != member.crc:
        raise ArchiveInvalid(f"member {quote(member.name)} is damaged (size or CRC-32)")


def _require_plain(member: ZipMember) -> None:
    require_flat(member.name)
    kind = stat.S_IFMT(member.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveUnsafe(f"member {quote(member.name)} is a link or a device", hint=HINT)
    if member.mode & (stat.S_ISUID | stat.S_ISGID):
        raise ArchiveUnsafe(f"member {quote(member.name)} has the setuid or setgid mode", hint=HINT)
    if (kind == stat.S_IFDIR) is not member.name.endswith("/") and kind:
        raise ArchiveUnsafe(f"member {quote(member.name)} is a folder and a file at once", hint=HINT)
    if member.name.endswith("/") and (member.size or "/" in member.name[:-1]):
        raise ArchiveUnsafe(f"member {quote(member.name)} is a folder in a folder", hint=HINT)


def _extract(data: Octets, member: ZipMember, place: Path) -> Extracted:
    if member.name.endswith("/"):
        return Extracted(member.name[:-1], is_directory=True)
    file = write_member(unpacked(data, member), place, name=member.name, size=member.size)
    return Extracted(member.name, file=file)


def _chunks(data: Octets, member: ZipMember) -> Iterator[bytes]:
    end = member.start + member.packed
    if member.method != DEFLATED:
        for pos in range(member.start, end, CHUNK):
            yield data[pos : min(pos + CHUNK, end)]
        return
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for pos in range(member.start, end, CHUNK):
            if unpack.eof:
                raise ArchiveInvalid(f"member {quote(member.name)} has bytes after its end")
            pending = data[pos : min(pos + CHUNK, end)]
            while pending and not unpack.eof:
                yield unpack.decompress(pending, CHUNK)
                pending = unpack.unconsumed_tail
        while not unpack.eof:
            last = unpack.decompress(b"", CHUNK)
            if not last:
                break
            yield last
    except zlib.error as error:
        raise ArchiveInvalid(f"member {quote(member.name)} is damaged") from error
    if not unpack.eof or unpack.unused_data:
        raise ArchiveInvalid(f"member {quote(member.name)} is cut short or has bytes after it")
