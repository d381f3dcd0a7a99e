"""Names of uploaded files: one plain form, and nothing that means a place.

A name is metadata: what is stored is stored under names that we make. Still a name travels into digests, reports and
archives, so it has one spelling (Unicode NFC), the characters `[A-Za-z0-9._-]`, and no twin after case folding.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import NameInvalid, PathUnsafe

_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_DECODINGS: Final = 8
_HINT: Final = "use 1 to 128 of A-Z a-z 0-9 . _ - without folders"


def require_file_name(name: str) -> str:
    """`name` in NFC, if it is one plain file name.

    Raises:
        PathUnsafe: it means a place (a separator, a drive, `..`), as it stands or percent-decoded any number of times.
        NameInvalid: any other character or length.
    """
    plain = unicodedata.normalize("NFC", name)
    decoded = fully_decoded(plain)
    if points_elsewhere(decoded):
        raise PathUnsafe(f"{quote(name)} is a path, not a file name", hint=_HINT, details=[{"file": quote(name)}])
    if not _PLAIN.fullmatch(plain):
        raise NameInvalid(f"{quote(name)} is not a file name", hint=_HINT, details=[{"file": quote(name)}])
    return plain


def fully_decoded(name: str) -> str:
    """Percent-decoding until nothing changes; what still changes after eight rounds is treated as a path."""
    for _ in range(_DECODINGS):
        decoded = unquote(name, errors="replace")
        if decoded == name:
            return unicodedata.normalize("NFKC", name)
        name = decoded
    return "../"


def points_elsewhere(name: str) -> bool:
    """Whether a decoded name holds a separator, a drive, or consists of dots."""
    if "/" in name or "\\" in name or _DRIVE.match(name):
        return True
    return bool(name) and not name.strip(". ")


def require_distinct(names: Iterable[str]) -> None:
    """Refuse two names that are the same after case folding (as some file systems see them)."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.casefold(), name)
        if twin is not name:
            raise NameInvalid(
                f"{quote(name)} and {quote(twin)} are the same name when case is ignored",
                hint="give each file a name of its own",
                details=[{"file": quote(name)}],
            )
