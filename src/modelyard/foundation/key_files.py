"""Keys of our own: 32 random bytes each, in a file that only its owner may read, made when it is first needed."""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import StartRefused

_BYTES: Final = 32


def load_key(path: Path) -> bytes:
    """The key in `path`, made there (mode 0600) when there is none yet.

    Raises:
        StartRefused: others can read the file, or it holds something else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise StartRefused(f"the key file secrets/{path.name} cannot be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        content = file.read(_BYTES * 2 + 2)
    if mode & 0o077:
        raise StartRefused(
            f"the key file secrets/{path.name} can be read by others (mode {mode:04o})",
            hint="chmod 600 on it, then think about who may have copied it",
        )
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError as error:
        raise StartRefused(f"the key file secrets/{path.name} is damaged", hint="restore it from a backup") from error
    if len(key) != _BYTES:
        raise StartRefused(f"the key file secrets/{path.name} is damaged", hint="restore it from a backup")
    return key


def _make(path: Path) -> bytes:
    key = secrets.token_bytes(_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, key.hex() + "\n")
    return key


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read (0600), whole, durable, in the place of an older one."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
