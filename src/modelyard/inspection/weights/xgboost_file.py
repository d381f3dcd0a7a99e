"""XGBoost's JSON and UBJSON: structure and bounds; the convert child's builder reads the trees."""

import re
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.uploads import FileTooLarge, WeightsFormat
from modelyard.inspection.octets import Cursor, Octets
from modelyard.inspection.policy import InspectionPolicy

_MARKS: Final = re.compile(rb'"(?:[^"\\]|\\.){0,4096}"|[\[\]{}]')
_DEPTH: Final = 32
_KEY_BYTES: Final = 4096
_UBJ_NUMBERS: Final = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8, b"C": 1}
_UBJ_SIGNED: Final = frozenset((b"i", b"I", b"l", b"L"))
_HINT: Final = "write it with booster.save_model('model.json') or 'model.ubj'; label files are called labels.json"
_VALUES: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class XgboostFacts:
    """The encoding and the keys at the top."""

    encoding: str
    keys: tuple[str, ...]


def read_xgboost(data: Octets, policy: InspectionPolicy) -> XgboostFacts:
    """Hold the file against its structure.

    Raises:
        FileTooLarge: more than `text_model_bytes`.
        WeightsFormat: not one object with `learner` and `version`, or damaged.
    """
    if len(data) > policy.text_model_bytes:
        raise FileTooLarge(f"the model has {len(data)} bytes, at most {policy.text_model_bytes} are read")
    if data[:1] != b"{":
        raise WeightsFormat("the file is not an XGBoost model", hint=_HINT)
    is_json = data[1:16].lstrip()[:1] in (b'"', b"}")
    keys = _json_keys(data) if is_json else _Ubj(data).top_keys()
    if not {"learner", "version"} <= set(keys):
        raise WeightsFormat("the file has no learner and version, so it is not an XGBoost model", hint=_HINT)
    return XgboostFacts("json" if is_json else "ubj", tuple(keys))


def _json_keys(data: Octets) -> list[str]:
    """Keys at depth 1; brackets must match and nest at most 32 deep, and nothing may follow the object."""
    open_, keys, end = bytearray(), [], 0
    for match in _MARKS.finditer(data):
        mark = match.group()
        if mark in b"[{":
            open_ += mark
            if len(open_) > _DEPTH or (end and len(open_) == 1):
                raise WeightsFormat(f"the JSON is nested deeper than {_DEPTH}, or holds two values")
        elif mark in b"]}":
            if not open_ or open_.pop() != {b"]": 0x5B, b"}": 0x7B}[mark]:
                raise WeightsFormat("the brackets of the JSON do not match")
            end = match.end()
        elif len(open_) == 1 and data[match.end() : match.end() + 8].lstrip()[:1] == b":":
            keys.append(mark[1:-1].decode("utf-8", "replace"))
    if open_ or not end or data[end : end + 64].strip() or len(data) - end > 64:  # noqa: PLR2004
        raise WeightsFormat("the JSON is cut short, or bytes follow it", hint=_HINT)
    if len(set(keys)) != len(keys):
        raise WeightsFormat("a key of the JSON stands twice")
    return keys


class _Ubj:
    """A walk over UBJSON (draft 12) with optimised containers, building nothing."""

    def __init__(self, data: Octets) -> None:
        self.cursor = Cursor(data, "UBJSON")
        self.values = 0

    def top_keys(self) -> list[str]:
        keys: list[str] = []
        if self.cursor.take(1) != b"{":
            raise WeightsFormat("the UBJSON is not an object", hint=_HINT)
        self._object(1, keys)
        if self.cursor.left or len(set(keys)) != len(keys):
            raise WeightsFormat("bytes follow the UBJSON, or a key stands twice")
        return keys

    def _count(self) -> int:
        kind = self.cursor.take(1)
        if kind not in _UBJ_NUMBERS or kind in b"dDC":
            raise WeightsFormat("a UBJSON length is not a whole number")
        raw = self.cursor.take(_UBJ_NUMBERS[kind])
        value = int.from_bytes(raw, "big", signed=kind in _UBJ_SIGNED)
        if value < 0:
            raise WeightsFormat("a UBJSON length is negative")
        return value

    def _value(self, kind: bytes, depth: int) -> None:
        self.values += 1
        if self.values > _VALUES or depth > _DEPTH:
            raise WeightsFormat(f"the UBJSON has too many values, or is nested deeper than {_DEPTH}")
        if kind in _UBJ_NUMBERS:
            self.cursor.skip(_UBJ_NUMBERS[kind])
        elif kind in (b"S", b"H"):
            self.cursor.skip(self._count())
        elif kind == b"{":
            self._object(depth + 1, None)
        elif kind == b"[":
            self._array(depth + 1)
        elif kind not in (b"Z", b"T", b"F", b"N"):
            raise WeightsFormat("the UBJSON holds an unknown mark")

    def _header(self) -> tuple[bytes | None, int | None]:
        """(type, count) of an optimised container, as far as they are given."""
        kind = count = None
        if self._peek() == b"$":
            self.cursor.skip(1)
            kind = self.cursor.take(1)
        if self._peek() == b"#":
            self.cursor.skip(1)
            count = self._count()
        if kind is not None and count is None:
            raise WeightsFormat("a UBJSON container has a type and no count")
        return kind, count

    def _peek(self) -> bytes:
        return self.cursor.data[self.cursor.pos : self.cursor.pos + 1]

    def _array(self, depth: int) -> None:
        kind, count = self._header()
        if kind in _UBJ_NUMBERS and count is not None:
            self.cursor.skip(count * _UBJ_NUMBERS[kind])
            return
        if count is not None and (count > self.cursor.left and kind not in (b"Z", b"T", b"F")):
            raise WeightsFormat("a UBJSON array is longer than the file")
        done = 0
        while done < count if count is not None else self._peek() != b"]":
            self._value(kind or self.cursor.take(1), depth)
            done += 1
        if count is None:
            self.cursor.skip(1)

    def _object(self, depth: int, keys: list[str] | None) -> None:
        kind, count = self._header()
        done = 0
        while done < count if count is not None else self._peek() != b"}":
            length = self._count()
            if length > _KEY_BYTES:
                raise WeightsFormat("a UBJSON key is too long")
            key = self.cursor.take(length)
            if keys is not None:
                keys.append(key.decode("utf-8", "replace"))
            self._value(kind or self.cursor.take(1), depth)
            done += 1
        if count is None:
            self.cursor.skip(1)
