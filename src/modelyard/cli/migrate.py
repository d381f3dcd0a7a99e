"""Commands that bring models in: from MLflow, or packed in their author's environment."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.client.mlflow import Fate, PlanLine, Source, carry_out, open_source, plan
from modelyard.client.pack import pack as pack_model


class PlatformUploader:
    """An import's way into the platform: uploads, then points the aliases."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def upload(
        self,
        name: str,
        files: Sequence[Path],
        *,
        aliases: Sequence[str],
        tags: Mapping[str, str],
        source: Mapping[str, str],
    ) -> str:
        """Upload one version; what it was called and tagged there is kept as its source."""
        version = self._client.upload(list(files), name=name, source={**source, "tags": dict(tags)})
        for alias in aliases:
            self._client.set_alias(name, alias, version.version)
        return version.version


@click.group("import", short_help="Bring models in from another registry.")
def import_() -> None:
    """Import models from another registry."""


@import_.command()
@click.argument("uri")
@click.option("--dry-run", is_flag=True, help="Only say what would happen, a line a version.")
@click.option("--token", help="Bearer token of the MLflow server.")
@json_option
@platform_command
def mlflow(client: Client, *, uri: str, dry_run: bool, token: str | None, as_json: bool) -> int:
    """Import the models of an MLflow server or folder: URI is http(s)://… or a directory.

    Names, aliases, tags and run ids are kept; mlflow itself is not needed.

    Example: modelyard import mlflow http://127.0.0.1:5000 --dry-run
    """
    source = open_source(uri, token=token)
    lines = plan(source)
    if dry_run or not as_json:
        _print_plan(lines, as_json=as_json)
    if dry_run:
        return 0
    done = list(_imported(client, source, lines, as_json=as_json))
    if as_json:
        print_json(done)
    return 1 if any(row["error"] for row in done) else 0


def _imported(
    client: Client, source: Source, lines: Sequence[PlanLine], *, as_json: bool
) -> Iterator[dict[str, str | None]]:
    for done in carry_out(source, lines, PlatformUploader(client)):
        origin = f"{done.line.origin.name} {done.line.origin.version}"
        if not as_json:
            result = f"{done.line.name}:{done.version}" if done.error is None else f"not taken: {done.error}"
            click.echo(f"{origin} → {result}")
        error = None if done.error is None else str(done.error)
        yield {"from": origin, "name": done.line.name, "version": done.version, "error": error}


@click.command(short_help="Write a bundle in the author's own environment.")
@click.argument("source", metavar="FILE|MODULE:OBJECT")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Archive to write.  [default: NAME.zip]")
@click.option(
    "--sample", type=click.Path(path_type=Path, exists=True), help="Rows as the model is asked: .csv or .npy."
)
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Label map: .json, .txt or .csv.")
@click.option("--name", help="Name of the model; without it, the file's own name.")
@json_option
def pack(
    *, source: str, out: Path | None, sample: Path | None, labels: Path | None, name: str | None, as_json: bool
) -> None:
    """Write a bundle of a fitted model, to be uploaded anywhere.

    Run it where the model was trained: it loads the model, which executes the author's own code, turns it into ONNX
    where the answers stay equal, and adds a sample and golden answers.

    Example: modelyard pack model.joblib --sample rows.csv
    """
    packed = pack_model(source, out=out, sample=sample, labels=labels, name=name)
    if as_json:
        print_json({"path": packed.path, "name": packed.name, "converted": packed.converted, "files": packed.files})
        return
    for note in packed.notes:
        say(note)
    click.echo(packed.path)


def _print_plan(lines: Sequence[PlanLine], *, as_json: bool) -> None:
    rows = [
        {
            "model": line.origin.name,
            "version": line.origin.version,
            "becomes": line.name,
            "fate": line.fate.value,
            "aliases": list(line.origin.aliases),
            "run": line.origin.run_id,
            "reason": line.reason,
        }
        for line in lines
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        rows, ("model", "version", "becomes", "fate", "aliases", "reason"), empty="no models are registered there"
    )
    counts = {fate: sum(line.fate is fate for line in lines) for fate in Fate}
    say(", ".join(f"{count} {fate.value}" for fate, count in counts.items()))
