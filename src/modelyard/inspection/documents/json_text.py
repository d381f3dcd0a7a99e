"""Strict JSON of an upload, refused with the error that its document calls for."""

from pathlib import Path

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import UploadRefused
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.inspection.policy import InspectionPolicy


def read_json(data: bytes, *, what: str, policy: InspectionPolicy, refused: type[UploadRefused]) -> object:
    """The value of `data`: UTF-8, no duplicate keys, no NaN, bounded depth and digits (RFC 8259, I-JSON)."""
    try:
        return loads(data, max_depth=policy.json_depth, max_digits=policy.json_int_digits, max_bytes=max(len(data), 1))
    except StrictJsonError as error:
        raise refused(f"{what} is not strict JSON: {error}", hint="check it with any JSON validator") from error


def read_bounded(path: Path, *, limit: int, what: str, too_large: type[UploadRefused]) -> bytes:
    """All bytes of a small document; more than `limit` bytes are refused unread."""
    size = path.stat().st_size
    if size > limit:
        raise too_large(f"{what} has {size} bytes, at most {limit} are read")
    return path.read_bytes()


def read_text(data: bytes, *, what: str, refused: type[UploadRefused]) -> str:
    """`data` as UTF-8 without NUL; a leading byte order mark is taken off."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(f"{what} is not UTF-8 text", hint="save it as UTF-8") from error
    if "\0" in text:
        raise refused(f"{what} holds a NUL character", hint="save it as plain text")
    return text


def require_object(value: object, *, what: str, refused: type[UploadRefused]) -> dict[str, object]:
    """`value` as an object with text keys."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    raise refused(f"{what} must be an object, and is {quote(type(value).__name__)}")
