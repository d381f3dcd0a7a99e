"""Plugins by name: what exists is known without importing it; it is imported when it is asked for.

Builtins are strings `module:attribute`. Other packages add theirs through entry points of the same group, with no edit
here. A name that is taken by a builtin cannot be taken over by an entry point.
"""

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import NotSupported

T = TypeVar("T")


class Registry(Generic[T]):
    """All plugins of one group; `T` is the port they fulfil. An attribute may be a class or a factory."""

    def __init__(self, *, group: str, builtin: Mapping[str, str]) -> None:
        self.group = group
        self._builtin = dict(builtin)

    @cached_property
    def _all(self) -> dict[str, str]:
        found = {point.name: point.value for point in entry_points(group=self.group)}
        return found | self._builtin

    def names(self) -> list[str]:
        """Every known name, sorted; nothing is imported."""
        return sorted(self._all)

    def get(self, name: str) -> type[T]:
        """The class or factory of this name, imported now; `NotSupported` with the known names otherwise."""
        target = self._all.get(name)
        if target is None:
            raise NotSupported(f"{quote(name)} is not known here", hint=f"known: {', '.join(self.names())}")
        module, _, attribute = target.partition(":")
        return cast("type[T]", getattr(import_module(module), attribute))
