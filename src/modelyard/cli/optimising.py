"""Commands that make models better: each is a durable job that ends in a candidate version."""

from pathlib import Path
from typing import Any

import click

from modelyard.cli.candidates import make_version
from modelyard.cli.output import json_option
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.domain.job_kinds.compress import COMPRESSION_METHODS


@click.command(short_help="A smaller form of a model, no worse than you allow.")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option(
    "--sample", required=True, type=click.Path(path_type=Path), help="Rows to judge it by: a .csv, .npy or .npz file."
)
@click.option("--target", help="The column of the sample that holds the right answers; without it, the model's own.")
@click.option(
    "--method",
    type=click.Choice(COMPRESSION_METHODS),
    default="int8",
    show_default=True,
    help="8-bit weights; weights and activations; 16-bit numbers; a graph with less in it; fewer trees; a network"
    " without its smallest weights, or without hidden units.",
)
@click.option("--max-drop", type=float, default=0.5, show_default=True, help="Points that may be lost.")
@click.option("--name", help="The model whose version it becomes; without it, the same.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the new version.")
@json_option
@platform_command
def compress(  # noqa: PLR0913  (the command line's options)
    client: Client,
    *,
    model: str,
    sample: Path,
    target: str | None,
    method: str,
    max_drop: float,
    name: str | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Make a smaller form of a version that is served as ONNX, and offer it as a new version.

    Example: modelyard compress digits:1 --sample held-out.csv --target digit --max-drop 0.5
    """
    parameters = {"method": method, "max_drop": max_drop, "target": target, "name": name}
    return make_version(client, "compress", model, sample, parameters, wait=wait, as_json=as_json, show=_print_outcome)


def _print_outcome(result: dict[str, Any]) -> None:
    drop, size, times = result["drop"], result["size"], result["time"]
    interval = f"{drop['low']:g} to {drop['high']:g}, {drop['rows']} rows"
    click.echo(f"size   {size['ratio']:.2f} of the original ({size['after_bytes']} bytes)")
    click.echo(f"loss   {drop['points']:g} points of {drop['measure']} ({interval})")
    click.echo(
        f"speed  {times['one']['times_quicker']:g} times for a row, {times['batch']['times_quicker']:g} for a batch"
    )
    if result["left_out"]:
        click.echo(f"kept   {', '.join(result['left_out'])}, which would have cost too much")
    if result["trees"]:
        click.echo(f"trees  {result['trees']['after']} of {result['trees']['before']}")
    if result["pruned"]:
        click.echo(
            f"taken  {result['pruned']['part']:.0%}; packed {result['pruned']['packed']['ratio']:.2f} of the original"
        )
