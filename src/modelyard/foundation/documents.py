"""JSON of domain values: msgspec reads and writes our frozen dataclasses as they are, strictly typed."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from modelyard.domain.contract import ServingPackage

T = TypeVar("T")
PACKAGE_FILE = "package.json"


def to_json(value: object) -> bytes:
    """Compact JSON of a domain value."""
    return msgspec.json.encode(value)


def from_json(data: bytes, kind: type[T]) -> T:
    """The domain value in `data`; `msgspec.ValidationError` when it does not fit `kind`."""
    return msgspec.json.decode(data, type=kind)


def to_plain(value: object) -> Any:  # noqa: ANN401  (plain JSON values have no narrower type)
    """`value` as dicts, lists, strings and numbers."""
    return msgspec.to_builtins(value)


def from_plain(value: object, kind: type[T]) -> T:
    """The domain value in plain JSON values."""
    return msgspec.convert(value, type=kind)


def read_package(directory: Path) -> ServingPackage:
    """The serving package that lies in `directory`."""
    return from_json((directory / PACKAGE_FILE).read_bytes(), ServingPackage)


def write_package(directory: Path, package: ServingPackage) -> None:
    """Write `package.json`; the files it names must lie there already."""
    (directory / PACKAGE_FILE).write_bytes(msgspec.json.format(to_json(package), indent=1))
