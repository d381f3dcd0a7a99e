"""JSON as RFC 8259 and I-JSON mean it, checked on the bytes before any parser sees them.

Quick parsers keep the last of two equal keys, read numbers of any length and recurse as deep as they are told: two
readers of one document may then disagree about what it says. `guard` refuses such documents. What it lets through still
has to be parsed by a parser that refuses what is no JSON at all; its promise is that, if such a parser accepts the
document, no object has a key twice, nothing is nested too deeply, no integer is too long, and all text is Unicode.

It works on whole pieces with the byte operations of the interpreter: the text outside strings is what lies between
quotes, so colons, brackets and digits are counted there without a loop. Cost is linear in the size.
"""

import functools
import json
import re
from typing import Final

import msgspec

_TABLE: Final = bytes(
    ord("0")
    if chr(code).isascii() and chr(code).isdigit()
    else {ord("{"): ord("["), ord("}"): ord("]")}.get(code, code)
    for code in range(256)
)
_NOT_BRACKETS: Final = bytes(code for code in range(256) if code not in b"[]")
_NOT_SKELETON: Final = bytes(code for code in range(256) if code not in b"{}:")
_COLON: Final = ord(":")
_OPEN: Final = ord("{")
_SMALL: Final = 64
_SMALL_BYTES: Final = 1024
_LONE_HIGH: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_LOW: Final = re.compile(rb"(\\u[dD][89abAB][0-9a-fA-F]{2})?\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_BLANK: Final = b"\x01\x01"  # stands for an escape; no JSON has it unescaped
_ESCAPED: Final = re.compile(rb"[\\\x01]")
_ZEROS: Final = re.compile(rb"0++")
_MAX_FRACTION: Final = 512


class StrictJsonError(ValueError):
    """The document is refused: a short reason, and the byte it was noticed at where that is known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason = reason
        self.position = position
        super().__init__(reason if position is None else f"{reason} (at byte {position})")


def loads(
    data: bytes,
    *,
    max_depth: int = 32,
    max_digits: int = 19,
    allow_nan: bool = False,
    max_bytes: int | None = None,
) -> object:
    """The value in `data`, as dicts, lists, strings, numbers, booleans and None.

    Raises:
        StrictJsonError: it is larger than `max_bytes`, no JSON, or one of the things that `guard` refuses.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise StrictJsonError(f"the document is larger than {max_bytes} bytes")
    guard(data, max_depth=max_depth, max_digits=max_digits, allow_nan=allow_nan)
    try:
        if allow_nan and (b"N" in data or b"I" in data):
            return json.loads(data)
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's and json's own are ValueErrors
        raise StrictJsonError("this is not valid JSON", _position(str(error))) from error


def guard(data: bytes, *, max_depth: int = 32, max_digits: int = 19, allow_nan: bool = False) -> None:
    """Refuse what parsers let through though readers may disagree about it.

    That is: bytes that are no UTF-8, escapes of half a surrogate pair, `NaN` and `Infinity` (unless `allow_nan`),
    nesting deeper than `max_depth`, whole parts of more than `max_digits` digits, and objects with a key
    twice, at any level and however the key is written.

    Raises:
        StrictJsonError: as said.
    """
    if not data.isascii():
        _check_utf8(data)
    plain = data
    if b"\\" in data:
        _check_surrogates(data)
        plain = data.replace(b"\\\\", _BLANK).replace(b'\\"', _BLANK)  # quotes that are left delimit strings
    pieces = plain.split(b'"')
    outside = pieces[::2]
    marks = b" ".join(outside)
    if not allow_nan and (b"N" in marks or b"I" in marks):
        raise StrictJsonError("NaN and Infinity are not JSON")
    marks = marks.translate(_TABLE)
    _check_digits(marks, max_digits)
    if marks.count(b"[") > max_depth:
        _check_depth(marks, max_depth)
    keys = [key for key, after in zip(pieces[1::2], outside[1:], strict=False) if b":" in after]
    if b"\\" in data and _ESCAPED.search(b"".join(keys)):
        _check_keys_decoded(data)
    elif len(set(keys)) != len(keys):
        _check_keys(outside, keys, pieces)


def _check_utf8(data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError("the text is not UTF-8", error.start) from error


def _check_surrogates(data: bytes) -> None:
    if b"\\u" not in data:
        return
    escaped = data.replace(b"\\\\", b"__")
    high = _LONE_HIGH.search(escaped)
    if high is not None:
        raise StrictJsonError("an escape is half of a surrogate pair", high.start())
    for low in _LOW.finditer(escaped):
        if low[1] is None:
            raise StrictJsonError("an escape is half of a surrogate pair", low.start())


def _check_digits(marks: bytes, max_digits: int) -> None:
    """Integers only: a fraction may be written with more digits than a float holds. Digits are all zeros in `marks`."""
    run = b"0" * (max_digits + 1)
    start = marks.find(run)
    while start >= 0:
        match = _ZEROS.match(marks, start)
        end = match.end() if match else start
        if marks[max(start - 1, 0) : start] != b"." or end - start > _MAX_FRACTION:
            raise StrictJsonError(f"a number has more than {max_digits} digits")
        start = marks.find(run, end)


def _check_depth(marks: bytes, max_depth: int) -> None:
    """Each pass takes the innermost pairs away; as many passes as there are levels."""
    brackets = marks.translate(None, delete=_NOT_BRACKETS)
    for _ in range(max_depth):
        less = brackets.replace(b"[]", b"")
        if len(less) == len(brackets):
            break
        brackets = less
    if brackets:
        raise StrictJsonError(f"the document is nested deeper than {max_depth} levels, or not closed")


def _check_keys(outside: list[bytes], keys: list[bytes], pieces: list[bytes]) -> None:
    """Some key occurs twice in the document; refuse if it does so in one object.

    Braces and colons in order, with the keys in order, decide it. Requests of one client have the same ones over and
    over, so the answer for small ones is kept.
    """
    skeleton = b"".join(outside).translate(None, _NOT_SKELETON)
    small = len(keys) <= _SMALL and sum(map(len, keys)) + len(skeleton) <= _SMALL_BYTES
    twice = (_key_twice if small else _key_twice.__wrapped__)(skeleton, tuple(keys))
    if twice >= 0:
        raise StrictJsonError("an object has the same key twice", _offset(pieces, twice))


@functools.lru_cache(maxsize=512)
def _key_twice(skeleton: bytes, keys: tuple[bytes, ...]) -> int:
    """Index of the first key that its object has already; -1 when there is none."""
    stack: list[set[bytes]] = []
    current: set[bytes] = set()
    number = 0
    for mark in skeleton:
        if mark == _COLON:
            if number < len(keys) and keys[number] in current:
                return number
            current.update(keys[number : number + 1])
            number += 1
        elif mark == _OPEN:
            stack.append(current)
            current = set()
        elif stack:
            current = stack.pop()
    return -1


def _offset(pieces: list[bytes], number: int) -> int:
    """Where the key with this number stands in the document."""
    position = 0
    for index, piece in enumerate(pieces):
        if index % 2 and index + 1 < len(pieces) and b":" in pieces[index + 1]:
            if number == 0:
                return position
            number -= 1
        position += len(piece) + 1
    return position


def _check_keys_decoded(data: bytes) -> None:
    """Keys with escapes are compared as what they mean. Depth and digits are known to be in bounds here."""
    try:
        json.loads(data, object_pairs_hook=_distinct, parse_float=_ignored, parse_int=_ignored, parse_constant=_ignored)
    except StrictJsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise StrictJsonError("this is not valid JSON", getattr(error, "pos", None)) from error


def _distinct(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise StrictJsonError("an object has the same key twice")


def _ignored(text: str) -> None:
    del text


def _position(message: str) -> int | None:
    found = re.search(r"(?:byte|char) (\d+)", message)
    return int(found[1]) if found else None
