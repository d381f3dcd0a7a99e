r"""Digests of files and of bundles, in a form that anybody can recompute with coreutils.

The digest of a bundle is the SHA-256 of its manifest: one line a file, `<sha256>  <name>\n`, sorted by name as bytes.
`sha256sum * | LC_ALL=C sort -k2 | sha256sum` in a directory of the uploaded files prints the same value.
"""

import hashlib
from collections.abc import Mapping

PREFIX = "sha256:"


def bundle_digest(files: Mapping[str, str]) -> str:
    """`sha256:<hex>` of the files of a bundle, given as name → hex SHA-256 of the content."""
    lines = (
        f"{digest}  {name}\n".encode() for name, digest in sorted(files.items(), key=lambda item: item[0].encode())
    )
    return PREFIX + hashlib.sha256(b"".join(lines)).hexdigest()
