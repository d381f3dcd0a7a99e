"""`modelyard train`: a durable job that trains a version by a recipe, or teaches one that was trained so more."""

from pathlib import Path
from typing import Any

import click

from modelyard.cli.candidates import conclude, split_model
from modelyard.cli.documents import read_document
from modelyard.cli.output import json_option
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.client.working import give_file, submit
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.estimators import ESTIMATORS


@click.command(short_help="Train a version by a recipe, or teach one more.")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Rows with the target: a .csv, .jsonl, .npz or .parquet file.",
)
@click.option("--recipe", type=click.Path(path_type=Path), help="The recipe: a .json or .yaml file.")
@click.option("--target", help="Without a recipe: the column to predict, by a recipe that says no more.")
@click.option("--estimator", type=click.Choice(tuple(ESTIMATORS)), default="boosted", show_default=True)
@click.option("--earlier", type=click.Path(path_type=Path), help="Going on: rows of before, to replay and to compare.")
@click.option("--rounds", type=int, help="Going on: passes over the rows, or trees or rounds to add.")
@click.option("--replay", type=float, help="Going on: earlier rows to learn from again, in parts of the new ones.")
@click.option("--only-if-drift", type=float, help="Going on: do nothing below this population stability index.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the new version.")
@json_option
@platform_command
def train(  # noqa: PLR0913  (the command line's options)
    client: Client,
    *,
    model: str,
    data: Path,
    recipe: Path | None,
    target: str | None,
    estimator: str,
    earlier: Path | None,
    wait: bool,
    as_json: bool,
    **going_on: Any,  # noqa: ANN401
) -> int:
    """Train a new version of NAME by a recipe, judged on held-out rows; or teach NAME:VERSION further rows.

    Example: modelyard train churn --data customers.csv --recipe recipe.yaml
    """
    name, version = split_model(model, command="train")
    inputs: dict[str, Any] = {"data": give_file(client, data)}
    parameters: dict[str, Any] = {key: value for key, value in going_on.items() if value is not None}
    if version:
        if recipe or target:
            raise InvalidRequest(
                "a version is taught more by its own recipe",
                hint=f"leave --recipe and --target out, or name {name} without a version to train anew",
            )
        inputs["model"] = {"model": name, "version": version}
        parameters["parent"] = f"{name}:{version}"
    else:
        parameters |= {"name": name, "recipe": _recipe(recipe, target, estimator)}
    if earlier is not None:
        inputs["earlier"] = give_file(client, earlier)
    job = submit(client, "train", parameters, inputs)
    return conclude(client, job, wait=wait, as_json=as_json, show=_print_outcome)


def _recipe(path: Path | None, target: str | None, estimator: str) -> dict[str, Any]:
    if path is None:
        if not target:
            raise InvalidRequest(
                "say what is to be learned", hint="--recipe FILE, or --target COLUMN; or NAME:VERSION to teach it more"
            )
        return {"target": target, "estimator": estimator}
    if target:
        raise InvalidRequest("the recipe names its target itself", hint="leave --target out")
    return read_document(path, "recipe")


def _print_outcome(result: dict[str, Any]) -> None:
    if result.get("trained") is False:
        column, index = next(iter(result["drift"].items()))
        click.echo(
            f"no version: the rows have not drifted (most: {column} {index:g}, asked {result['only_if_drift']:g})"
        )
        return
    held = result["held_out"]
    click.echo(f"learned    {result['estimator']}, {result['task']}")
    click.echo(
        f"{held['metric']:<10} {held['value']:.4g} ({held['low']:.4g} to {held['high']:.4g},"
        f" {held['rows']} held-out rows)"
    )
    if "before" in result:
        for rows, before in result["before"].items():
            click.echo(f"{rows + ' rows':<13} {before:.4g} → {result['after'][rows]:.4g}")
        return
    if result["baseline"]["value"] is not None:
        click.echo(f"baseline   {result['baseline']['value']:.4g}")
    if result["folds"]:
        click.echo(f"folds      {result['folds']['mean']:.4g} ± {result['folds']['spread']:.2g}")
    if result["threshold"]:
        click.echo(f"threshold  {result['threshold']['value']:.4g} for {result['threshold']['class']}")
    for warning in result["warnings"]:
        click.echo(f"note       {warning}")
