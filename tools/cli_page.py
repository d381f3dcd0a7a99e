"""The reference page of the command line, made from the commands themselves."""

from collections.abc import Iterator
from inspect import cleandoc

import click

from modelyard.cli.main import SECTIONS, commands

_BREAK = "\b"


def cli_page(made: str) -> str:
    """Every command with its usage, help and options."""
    lines = [
        "# Command line\n\n",
        made,
        "`modelyard COMMAND --help` says the same. `--json` prints data for scripts. Every option can be given in the\n"
        "environment too, as `MODELYARD_<COMMAND>_<OPTION>`. Exit codes: 0 done, 1 refused or failed, 2 wrong use,\n"
        "3 needs review, 4 a plan has changes.\n",
    ]
    context = click.Context(commands, info_name="modelyard")
    for section, names in SECTIONS.items():
        lines.append(f"\n## {section}\n")
        for name in names:
            command = commands.get_command(context, name)
            assert command is not None, name
            for path, each in _leaves(command, f"modelyard {name}"):
                lines.extend(_describe(each, path))
    return "".join(lines)


def _leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, each in command.commands.items():
        yield from _leaves(each, f"{path} {name}")


def _describe(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n### `{path}`\n\n```text\n{path} {usage}\n```\n\n{_help(command.help or '')}\n"
    rows = [each.get_help_record(context) for each in command.get_params(context)]
    found = [row for row in rows if row is not None]
    if found:
        yield "\n| option | meaning |\n|---|---|\n"
        for flags, text in found:
            yield f"| `{_cell(flags)}` | {_cell(text)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _help(text: str) -> str:
    paragraphs = [part.strip("\n") for part in cleandoc(text).split("\n\n")]
    return "\n\n".join(
        f"```text\n{part.removeprefix(_BREAK).strip()}\n```" if part.startswith(_BREAK) else part for part in paragraphs
    )
