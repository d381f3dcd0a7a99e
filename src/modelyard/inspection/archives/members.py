"""Rules that hold for members of every archive: names, one top directory, and how their bytes are written out."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ArchiveBomb, ArchiveInvalid, ArchiveUnsafe, NameInvalid, PathUnsafe
from modelyard.inspection.names import fully_decoded, require_file_name
from modelyard.inspection.policy import InspectionPolicy, ReceivedFile

HINT = "pack plain files only, without folders: `zip bundle.zip *` in the folder of the model"
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Extracted:
    """A member: its name in the archive, whether it is a directory, and for a file where its bytes lie now."""

    name: str
    is_directory: bool = False
    file: ReceivedFile | None = None


def require_flat(name: str) -> None:
    """Refuse a member name that could leave the top directory: absolute, `..`, backslash, control characters."""
    parts = name.rstrip("/").split("/")
    safe = len(parts) <= 2 and "\\" not in fully_decoded(name)  # noqa: PLR2004  (top directory and file)
    try:
        for part in parts:
            require_file_name(part)
    except (NameInvalid, PathUnsafe) as error:
        raise ArchiveUnsafe(f"member {quote(name)} is not a plain flat name", hint=HINT) from error
    if not safe:
        raise ArchiveUnsafe(f"member {quote(name)} lies in folders", hint=HINT)


def without_top_directory(members: Sequence[Extracted], policy: InspectionPolicy) -> Sequence[ReceivedFile]:
    """The files under their flat names. All lie at the top, or all in one directory that is then taken off."""
    files = [member for member in members if member.file is not None]
    if not files:
        raise ArchiveInvalid("the archive holds no files", hint=HINT)
    if len(files) > policy.files:
        raise ArchiveBomb(f"{len(files)} members, a bundle has at most {policy.files} files", hint=HINT)
    tops = {member.name.partition("/")[0] for member in members if member.is_directory or "/" in member.name}
    if len(tops) > 1 or (tops and any("/" not in member.name for member in files)):
        raise ArchiveUnsafe(f"the archive has folders ({', '.join(sorted(map(quote, tops))[:4])})", hint=HINT)
    flat = [replace(member.file, name=member.name.rpartition("/")[2]) for member in files if member.file is not None]
    names = [file.name.casefold() for file in flat]
    if len(set(names)) != len(names):
        raise ArchiveInvalid("the archive holds two members of one name", hint=HINT)
    return flat


def write_member(chunks: Iterable[bytes], place: Path, *, name: str, size: int) -> ReceivedFile:
    """Write exactly `size` bytes to the new file `place`, hashing them; more or fewer is refused."""
    digest, written = hashlib.sha256(), 0
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        for chunk in chunks:
            written += len(chunk)
            if written > size:
                raise ArchiveBomb(f"member {quote(name)} expands to more than the {size} bytes it states")
            digest.update(chunk)
            stream.write(chunk)
    if written != size:
        raise ArchiveInvalid(f"member {quote(name)} has {written} bytes and states {size}")
    return ReceivedFile(name, place, size, digest.hexdigest())
