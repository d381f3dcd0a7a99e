"""Read `requirements.lock`: exact versions, with digests where they are given, and nothing else.

What an installer would follow on top of that (options, addresses, other files, ranges) is refused: the file says which
packages, the operator says where they come from.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ConfigInvalid, ConfigUnsafe

LOCK_FILE: Final = "requirements.lock"
_PACKAGES: Final = 2000
_HASH: Final = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})(?=\s|$)")
_PIN: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)(?P<extras>\[[A-Za-z0-9._, -]{1,200}\])?"
    r"\s*==\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,62})"
    r"\s*(?:;\s*(?P<marker>[A-Za-z0-9_.\s\"'<>=!~()-]{1,400}))?"
)
_COMMENT: Final = re.compile(r"(?:^|\s)#.*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One package at one version. `marker` is an environment marker (PEP 508), empty when there is none."""

    name: str
    version: str
    extras: str = ""
    marker: str = ""
    hashes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As an installer reads it."""
        marker = f" ; {self.marker}" if self.marker else ""
        hashes = "".join(f" --hash=sha256:{value}" for value in self.hashes)
        return f"{self.name}{self.extras}=={self.version}{marker}{hashes}"


def read_lock(text: str) -> tuple[Pin, ...]:
    """The pins of a lock file, in their order; comments are left out.

    Raises:
        ConfigUnsafe: an option, an address, a path or another file.
        ConfigInvalid: a line that is not one exact version, a package twice, too many lines.
    """
    pins: list[Pin] = []
    for number, line in _lines(text):
        pins.append(_pin(line, number))
        if len(pins) > _PACKAGES:
            raise ConfigInvalid(f"{LOCK_FILE} names more than {_PACKAGES} packages")
    seen = [(pin.name.lower().replace("_", "-").replace(".", "-"), pin.marker) for pin in pins]
    if len(set(seen)) != len(seen):
        twice = next(name for name, marker in seen if seen.count((name, marker)) > 1)
        raise ConfigInvalid(f"{LOCK_FILE} names {quote(twice)} twice", hint="write the lock file again")
    return tuple(pins)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first physical one; continuations joined, comments removed."""
    begun, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).rstrip()
        first = first if begun else number
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        whole = (begun + line).strip()
        begun = ""
        if whole:
            yield first, whole
    if begun.strip():
        yield first, begun.strip()


def _pin(line: str, number: int) -> Pin:
    hashes = tuple(_HASH.findall(line))
    rest = _HASH.sub("", line).strip()
    if rest.startswith("-") or " -" in rest:
        raise ConfigUnsafe(
            f"line {number} of {LOCK_FILE} is an option for the installer: {quote(rest)}",
            hint="name packages only; where they come from is the operator's setting environments.index",
        )
    if "@" in rest or "://" in rest or rest.startswith((".", "/", "~")) or rest.endswith((".whl", ".gz", ".zip")):
        raise ConfigUnsafe(
            f"line {number} of {LOCK_FILE} names a place: {quote(rest)}",
            hint="name the package and its version; wheels lie in the folder of the setting environments.wheel_folder",
        )
    found = _PIN.fullmatch(rest)
    if found is None:
        raise ConfigInvalid(
            f"line {number} of {LOCK_FILE} is not one exact version: {quote(rest)}",
            hint="write it with `uv pip compile --generate-hashes requirements.in` or `pip freeze`",
        )
    parts = found.groupdict()
    return Pin(
        name=parts["name"],
        version=parts["version"],
        extras=(parts["extras"] or "").replace(" ", ""),
        marker=(parts["marker"] or "").strip(),
        hashes=hashes,
    )
