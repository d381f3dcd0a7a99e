"""The command group: knows every command by name and imports one only when it is asked for, so that a start is quick.

Exit codes: 0 done, 1 refused or failed, 2 wrong use, 3 needs review, 4 a plan has changes.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from modelyard.cli.output import complain
from modelyard.domain.errors import ModelyardError
from modelyard.version import __version__

SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Start": {
        "serve": ("modelyard.cli.serve:serve", "Serve one model file: audit it, explain it, answer over HTTP."),
        "up": ("modelyard.cli.up:up", "Start the whole platform on this machine."),
    },
}
"""Section of the help → command → where it is (`module:attribute`) and its line in the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the order of the help."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        for commands in SECTIONS.values():
            if cmd_name in commands:
                module, _, attribute = commands[cmd_name][0].partition(":")
                command = getattr(import_module(module), attribute)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list of commands, by section, without importing any."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, line) for name, (_, line) in commands.items()])


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "MODELYARD",
    },
)
@click.version_option(__version__, prog_name="modelyard")
def commands() -> None:
    r"""From a trained model file to a service that people trust.

    \b
    modelyard serve model.joblib      one file, one command, one endpoint
    modelyard up                      the whole platform on this machine
    """


def main() -> None:
    """Run the command line; every error that we know ends in words, not in a traceback."""
    try:
        code = commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModelyardError as error:
        complain(error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
