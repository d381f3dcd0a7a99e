"""`MANIFEST.json`: file name → SHA-256 in hex, as the sender computed them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import DigestMismatch, FileTooLarge
from modelyard.inspection.documents.json_text import read_bounded, read_json, require_object
from modelyard.inspection.policy import InspectionPolicy

_HEX: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


def require_digests(path: Path, name: str, files: Mapping[str, str], policy: InspectionPolicy) -> int:
    """How many files the manifest names; each must be there with the digest that it gives, else `DigestMismatch`."""
    data = read_bounded(path, limit=policy.config_bytes, what=quote(name), too_large=FileTooLarge)
    stated = require_object(
        read_json(data, what=quote(name), policy=policy, refused=DigestMismatch),
        what=quote(name),
        refused=DigestMismatch,
    )
    if set(stated) == {"files"}:
        stated = require_object(stated["files"], what=quote(name), refused=DigestMismatch)
    for file, digest in stated.items():
        match = _HEX.fullmatch(digest.lower()) if isinstance(digest, str) else None
        if match is None:
            raise DigestMismatch(f"the manifest gives {quote(file)} no SHA-256 in hex")
        if file not in files:
            raise DigestMismatch(f"the manifest names {quote(file)}, which is not in the bundle")
        if files[file] != match[1]:
            raise DigestMismatch(
                f"{quote(file)} has the SHA-256 {files[file]}, the manifest says {match[1]}",
                hint="upload the file that the manifest was made for, or make the manifest again with sha256sum",
                details=[{"file": quote(file), "expected": match[1], "received": files[file]}],
            )
    return len(stated)
