"""Stand-ins for what a pickle would make: just enough to follow names and to measure joblib's arrays."""

from dataclasses import dataclass
from typing import Final

SMALL: Final = 64
"""Tuples and dictionaries with more items than this are not kept."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name in the file."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """An object that loading would make by calling `maker` with `args`, then giving it `state`."""

    maker: Global
    args: object = None
    state: object = None
    is_built: bool = False

    @property
    def type(self) -> Global:
        """The class, also where protocols 0 and 1 make it through `copyreg._reconstructor`."""
        if self.maker.name == "_reconstructor" and isinstance(self.args, tuple) and self.args:
            first = self.args[0]
            return first if isinstance(first, Global) else self.maker
        return self.maker


class Fields:
    """A dictionary with a few text keys; further items are dropped. Empty ones cost next to nothing."""

    __slots__ = ("_items", "is_whole")

    def __init__(self) -> None:
        self._items: dict[str, object] | None = None
        self.is_whole = True

    @property
    def items(self) -> dict[str, object]:
        """What was kept."""
        return self._items or {}

    def add(self, key: object, value: object) -> None:
        """Keep an item with a text key while there is room; note when one was not kept."""
        if self._items is None:
            self._items = {}
        if isinstance(key, str) and (key in self._items or len(self._items) < SMALL):
            self._items[key] = value
        else:
            self.is_whole = False


class _Sentinel:
    def __init__(self, name: str) -> None:
        self.name = name


OPAQUE: Final = _Sentinel("a value")
MARK: Final = _Sentinel("a mark")
