"""Commands for durable work: submit, look, follow, cancel, retry, fetch what came out."""

from pathlib import Path
from typing import Any

import click

from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls
from modelyard.client.working import download as fetch
from modelyard.client.working import follow, give_file, require_success, submit

_COLUMNS = ("id", "kind", "service", "state", "done", "attempt", "created_at")


@click.command(short_help="Predictions for every row of a file.")
@click.argument("service")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A .csv, .jsonl, .npy or .parquet file of rows."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where the predictions go; without it, beside the data.")
@click.option("--output", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True, help="Form of them.")
@click.option("--version", help="Version to ask; without it, the one that has the traffic.")
@click.option("--priority", type=click.IntRange(0, 9), help="Higher goes first.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait, and fetch the predictions.")
@json_option
@platform_command
def batch(  # noqa: PLR0913  (the command line's options)
    client: Client,
    *,
    service: str,
    data: Path,
    out: Path | None,
    output: str,
    version: str | None,
    priority: int | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Ask SERVICE for a prediction for every row of a file: a durable job, taken up where it was when something dies.

    Example: modelyard batch digits --data rows.csv --out labels.csv
    """
    parameters = {"service": service, "output": output, **({} if version is None else {"version": version})}
    job = submit(client, "batch-inference", parameters, {"data": give_file(client, data)}, priority=priority)
    if not wait:
        print_accepted(job, as_json=as_json)
        return
    done = require_success(follow(client, job["id"], on_progress=tell))
    target = out or data.with_name(f"{data.stem}.predictions.{output}")
    [fetched] = fetch(client, done, target.parent / f".{job['id']}")
    fetched.replace(target)
    fetched.parent.rmdir()
    if as_json:
        print_json({**done, "out": str(target)})
    else:
        say(f"{done['result']['rows']} rows in {target}")


@click.command(short_help="List jobs.")
@click.option("--state", help="Only these: scheduled, queued, running, succeeded, failed, cancelled, dead.")
@click.option("--kind", help="Only of this kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Jobs.")
@json_option
@platform_command
def jobs(client: Client, *, state: str | None, kind: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    _print_jobs(client, as_json=as_json, state=state, kind=kind, limit=limit)


@click.command("dead-letters", short_help="Jobs that failed for good.")
@json_option
@platform_command
def dead_letters(client: Client, *, as_json: bool) -> None:
    """List jobs that failed their last attempt. `modelyard job ID --log` says why, `--retry` tries again."""
    _print_jobs(client, as_json=as_json, state="dead", kind=None, limit=100)


@click.command(short_help="One job: look, follow, cancel, retry, fetch.")
@click.argument("job_id", metavar="ID")
@click.option("--follow", "does", flag_value="follow", help="Show its progress until it is over.")
@click.option("--cancel", "does", flag_value="cancel", help="End it.")
@click.option("--retry", "does", flag_value="retry", help="Try it again, with all its attempts.")
@click.option("--log", "does", flag_value="log", help="What its last attempt printed.")
@click.option("--download", type=click.Path(path_type=Path, file_okay=False), help="Fetch its files into a directory.")
@json_option
@platform_command
def job(client: Client, *, job_id: str, does: str | None, download: Path | None, as_json: bool) -> int:
    """Show job ID, for example: modelyard job job_01m8bx --follow. Ends with 1 when it failed."""
    if does == "log":
        click.echo(client.request("GET", f"{client.connection.url}/api/v1/jobs/{job_id}/log").text, nl=False)
        return 0
    if does in ("cancel", "retry"):
        document = client.send(calls.act("jobs", job_id, does))
    elif does == "follow":
        document = follow(client, job_id, on_progress=tell)
    else:
        document = client.send(calls.read("jobs", job_id))
    if download is not None:
        for path in fetch(client, require_success(document), download):
            say(str(path))
    if as_json:
        print_json(document)
    else:
        _print_job(document)
    return 1 if document["state"] in ("failed", "dead") else 0


def tell(document: dict[str, Any]) -> None:
    """One line of progress, to stderr."""
    progress = document["progress"]
    share = progress.get("done")
    part = "" if share is None else f"  {share:.0%}"
    say(f"{document['state']}{part}  {progress.get('text', '')}".rstrip())


def print_accepted(document: dict[str, Any], *, as_json: bool) -> None:
    """The id of a job that nobody waits for."""
    if as_json:
        print_json(document)
        return
    click.echo(document["id"])
    say(f"accepted; modelyard job {document['id']} --follow")


def _print_jobs(client: Client, *, as_json: bool, state: str | None, kind: str | None, limit: int) -> None:
    found = client.send(calls.listing("jobs", project=client.connection.project, state=state, kind=kind, limit=limit))
    if as_json:
        print_json(found)
        return
    for row in found:
        share = row["progress"].get("done")
        row["done"] = "" if share is None else f"{share:.0%}"
    print_table(found, _COLUMNS, empty="no jobs")


def _print_job(document: dict[str, Any]) -> None:
    click.echo(f"{document['id']}  {document['kind']}  {document['state']}")
    progress = document["progress"].get("text")
    if progress:
        click.echo(f"  {progress}")
    error = document.get("error")
    if error:
        click.echo(f"  {error['title']}: {error['detail']}" + (f"\n  hint: {error['hint']}" if error["hint"] else ""))
    for name, value in (document.get("result") or {}).items():
        click.echo(f"  {name}: {value}")
    for file in document.get("files") or ():
        click.echo(f"  file {file['name']}, {file['size_bytes']} bytes")
    for attempt in document.get("attempts") or ():
        click.echo(f"  attempt {attempt['attempt']} by {attempt['worker']}: {attempt['outcome'] or 'under way'}")
