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
    "Library": {
        "upload": ("modelyard.cli.library:upload", "Send a model to the upload centre."),
        "models": ("modelyard.cli.library:models", "List models."),
        "search": ("modelyard.cli.library:search", "Search the library."),
        "versions": ("modelyard.cli.library:versions", "List a model's versions."),
        "show": ("modelyard.cli.library:show", "Show a model or a version with its audit."),
        "reviews": ("modelyard.cli.library:reviews", "What needs a person."),
        "approve": ("modelyard.cli.library:approve", "Approve a version."),
        "reject": ("modelyard.cli.library:reject", "Reject a version."),
        "alias": ("modelyard.cli.library:alias", "Point an alias at a version."),
        "tag": ("modelyard.cli.library:tag", "Add and take away tags of a model."),
        "share": ("modelyard.cli.library:share", "Say who may see a model."),
        "download": ("modelyard.cli.library:download", "Fetch a version's files."),
        "copy": ("modelyard.cli.copying:copy", "Copy a version to another platform."),
        "archive": ("modelyard.cli.library:archive", "Put a version out of use."),
        "delete": ("modelyard.cli.library:delete", "Delete a version."),
        "import": ("modelyard.cli.migrate:import_", "Bring models in from another registry."),
        "pack": ("modelyard.cli.migrate:pack", "Write a bundle in the author's own environment."),
    },
    "Services": {
        "deploy": ("modelyard.cli.deploying:deploy", "Create or change a service."),
        "services": ("modelyard.cli.services:services", "List services."),
        "status": ("modelyard.cli.services:status", "How a service stands, and why."),
        "predict": ("modelyard.cli.services:predict", "Ask a service."),
        "result": ("modelyard.cli.services:result", "The answer to a request that was asked with --async."),
        "rollout": ("modelyard.cli.deploying:rollout", "Look at and move what is on its way: status, promote, abort."),
        "shadow": ("modelyard.cli.comparing:shadow", "How a shadow's answers compare: report."),
        "revisions": ("modelyard.cli.deploying:revisions", "List a service's revisions."),
        "rollback": ("modelyard.cli.deploying:rollback", "Go back to an earlier revision."),
        "scale": ("modelyard.cli.deploying:scale", "Change the number of workers."),
        "plan": ("modelyard.cli.manifests:plan", "What applying manifests would do."),
        "diff": ("modelyard.cli.manifests:diff", "Which fields applying manifests would change."),
        "apply": ("modelyard.cli.manifests:apply", "Apply manifests, all or none."),
        "export": ("modelyard.cli.manifests:export", "Write manifests of what is deployed."),
        "undeploy": ("modelyard.cli.deploying:undeploy", "Take a service away."),
        "nodes": ("modelyard.cli.nodes:nodes", "What runs where."),
        "node": ("modelyard.cli.nodes:node", "Show a node, cordon it, drain it."),
    },
    "Durable work": {
        "batch": ("modelyard.cli.jobs:batch", "Predictions for every row of a file."),
        "train": ("modelyard.cli.training:train", "Train a version by a recipe, or teach one more."),
        "tune": ("modelyard.cli.tuning:tune", "Search for the parameters that do best."),
        "fine-tune": ("modelyard.cli.fine_tuning:fine_tune", "Teach a network rows of yours, or other labels."),
        "compress": ("modelyard.cli.optimising:compress", "A smaller form of a model, no worse than you allow."),
        "optimise": ("modelyard.cli.latency:optimise", "The cheapest way to serve a model within a latency."),
        "measure": ("modelyard.cli.latency:measure", "What 99 of 100 requests to a service are answered within."),
        "distil": ("modelyard.cli.distilling:distil", "A small model that answers as a larger one does."),
        "stream": ("modelyard.cli.streaming:stream", "Bind a service to topics of a message broker."),
        "jobs": ("modelyard.cli.jobs:jobs", "List jobs."),
        "job": ("modelyard.cli.jobs:job", "One job: look, follow, cancel, retry, fetch."),
        "dead-letters": ("modelyard.cli.jobs:dead_letters", "Jobs that failed for good."),
    },
    "Governance": {
        "keys": ("modelyard.cli.governance:keys", "API keys: bootstrap, create, list, revoke."),
        "secrets": ("modelyard.cli.secrets:secrets", "Sealed secrets: set, list, delete."),
        "projects": ("modelyard.cli.governance:projects", "Projects: list, create."),
        "history": ("modelyard.cli.governance:history", "Who did what, what was live when."),
    },
    "Keep": {
        "backup": ("modelyard.cli.backups:backup", "Copy the whole platform into one file."),
        "restore": ("modelyard.cli.backups:restore", "Put a backup back into an empty place."),
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
    """From a trained model file to a service that people trust.

    \b
    modelyard serve model.joblib      one file, one command, one endpoint
    modelyard up                      the whole platform on this machine
    """  # noqa: D301  (click reads \b as "keep these lines")


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
