"""A space: which values each parameter of a search may take, as a plain document that is checked before anything runs.

{"depth": {"low": 1, "high": 8, "whole": true}, "rate": {"low": 1e-4, "high": 1, "log": true},
 "kind": {"choices": ["a", "b"]}}
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from modelyard.domain.errors.base import Detail, quote

MOST_PARAMETERS: Final = 50
MOST_CHOICES: Final = 1000
_RANGE: Final = frozenset({"low", "high", "step", "log", "whole"})
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included: by `step` from `low` on, evenly, or evenly in their logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    def values(self) -> list[float] | None:
        """All of them, where they can be counted."""
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        if count > MOST_CHOICES:
            return None
        made = [self.low + place * step for place in range(count)]
        return [int(each) if self.whole else round(each, 12) for each in made]


@dataclass(frozen=True, slots=True)
class Choices:
    """Any of these plain JSON values."""

    choices: tuple[Any, ...]

    def values(self) -> list[Any]:
        """All of them."""
        return list(self.choices)


Dimension = Range | Choices


def read_space(document: Mapping[str, Any]) -> dict[str, Dimension]:
    """The space in a document that `wrong_in_space` finds nothing wrong in."""
    return {
        name: Choices(tuple(each["choices"])) if "choices" in each else Range(**each) for name, each in document.items()
    }


def grid(space: Mapping[str, Dimension]) -> list[dict[str, Any]] | None:
    """Every combination, in order; None where a parameter has no countable values."""
    values = [each.values() for each in space.values()]
    if any(each is None for each in values):
        return None
    return [dict(zip(space, each, strict=True)) for each in product(*(each or () for each in values))]


def size(space: Mapping[str, Dimension]) -> int | None:
    """How many combinations there are, where they can be counted."""
    counts = [each.values() for each in space.values()]
    return None if any(each is None for each in counts) else math.prod(len(each or ()) for each in counts)


def wrong_in_space(document: Mapping[str, Any], path: str = "parameters.space") -> list[Detail]:
    """What is wrong, each with its path and what was expected."""
    if not document:
        return [_detail(path, "at least one parameter, such as {'depth': {'low': 1, 'high': 8, 'whole': true}}")]
    if len(document) > MOST_PARAMETERS:
        return [_detail(path, f"at most {MOST_PARAMETERS} parameters", len(document))]
    return [detail for name, each in document.items() for detail in _wrong_dimension(f"{path}.{name}", name, each)]


def _wrong_dimension(path: str, name: str, each: object) -> Iterator[Detail]:
    if not name or len(name) > _LONGEST_NAME:
        yield _detail(path[:200], f"a name of 1 to {_LONGEST_NAME} characters")
    elif not isinstance(each, Mapping):
        yield _detail(path, "an object with choices, or with low and high", each)
    elif "choices" in each:
        yield from _wrong_choices(path, each)
    else:
        yield from _wrong_range(path, each)


def _wrong_choices(path: str, each: Mapping[str, Any]) -> Iterator[Detail]:
    for name in each.keys() - {"choices"}:
        yield _detail(f"{path}.{name}", "nothing beside choices")
    choices = each["choices"]
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not 1 <= len(choices) <= MOST_CHOICES:
        yield _detail(f"{path}.choices", f"a list of 1 to {MOST_CHOICES} values", choices)
    elif len({repr(value) for value in choices}) != len(choices):
        yield _detail(f"{path}.choices", "different values", choices)


def _wrong_range(path: str, each: Mapping[str, Any]) -> Iterator[Detail]:
    for name in each.keys() - _RANGE:
        yield _detail(f"{path}.{name}", f"one of {', '.join(sorted(_RANGE))}, or choices")
    wrong = False
    for name in ("low", "high", "step"):
        if name in each if name == "step" else True:
            value = each.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                wrong = True
                yield _detail(f"{path}.{name}", "a number", value)
    for name in ("log", "whole"):
        if not isinstance(each.get(name, False), bool):
            wrong = True
            yield _detail(f"{path}.{name}", "true or false", each[name])
    if not wrong:
        yield from _wrong_numbers(path, each)


def _wrong_numbers(path: str, each: Mapping[str, Any]) -> Iterator[Detail]:
    low, high, step = each["low"], each["high"], each.get("step")
    if low >= high:
        yield _detail(f"{path}.high", f"more than low, which is {low:g}", high)
    if each.get("log") and low <= 0:
        yield _detail(f"{path}.low", "more than 0, for its logarithm is taken", low)
    if step is not None and (step <= 0 or step > high - low):
        yield _detail(f"{path}.step", f"more than 0 and at most {high - low:g}", step)
    if step is not None and each.get("log"):
        yield _detail(f"{path}.step", "nothing beside log")
    if each.get("whole") and any(value is not None and value != int(value) for value in (low, high, step)):
        yield _detail(path, "whole numbers, for whole is true")


_NOTHING: Final = object()


def _detail(field: str, expected: str, received: object = _NOTHING) -> Detail:
    if received is _NOTHING:
        return {"field": field, "expected": expected}
    return {"field": field, "expected": expected, "received": quote(received, limit=60)}
