"""Write the reference pages that are made from the code: settings, errors, the command line, the control API.

`python tools/generate_reference.py` writes them, `--check` says which are not what the code says and exits 1. A test
runs the check, so no setting and no error is undocumented.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from modelyard.control.api.problems import STATUS
from modelyard.domain import errors
from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.settings import describe, groups
from modelyard.inference.protocol.error_reference import render_error_reference
from tools.api_page import api_page
from tools.cli_page import cli_page

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
_MADE = "<!-- Made by tools/generate_reference.py; edit the code it is made from instead. -->\n\n"


def settings_page() -> str:
    """Every setting, group by group."""
    lines = [
        "# Settings\n\n",
        _MADE,
        "A setting is taken from the command line, else from the environment (the variable below), else from the\n"
        "settings file (`--settings FILE`, YAML or TOML, a table for each group), else it has its default. A value\n"
        "outside its range and a name that is not listed here are refused at the start, by name.\n\n"
        "`GET /api/v1/settings` shows what is in force.\n\n"
        "The settings file may also name targets, which are places to deploy to: `targets: {staging: {kind: local}}`.\n"
        "The kind is an orchestrator; a target without an entry is the orchestrator of that name.\n",
    ]
    kinds = groups()
    group = ""
    for item in describe():
        if item.group != group:
            group = item.group
            about = (kinds[group].__doc__ or "").strip()
            lines.append(f"\n## `{group}`\n\n{about}\n\n")
            lines.append("| field | what it does | unit | range | default | variable |\n|---|---|---|---|---|---|\n")
        default = "none" if item.default in (None, "") else f"`{item.default}`"
        lines.append(
            f"| `{item.name}` | {item.about.text} | {item.about.unit or item.kind} | {item.about.range_text}"
            f" | {default} | `{item.variable}` |\n"
        )
    return "".join(lines)


def error_page() -> str:
    """Every error code, module by module."""
    lines = [
        "# Error codes\n\n",
        _MADE,
        "Every refusal has a stable `code`. On the control listener it comes in a problem document (RFC 9457,\n"
        "`application/problem+json`) with `title`, `detail`, `hint` and `request_id`, and with the status below;\n"
        'on the inference listener in `{"error", "code", "request_id", …}`, where the protocol decides the status.\n',
    ]
    for name, kinds in _by_module():
        lines.append(f"\n## {name.capitalize()}\n\n| code | status | title | when |\n|---|---|---|---|\n")
        for kind in kinds:
            when = (kind.__doc__ or "").strip().splitlines()[0]
            lines.append(f"| `{kind.code}` | {STATUS[kind]} | {kind.title} | {when} |\n")
    return "".join(lines)


def _by_module() -> Iterator[tuple[str, list[type[ModelyardError]]]]:
    for module in sorted(pkgutil.iter_modules(errors.__path__), key=lambda module: module.name):
        loaded = importlib.import_module(f"{errors.__name__}.{module.name}")
        kinds = [
            kind
            for kind in vars(loaded).values()
            if isinstance(kind, type) and issubclass(kind, ModelyardError) and kind.__module__ == loaded.__name__
        ]
        if kinds:
            yield ("everywhere" if module.name == "base" else module.name), kinds


PAGES = {
    "settings.md": settings_page,
    "error-codes.md": error_page,
    "inference-errors.md": render_error_reference,
    "command-line.md": lambda: cli_page(_MADE),
    "control-api.md": lambda: api_page(_MADE),
}


def stale() -> list[str]:
    """Names of pages that are not what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text(encoding="utf-8") != page()
    ]


def main() -> int:
    """Write or check."""
    if "--check" in sys.argv[1:]:
        found = stale()
        print(f"out of date: {', '.join(found)}" if found else "the reference is what the code says")
        return 1 if found else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
