"""The directory of a zip file (APPNOTE 6.3.10), read so that nothing is hidden and nothing counts twice.

Members must follow each other from the first byte to the central directory, and the end record must be the last bytes:
so there is no room for a second file in the same bytes, and no member shares its bytes with another (CVE-2024-0450).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ArchiveBomb, ArchiveInvalid
from modelyard.inspection.octets import Octets

STORED, DEFLATED = 0, 8
_END: Final = struct.Struct("<4s4H2LH")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_DESCRIPTOR_BYTES: Final = 24
_ENCRYPTED, _DESCRIBED, _UTF8 = 0x1, 0x8, 0x800
_UNIX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """One member; `start` is where its packed bytes begin, `mode` its Unix mode or 0."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    header: int
    start: int
    flags: int
    mode: int


def read_directory(data: Octets, *, max_members: int) -> Sequence[ZipMember]:
    """All members in the order of the directory.

    Raises:
        ArchiveInvalid: damaged, encrypted, bytes that belong to nothing, a packing method other than store and deflate.
        ArchiveBomb: too many members, or two that share bytes.
    """
    count, begin, end = _central_span(data)
    if count > max_members:
        raise ArchiveBomb(f"{count} members, at most {max_members} are read")
    members, pos = [], begin
    for _ in range(count):
        member, pos = _central_record(data, pos, end)
        members.append(member)
    if pos != end:
        raise ArchiveInvalid("the central directory is longer than its members")
    _require_tiling(members, begin)
    return members


def _central_span(data: Octets) -> tuple[int, int, int]:
    """(members, begin, end) of the central directory."""
    at = len(data) - _END.size
    if at < 0 or data[at : at + 4] != b"PK\x05\x06":
        raise ArchiveInvalid("the file does not end as a zip file does", hint="it is cut short, or has bytes after it")
    _, disk, start_disk, here, count, size, begin, comment = _END.unpack(data[at:])
    if comment or disk not in (0, _MAX16) or start_disk not in (0, _MAX16) or here != count:
        raise ArchiveInvalid("the zip file has a comment or several parts")
    if count == _MAX16 or _MAX32 in (size, begin):
        return _zip64_span(data, at)
    if begin + size == at:
        return count, begin, at
    if data[max(at - _LOCATOR.size, 0) :][:4] == b"PK\x06\x07":  # some writers add ZIP64 records where none is needed
        wide = _zip64_span(data, at)
        if wide[:2] == (count, begin) and wide[2] == begin + size:
            return wide
    raise ArchiveInvalid("there are bytes before the zip file, or its directory is not where it says")


def _zip64_span(data: Octets, at: int) -> tuple[int, int, int]:
    locator = at - _LOCATOR.size
    if locator < 0 or data[locator : locator + 4] != b"PK\x06\x07":
        raise ArchiveInvalid("the ZIP64 locator is missing")
    _, _, place, disks = _LOCATOR.unpack(data[locator:at])
    if disks > 1 or place + _END64.size != locator or data[place : place + 4] != b"PK\x06\x06":
        raise ArchiveInvalid("the ZIP64 end record is not where it says")
    _, _, _, _, _, _, here, count, size, begin = _END64.unpack(data[place:locator])
    if here != count or begin + size != place:
        raise ArchiveInvalid("the ZIP64 directory is not where it says")
    return count, begin, place


def _central_record(data: Octets, pos: int, end: int) -> tuple[ZipMember, int]:
    if pos + _CENTRAL.size > end:
        raise ArchiveInvalid("the central directory is cut short")
    fields = _CENTRAL.unpack(data[pos : pos + _CENTRAL.size])
    signature, made_by, _, flags, method, _, _, crc, packed, size, name_n, extra_n, comment_n, _, _, mode, header = (
        fields
    )
    after = pos + _CENTRAL.size + name_n + extra_n + comment_n
    if signature != b"PK\x01\x02" or after > end:
        raise ArchiveInvalid("the central directory is damaged")
    raw = data[pos + _CENTRAL.size : pos + _CENTRAL.size + name_n]
    extra = data[pos + _CENTRAL.size + name_n : after - comment_n]
    size, packed, header = _zip64_sizes(extra, size, packed, header)
    name = _decoded(raw, flags)
    if flags & _ENCRYPTED:
        raise ArchiveInvalid(f"member {quote(name)} is encrypted", hint="pack it without a password")
    if method not in (STORED, DEFLATED):
        raise ArchiveInvalid(f"member {quote(name)} is packed by method {method}", hint="pack it with deflate")
    start = _local_start(data, header, raw, method)
    unix_mode = mode >> 16 if made_by >> 8 == _UNIX else 0
    member = ZipMember(
        name=name,
        method=method,
        crc=crc,
        packed=packed,
        size=size,
        header=header,
        start=start,
        flags=flags,
        mode=unix_mode,
    )
    if method == STORED and packed != size:
        raise ArchiveInvalid(f"member {quote(name)} is stored in {packed} bytes and states {size}")
    return member, after


def _decoded(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise ArchiveInvalid("a member's name is not text", hint="use plain ASCII names") from error


def _zip64_sizes(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset, from the ZIP64 field (id 1) where the record says that they are there."""
    if _MAX32 not in (size, packed, header):
        return size, packed, header
    pos = 0
    while pos + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, pos)
        if kind == 1 and pos + 4 + length <= len(extra) and length % 8 == 0:
            wide = list(struct.unpack_from(f"<{length // 8}Q", extra, pos + 4))
            taken = [wide.pop(0) if value == _MAX32 and wide else value for value in (size, packed, header)]
            return taken[0], taken[1], taken[2]
        pos += 4 + length
    raise ArchiveInvalid("a member lacks its ZIP64 sizes")


def _local_start(data: Octets, header: int, raw: bytes, method: int) -> int:
    """Where the packed bytes begin, from the local header, which must say the same as the directory."""
    if header + _LOCAL.size > len(data):
        raise ArchiveInvalid("a member begins after the end of the file")
    signature, _, flags, local_method, *_, name_n, extra_n = _LOCAL.unpack(data[header : header + _LOCAL.size])
    name_at = header + _LOCAL.size
    if signature != b"PK\x03\x04" or local_method != method or data[name_at : name_at + name_n] != raw:
        raise ArchiveInvalid("a member's header and the directory disagree")
    if flags & _ENCRYPTED:
        raise ArchiveInvalid("a member is encrypted", hint="pack it without a password")
    return int(name_at + name_n + extra_n)


def _require_tiling(members: Sequence[ZipMember], directory: int) -> None:
    """Members fill the bytes up to the directory, in any order, without gap or overlap."""
    pos, slack = 0, 0
    for member in sorted(members, key=lambda one: one.header):
        if member.header < pos:
            raise ArchiveBomb(f"member {quote(member.name)} shares its bytes with another")
        if member.header > pos + slack:
            raise ArchiveInvalid("there are bytes that belong to no member")
        pos = member.start + member.packed
        slack = _DESCRIPTOR_BYTES if member.flags & _DESCRIBED else 0
    if pos > directory:
        raise ArchiveBomb("a member reaches into the directory")
    if pos + slack < directory:
        raise ArchiveInvalid("there are bytes that belong to no member")
