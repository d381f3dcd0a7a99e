"""`modelyard tune`: a durable search for the parameters of a recipe, or of a training script, that do best."""

from pathlib import Path
from typing import Any

import click

from modelyard.cli.candidates import conclude
from modelyard.cli.documents import given_document, read_document
from modelyard.cli.output import json_option
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.client.working import give_file, submit
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.tune import GRID, HYPERBAND, MEDIAN, NONE, RANDOM, TPE

_SHOWN: int = 10


@click.command(short_help="Search for the parameters that do best.")
@click.argument("what", metavar="SCRIPT.py|RECIPE", type=click.Path(path_type=Path))
@click.option("--space", required=True, help="What each parameter may be: a .json or .yaml file, or JSON in place.")
@click.option(
    "--metric",
    "metrics",
    required=True,
    multiple=True,
    help="What is to be best: NAME, NAME:maximise or NAME:minimise. Several: all that no other beats in each.",
)
@click.option("--data", type=click.Path(path_type=Path), help="The rows.")
@click.option(
    "--method", type=click.Choice((GRID, RANDOM, TPE)), default=TPE, show_default=True, help="How it searches."
)
@click.option("--trials", type=int, default=30, show_default=True, help="Trials at most.")
@click.option("--parallel", type=int, default=1, show_default=True, help="Trials at once.")
@click.option(
    "--pruning",
    type=click.Choice((NONE, MEDIAN, HYPERBAND)),
    default=NONE,
    show_default=True,
    help="End hopeless trials early.",
)
@click.option("--trial-seconds", type=float, help="How long a trial may take.")
@click.option("--trial-memory-mb", type=float, help="How much memory a trial may hold.")
@click.option("--trial-disk-mb", type=float, help="How much a trial may write.")
@click.option("--fixed", help="Further parameters of a script: a file, or JSON in place.")
@click.option("--name", help="The model whose version the best becomes; without it, none is offered.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end.")
@json_option
@platform_command
def tune(  # noqa: PLR0913  (the command line's options)
    client: Client,
    *,
    what: Path,
    space: str,
    metrics: tuple[str, ...],
    data: Path | None,
    fixed: str | None,
    wait: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> int:
    """Search over a training script of yours, or over a recipe as `modelyard train` takes it.

    Example: modelyard tune train.py --space '{"depth": {"low": 1, "high": 9, "whole": true}}' --metric accuracy
    """
    parameters = {key: value for key, value in options.items() if value is not None}
    parameters |= {"space": given_document(space, "space"), "metrics": list(metrics)}
    inputs: dict[str, Any] = {}
    if what.suffix == ".py":
        inputs["script"] = give_file(client, what)
        if fixed:
            parameters["fixed"] = given_document(fixed, "list of fixed parameters")
    elif fixed:
        raise InvalidRequest("a recipe holds what is fixed itself", hint="leave --fixed out")
    else:
        parameters["recipe"] = read_document(what, "recipe")
    if data is not None:
        inputs["data"] = give_file(client, data)
    job = submit(client, "tune", parameters, inputs)
    return conclude(client, job, wait=wait, as_json=as_json, show=_print_outcome)


def _print_outcome(result: dict[str, Any]) -> None:
    counts = result["trials"]
    click.echo("trials   " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    for each in (result["front"] or [result["best"]])[:_SHOWN]:
        values = ", ".join(f"{name} {value:.5g}" for name, value in each["values"].items())
        chosen = ", ".join(f"{name}={value}" for name, value in each["parameters"].items())
        click.echo(f"best     {values}   ({chosen}; trial {each['number']})")
    if result["importances"]:
        click.echo("matters  " + ", ".join(f"{name} {part:.2g}" for name, part in result["importances"].items()))
    made = result["version"] or {}
    if "held_out" in made:
        held = made["held_out"]
        interval = f"{held['low']:.5g} to {held['high']:.5g}, {held['rows']} rows"
        click.echo(f"held out {held['metric']} {held['value']:.5g} ({interval})")
    for each in result["failures"][:3]:
        click.echo(f"failed   trial {each['number']}: {each['reason']}")
