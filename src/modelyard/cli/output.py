"""What the commands print: data to stdout, talk to stderr, readable without colour, JSON where a script reads."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from modelyard.domain.errors import ModelyardError
from modelyard.domain.report import Check, Outcome

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
NEEDS_REVIEW: Final = 3
"""Exit code of a command whose model waits for a person."""
F = TypeVar("F", bound=Callable[..., Any])
MARKS = {
    Outcome.PASSED: ("ok", "green"),
    Outcome.WARNING: ("!", "yellow"),
    Outcome.NEEDS_REVIEW: ("?", "yellow"),
    Outcome.FAILED: ("x", "red"),
    Outcome.SKIPPED: ("-", "bright_black"),
}


def json_option(command: F) -> F:
    """Adds `--json` to a command that prints data."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def complain(error: ModelyardError) -> None:
    """Title, detail and at most one hint, on stderr."""
    click.secho(f"error: {error.title}", fg="red", err=True)
    click.echo(f"  {error.detail}", err=True)
    for row in error.details:
        if "check" not in row:  # failed checks were shown as they ended
            click.echo("  " + ", ".join(f"{key}: {value}" for key, value in row.items()), err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    if error.example is not None:
        click.echo(f"example: {json.dumps(error.example, ensure_ascii=False)}", err=True)


def say(text: str = "") -> None:
    """One line of talk, on stderr."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """`value` as indented JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(rows: Sequence[Mapping[str, object]], columns: Iterable[str], *, empty: str) -> None:
    """Columns as wide as they need to be; `empty` goes to stderr when there are no rows."""
    names = list(columns)
    if not rows:
        say(empty)
        return
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    heads = [name.upper().removesuffix("_AT").replace("_", " ") for name in names]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(names))]
    for line in [heads, *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_check(check: Check) -> None:
    """One audit check as it finishes."""
    mark, colour = MARKS[check.outcome]
    shown = click.style(f"{mark:>3}", fg=colour)
    click.echo(f"{shown}  {check.name:<22} {check.summary}  {click.style(_milliseconds(check.duration_s), dim=True)}")
    if check.hint:
        click.echo(f"     {'':<22} hint: {check.hint}")


def is_terminal() -> bool:
    """Whether a person is watching stdout."""
    return sys.stdout.isatty()


def size_text(size: int) -> str:
    """Bytes in the largest binary unit that fits."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:  # noqa: PLR2004  (binary units)
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _cell(value: object) -> str:
    if value is None or value in ("", [], {}, ()):
        return "-"
    match value:
        case {"name": name}:
            return str(name)
        case dict():
            return ", ".join(f"{key}={_cell(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(_cell(item) for item in value)
        case float():
            return f"{value:.3g}"
        case str() if _MOMENT.fullmatch(value):
            return value[:19].replace("T", " ")
        case _:
            return str(value)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 else ""  # noqa: PLR2004  (half a millisecond rounds to none)
