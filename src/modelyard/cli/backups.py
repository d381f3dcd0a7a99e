"""Commands that keep a platform: copy it whole, put it back."""

from pathlib import Path

import click

from modelyard.cli.output import json_option, print_json, size_text
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.foundation.places import default_data_directory


@click.command(short_help="Copy the whole platform into one file.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@platform_command
def backup(client: Client, *, file: Path, as_json: bool) -> None:
    """Write models, services, keys and history into FILE, while the platform works.

    FILE also holds the secrets that keys are checked with: it is readable by you alone, keep it so.

    Example: modelyard backup monday.modelyard
    """
    saved = client.backup(file)
    if as_json:
        print_json({**saved.summary, "file": str(saved.path), "size_bytes": saved.size_bytes, "sha256": saved.sha256})
        return
    click.echo(f"{saved.path}  {size_text(saved.size_bytes)}  sha256 {saved.sha256[:16]}…")
    held = saved.summary
    click.echo(
        f"  {held['models']} models, {held['versions']} versions, {held['services']} services, "
        f"{held['history']} history entries"
    )


@click.command(short_help="Put a backup back into an empty place.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Data directory; empty or not there.")
@click.option("--settings", type=click.Path(path_type=Path, exists=True), help="Settings that name another database.")
@click.option("--check", is_flag=True, help="Only say whether FILE is whole, and what it holds.")
@json_option
def restore(*, file: Path, data: Path | None, settings: Path | None, check: bool, as_json: bool) -> None:
    """Restore FILE into an empty data directory; `modelyard up --data` starts it there.

    Where the settings name a PostgreSQL database (records.url), which has to be empty, the records go there.

    Example: modelyard restore monday.modelyard --data ./yard-again
    """
    from modelyard.processes.restoring import look_into, restore_into

    if check:
        summary, digest = look_into(file)
        place = None
    else:
        restored = restore_into(file, data or default_data_directory(), settings=settings)
        summary, digest, place = restored.summary, restored.sha256, restored.data
    if as_json:
        print_json({"backup": summary.id, "made_at": summary.made_at, "sha256": digest, "data": place})
        return
    what = f"{summary.models} models, {summary.versions} versions, {summary.services} services"
    click.echo(f"{'whole' if place is None else 'restored'}  {summary.id} of {summary.made_at[:19]}: {what}")
    if place is not None:
        click.echo(f"\nnext:  modelyard up --data {place}")
