"""`modelyard fine-tune`: a durable job that ends in a network that has learned rows of the user's."""

from pathlib import Path
from typing import Any

import click

from modelyard.cli.candidates import make_version
from modelyard.cli.output import json_option
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.domain.job_kinds.fine_tune import KEEP, NEW


@click.command("fine-tune", short_help="Teach a network rows of yours, or other labels.")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option("--sample", required=True, type=click.Path(path_type=Path), help="Rows: a .csv or .npz file.")
@click.option("--target", required=True, help="The column of the sample that holds the right answers.")
@click.option(
    "--head",
    type=click.Choice((KEEP, NEW)),
    default=KEEP,
    show_default=True,
    help="The last layer goes on from what it knows, or is made anew for the labels of the sample.",
)
@click.option(
    "--frozen", type=int, default=0, show_default=True, help="Layers from the input on that stay as they are."
)
@click.option("--rate", type=float, default=1e-3, show_default=True, help="The rate of learning of the last layer.")
@click.option(
    "--rate-decay", type=float, default=1.0, show_default=True, help="How much slower each layer before learns."
)
@click.option("--epochs", type=int, default=50, show_default=True, help="Times through the rows at most.")
@click.option("--batch", type=int, default=64, show_default=True, help="Rows of a step.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="The part between layers that is blanked.")
@click.option("--mixup", type=float, default=0.0, show_default=True, help="How far rows are mixed.")
@click.option("--penalty", type=float, default=0.0, show_default=True, help="The strength of the penalty on weights.")
@click.option("--held-out", type=float, default=0.3, show_default=True, help="The part of the sample to judge by.")
@click.option("--name", help="The model whose version it becomes; without it, the same.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the new version.")
@json_option
@platform_command
def fine_tune(client: Client, *, model: str, sample: Path, wait: bool, as_json: bool, **options: Any) -> int:  # noqa: ANN401
    """Teach a network that is served as ONNX rows of yours, and offer it as a new version. Needs modelyard[train].

    Example: modelyard fine-tune digits:1 --sample letters.npz --target letter --head new --frozen 1 --name letters
    """
    return make_version(client, "fine-tune", model, sample, options, wait=wait, as_json=as_json, show=_print_outcome)


def _print_outcome(result: dict[str, Any]) -> None:
    click.echo(
        f"learned    {result['epochs']} epochs, {result['layers']['frozen']} of {result['layers']['all']} layers frozen"
    )
    before = "the most frequent label" if result["gain"] is None else "before"
    click.echo(
        f"{result['measure']:<10} {result['after']:.4g} ({before}: {result['before']:.4g},"
        f" {result['rows']['held_out']} held-out rows)"
    )
