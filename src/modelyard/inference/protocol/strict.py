"""Strict JSON as plain values, for every body that the quick path does not take as it stands.

RFC 8259 without what parsers let through: duplicate keys, NaN and Infinity, a byte order mark, text that is not UTF-8,
lone surrogates, numbers of more than `MAX_DIGITS` digits. Integers keep their value, so that the field they stand in
can say what is wrong with them; a float beyond the range of FP64 is `inf`, and refused where it stands.
"""

import json
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadJson

MAX_DIGITS: Final = 400


class _Refused(ValueError):
    pass


def load_strict(data: bytes) -> Any:  # noqa: ANN401  (plain JSON values have no narrower type)
    """The value of `data`.

    Raises:
        BadJson: not strict JSON; the text says where or what.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8 at byte {error.start}", hint="send JSON as UTF-8") from error
    try:
        value = _DECODER.decode(text)
        if "\\u" in text or "\\U" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno} (character {error.pos})"
        raise BadJson(f"the body is not JSON: {error.msg} at {where}", details=[{"position": error.pos}]) from error
    except UnicodeEncodeError as error:
        raise BadJson("the body holds half of a surrogate pair", hint="send text as UTF-8") from error
    except RecursionError as error:
        raise BadJson("the body is nested too deeply") from error
    except _Refused as error:
        raise BadJson(str(error)) from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Refused(f"the key {quote(name)} stands twice in one object")
            seen.add(name)
    return value


def _constant(name: str) -> float:
    raise _Refused(f"{name} is not JSON; send null for a missing value where the model takes one")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _Refused(f"a number of {len(text)} digits")
    return int(text)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
