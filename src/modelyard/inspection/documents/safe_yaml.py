"""The safe subset of YAML: plain scalars, lists, maps. No tags, anchors, aliases, merges, directives.

Built from the parser's events, which name nothing and construct nothing; they arrive one by one, so that a bound on
depth or number stops the parser as early as ours is reached. Scalars follow the JSON words only: `null`, `true`,
`false` and numbers; everything else is text (`no`, `on`, dates and `0o17` stay what was typed).
"""

import math
import re
from collections.abc import Iterator
from typing import Final

import yaml

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ConfigInvalid, ConfigUnsafe

_MAX_EVENTS: Final = 50_000
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_WORDS: Final = {"null": None, "~": None, "": None, "true": True, "false": False}
_HINT: Final = "use plain scalars, lists and maps only, or JSON"


def read_yaml(text: str, *, what: str, max_depth: int, max_digits: int) -> object:
    """The value of the one document in `text`.

    Raises:
        ConfigUnsafe: a tag, anchor, alias, merge key or directive.
        ConfigInvalid: not YAML, duplicate keys, too deep, too long.
    """
    return _Builder(what, max_depth, max_digits).document(text)


def read_yaml_documents(text: str, *, what: str, max_depth: int, max_digits: int) -> list[object]:
    """The values of all documents in `text`, without empty ones; refuses what `read_yaml` refuses."""
    return _Builder(what, max_depth, max_digits).documents(text)


class _Builder:
    def __init__(self, what: str, max_depth: int, max_digits: int) -> None:
        self.what = what
        self.max_depth = max_depth
        self.max_digits = max_digits

    def document(self, text: str) -> object:
        values = self._values(text)
        if len(values) > 1:
            raise ConfigInvalid(f"{self.what} has more than one document")
        if not values:
            raise ConfigInvalid(f"{self.what} is not valid YAML", hint=_HINT)
        return values[0]

    def documents(self, text: str) -> list[object]:
        return [value for value in self._values(text) if value is not None]

    def _values(self, text: str) -> list[object]:
        try:
            events = self._checked(yaml.parse(text, Loader=yaml.SafeLoader))
            return [self._value(event, events, 0) for event in events]  # each takes its own events
        except (yaml.YAMLError, StopIteration, ValueError, RecursionError) as error:
            line = getattr(getattr(error, "problem_mark", None), "line", None)
            place = "" if line is None else f" at line {line + 1}"
            raise ConfigInvalid(f"{self.what} is not valid YAML{place}", hint=_HINT) from error

    def _checked(self, events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
        """Content events only, each looked at for what the subset leaves out."""
        for count, event in enumerate(events):
            if count > _MAX_EVENTS:
                raise ConfigInvalid(f"{self.what} has more than {_MAX_EVENTS} entries")
            if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
                raise self._unsafe("a directive")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise self._unsafe("an anchor or alias")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise self._unsafe(f"the tag {quote(tag)}")
            if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                yield event

    def _unsafe(self, thing: str) -> ConfigUnsafe:
        return ConfigUnsafe(f"{self.what} holds {thing}", hint=_HINT)

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> object:
        if depth > self.max_depth:
            raise ConfigInvalid(f"{self.what} is nested deeper than {self.max_depth}")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event.value) if event.style is None else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, depth)
        return self._mapping(events, depth)

    def _sequence(self, events: Iterator[yaml.Event], depth: int) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._value(event, events, depth + 1))
        return items

    def _mapping(self, events: Iterator[yaml.Event], depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise ConfigInvalid(f"{self.what} has a key that is not plain text", hint=_HINT)
            if event.value == "<<":
                raise self._unsafe("a merge key")
            if event.value in found:
                raise ConfigInvalid(f"{self.what} has the key {quote(event.value)} twice")
            found[event.value] = self._value(next(events), events, depth + 1)
        return found

    def _scalar(self, text: str) -> object:
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text.lstrip("-")) > self.max_digits:
                raise ConfigInvalid(f"{self.what} has a number of more than {self.max_digits} digits")
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise ConfigInvalid(f"{self.what} has a number that is too large")
            return number
        return text
