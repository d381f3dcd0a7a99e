"""What a configuration may not name: code, addresses, templates, the environment, places outside the bundle.

Looked for in every key and text of the document, before the schema: so a field of another tool that would make that
tool run code is called what it is, and not only "unknown".
"""

import re
from collections.abc import Iterator
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ConfigUnsafe

_CODE_KEYS: Final = frozenset({
    "auto_map", "trust_remote_code", "custom_objects", "custom_pipelines", "chat_template", "loader_module",
    "class_name", "registered_name", "module", "entry_point", "entrypoint", "code", "code_path", "code_paths",
    "python_module", "eval", "exec", "command", "cmd", "script", "hook", "hooks", "handler", "import", "imports",
    "env", "environment", "env_vars",
})  # fmt: skip
_UNDERSCORED: Final = re.compile(r"_.*_")

_FORBIDDEN: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("a template", re.compile(r"\{\{|\{%|\$\{|\$\(|<%|#\{|%\{")),
    ("an environment variable", re.compile(r"(?i)\benv:[A-Z_]|%[A-Z_]{2,}%|\$[A-Z_]{2,}")),
    ("an address", re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,30}:/")),
    ("an address", re.compile(r"(?i)^\s*(//|\\\\|data:|javascript:|www\.)")),
    ("a place outside the bundle", re.compile(r"(^|[/\\])\.\.([/\\]|$)|^\s*(~|/)[\w./~-]|^\s*[A-Za-z]:\\")),
    ("code", re.compile(r"__\w+__|(?i:\b(?:eval|exec|compile|getattr|__import__|system|popen)\s*\()|!!?python")),
)


def require_safe(config: object, *, what: str) -> None:
    """`ConfigUnsafe` for the first key or text that names something it may not."""
    for path, key, text in _texts(config):
        if key and (text.lower() in _CODE_KEYS or _UNDERSCORED.fullmatch(text)):
            raise _unsafe(what, path, f"the field {quote(text)}, which other tools take code from")
        for thing, pattern in _FORBIDDEN:
            if pattern.search(text):
                raise _unsafe(what, path, f"{thing} ({quote(text)})")


def _texts(value: object, path: str = "") -> Iterator[tuple[str, bool, str]]:
    """(path, is it a key, text) of every key and text, from the top; depth was bounded by the reader."""
    if isinstance(value, str):
        yield path, False, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}.{key}" if path else str(key)
            yield here, True, str(key)
            yield from _texts(item, here)


def _unsafe(what: str, path: str, thing: str) -> ConfigUnsafe:
    return ConfigUnsafe(
        f"{what} names {thing} at {quote(path, limit=100)}",
        hint="a configuration holds data only; links and prose belong in README.md",
        details=[{"field": quote(path)}],
    )
