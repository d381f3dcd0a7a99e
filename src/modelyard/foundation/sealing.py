"""Seal secrets: an envelope of AES-256-GCM, opened only with a key file that nobody but its owner can read.

Each secret is encrypted under a key of its own, and that key under the sealing key; both name what they belong to, so
that a sealed text cannot be passed off as another's. The sealing key lies in a file of mode 0600, one key a line in
hex, the newest first: what older ones sealed still opens. (NIST SP 800-38D; the envelope is that of every KMS.)
"""

import base64
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import ArtifactDamaged, MissingExtra, StartRefused
from modelyard.foundation.key_files import write_private

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ID_CHARS: Final = 16
_MOST_FILE_BYTES: Final = 64 << 10


class _Envelope(msgspec.Struct, array_like=True):
    """`key` names the sealing key; nonces stand before what they belong to."""

    form: int
    key: str
    wrapped: bytes
    content: bytes


class SealingKey:
    """Seals with the newest key of a file, opens with any of them."""

    def __init__(self, path: Path, keys: list[bytes]) -> None:
        self.path = path
        self._keys = {_id_of(key): key for key in keys}
        self._newest = keys[0]

    @classmethod
    def open(cls, path: Path, *, make: bool = False) -> "SealingKey":
        """The keys in `path`; with `make`, a new one where there is none.

        Raises:
            StartRefused: there is no file, others can read it, or it holds something else.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if not make:
                raise StartRefused(f"there is no sealing key {path.name}", hint="`modelyard up` makes it") from error
            return cls(path, [_make(path)])
        except OSError as error:
            raise StartRefused(f"the sealing key {path.name} cannot be read: {error.strerror}") from error
        with os.fdopen(fd, "rb") as file:
            mode, content = stat.S_IMODE(os.fstat(fd).st_mode), file.read(_MOST_FILE_BYTES)
        if mode & 0o077:
            raise StartRefused(
                f"the sealing key {path.name} can be read by others (mode {mode:04o})",
                hint="chmod 600 on it, and set the secrets anew if somebody may have copied it",
            )
        return cls(path, _read(path, content))

    def seal(self, text: str, *, about: str) -> str:
        """`text`, sealed for `about` (what it is the secret of)."""
        aes, named = _aes(), about.encode()
        key = secrets.token_bytes(_KEY_BYTES)
        inner, outer = secrets.token_bytes(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
        envelope = _Envelope(
            form=1,
            key=_id_of(self._newest),
            wrapped=outer + aes(self._newest).encrypt(outer, key, named),
            content=inner + aes(key).encrypt(inner, text.encode(), named),
        )
        return base64.b64encode(msgspec.msgpack.encode(envelope)).decode("ascii")

    def unseal(self, sealed: str, *, about: str) -> str:
        """The text that was sealed for `about`.

        Raises:
            ArtifactDamaged: it was sealed with another key or for something else, or is not whole.
        """
        aes, named = _aes(), about.encode()
        try:
            envelope = msgspec.msgpack.decode(base64.b64decode(sealed, validate=True), type=_Envelope)
            outer = self._keys[envelope.key]
            key = aes(outer).decrypt(envelope.wrapped[:_NONCE_BYTES], envelope.wrapped[_NONCE_BYTES:], named)
            return str(
                aes(key).decrypt(envelope.content[:_NONCE_BYTES], envelope.content[_NONCE_BYTES:], named), "utf-8"
            )
        except Exception as error:
            if isinstance(error, MissingExtra):
                raise
            raise ArtifactDamaged(
                f"the secret {quote(about)} cannot be opened with this platform's sealing key",
                hint="set it anew: modelyard secrets set",
            ) from error


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"modelyard sealing key" + key).hexdigest()[:_ID_CHARS]


def _aes() -> Any:  # noqa: ANN401  (a class of an optional library)
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtra("secrets need the package cryptography", hint="pip install 'modelyard[secrets]'") from error
    return AESGCM


def _read(path: Path, content: bytes) -> list[bytes]:
    damaged = StartRefused(f"the sealing key {path.name} is damaged", hint="restore it from a backup")
    try:
        keys = [bytes.fromhex(line) for line in content.decode("ascii").split()]
    except ValueError as error:
        raise damaged from error
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise damaged
    return keys


def _make(path: Path) -> bytes:
    key = secrets.token_bytes(_KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, key.hex() + "\n")
    return key
