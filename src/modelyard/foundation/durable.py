"""Make what was written survive a power cut: one `fsync` of a file, or of a directory and the names in it."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Return when `path` is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
