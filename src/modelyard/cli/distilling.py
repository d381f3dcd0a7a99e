"""`modelyard distil`: a durable job that ends in a small model that answers as a larger one does."""

from pathlib import Path
from typing import Any

import click

from modelyard.cli.candidates import make_version
from modelyard.cli.output import json_option
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.domain.job_kinds.distil import AUTO, STUDENTS


@click.command(short_help="A small model that answers as a larger one does.")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option("--sample", required=True, type=click.Path(path_type=Path), help="Rows: a .csv, .npy or .npz file.")
@click.option("--target", help="The column of the sample that holds the right answers, to compare accuracy.")
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help="What it has answered to the rows already: a .csv or .jsonl file, as `modelyard batch` writes it.",
)
@click.option(
    "--student",
    type=click.Choice((*STUDENTS, AUTO)),
    default=AUTO,
    show_default=True,
    help="What learns; auto tries all and takes the quickest that is good enough.",
)
@click.option("--max-disagreement", type=float, default=1.0, show_default=True, help="Points that may differ.")
@click.option("--generate", type=int, default=20_000, show_default=True, help="Rows to make by mixing the sample's.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Softens the teacher's probabilities.")
@click.option("--held-out", type=float, default=0.3, show_default=True, help="The part of the sample to judge by.")
@click.option("--name", help="The model whose version it becomes; without it, the same.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the new version.")
@json_option
@platform_command
def distil(
    client: Client,
    *,
    model: str,
    sample: Path,
    answers: Path | None,
    wait: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> int:
    """Teach a small model what a version answers, or has answered, and offer it as a new version.

    Example: modelyard distil digits:1 --sample rows.csv --target digit --student network
    """
    more = {"answers": answers}
    return make_version(
        client, "distil", model, sample, options, wait=wait, as_json=as_json, show=_print_outcome, more=more
    )


def _print_outcome(result: dict[str, Any]) -> None:
    differs, times = result["disagreement"], result["time"]
    click.echo(f"student    {result['student']}, {result['size']['after_bytes']} bytes")
    click.echo(
        f"differs    {differs['points']:g} points of {differs['measure']}"
        f" ({differs['low']:g} to {differs['high']:g}, {differs['rows']} held-out rows)"
    )
    if result["accuracy"]:
        click.echo(
            f"score      {result['accuracy']['before']:.4g} → {result['accuracy']['after']:.4g}"
            f" ({result['accuracy']['measure']})"
        )
    if "times_quicker" not in times["one"]:
        click.echo(f"speed      {times['one']['after_us']:g} µs for a row")
        return
    click.echo(
        f"speed      {times['one']['times_quicker']:g} times for a row, {times['batch']['times_quicker']:g} for a batch"
    )
