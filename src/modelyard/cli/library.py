"""Commands for the model library: upload, look, review, name, share, take away."""

from collections.abc import Mapping
from pathlib import Path

import click

from modelyard.cli.output import NEEDS_REVIEW, json_option, print_check, print_json, print_table, say
from modelyard.cli.platform import platform_command, split_reference
from modelyard.client import Client, RemoteError, Version, calls
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.names import require_name, suggest_name
from modelyard.domain.report import Check
from modelyard.foundation.documents import from_plain


@click.command(short_help="Send a model to the upload centre.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model; without it, the file's own name.")
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Label map: .json, .txt or .csv.")
@click.option("--config", type=click.Path(path_type=Path, exists=True), help="Bundle configuration.")
@click.option("--alias", help="Alias to point at the new version, such as champion.")
@json_option
@platform_command
def upload(  # noqa: PLR0913  (one parameter an option)
    client: Client,
    *,
    path: Path,
    name: str | None,
    labels: Path | None,
    config: Path | None,
    alias: str | None,
    as_json: bool,
) -> int:
    """Upload PATH (a file, a bundle directory or an archive) and show the audit as it runs.

    Example: modelyard upload digits.joblib --name digits --labels labels.json
    """
    name = require_name(name, what="model name") if name else suggest_name(path.resolve().name.split(".")[0])
    on_check = None if as_json else print_document
    try:
        version = client.upload(path, name=name, labels=labels, config=config, alias=alias, on_check=on_check)
    except RemoteError as error:
        if as_json:
            print_json(error.document)
            return 1
        raise
    if as_json:
        print_json(version.document)
    else:
        click.echo(f"\n{version.name}:{version.version}  {version.state}\ndigest  {version.digest}")
        if version.state == "needs_review":
            say(f"hint: read the checks marked `?`, then modelyard approve {version.name}:{version.version}")
    return NEEDS_REVIEW if version.state == "needs_review" else 0


@click.command(short_help="List models.")
@click.option("--task", help="Only this task, such as classification.")
@click.option("--format", "format_", help="Only this format, such as onnx.")
@click.option("--tag", help="Only models with this tag.")
@click.option("--sort", help="name, created or updated; a leading - reverses.")
@json_option
@platform_command
def models(
    client: Client, *, as_json: bool, format_: str | None, task: str | None, tag: str | None, sort: str | None
) -> None:
    """List the models of the library."""
    _print_models(client.models(format=format_, task=task, tag=tag, sort=sort), as_json=as_json)


@click.command(short_help="Search the library.")
@click.argument("text")
@json_option
@platform_command
def search(client: Client, *, text: str, as_json: bool) -> None:
    """Search names, descriptions, tags and labels for TEXT."""
    _print_models(client.models(text), as_json=as_json)


@click.command(short_help="List a model's versions.")
@click.argument("name")
@json_option
@platform_command
def versions(client: Client, *, name: str, as_json: bool) -> None:
    """List the versions of model NAME, newest first."""
    rows = client.versions(name)
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("version", "state", "format", "task", "aliases", "created_at", "digest"), empty="no versions")


@click.command(short_help="Show a model or a version.")
@click.argument("reference")
@json_option
@platform_command
def show(client: Client, *, reference: str, as_json: bool) -> None:
    """Show model NAME, or version NAME:VERSION with its audit."""
    if ":" not in reference:
        document = client.send(calls.read("models", reference, project=client.connection.project))
        print_json(document)
        return
    version = client.version(*split_reference(reference))
    if as_json:
        print_json(version.document)
        return
    _print_version(version)


@click.command(short_help="What needs a person.")
@json_option
@platform_command
def reviews(client: Client, *, as_json: bool) -> None:
    """List the versions that wait for a decision, with the reason."""
    rows = client.send(calls.listing("reviews", project=client.connection.project))
    if as_json:
        print_json(rows)
        return
    print_table(
        rows, ("name", "version", "format", "created_by", "created_at", "reason"), empty="nothing waits for a decision"
    )


@click.command(short_help="Approve a version.")
@click.argument("reference")
@platform_command
def approve(client: Client, *, reference: str) -> None:
    """Approve NAME:VERSION, so that it may be deployed."""
    version = client.approve(*split_reference(reference))
    click.echo(f"{version.name}:{version.version}  {version.state}")


@click.command(short_help="Reject a version.")
@click.argument("reference")
@click.option("--reason", required=True, help="Why; it is kept and shown.")
@platform_command
def reject(client: Client, *, reference: str, reason: str) -> None:
    """Reject NAME:VERSION."""
    name, number = split_reference(reference)
    version = client.reject(name, number, reason=reason)
    click.echo(f"{version.name}:{version.version}  {version.state}")


@click.command(short_help="Point an alias at a version.")
@click.argument("name")
@click.argument("alias_name", metavar="ALIAS")
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Take the alias away; the version stays.")
@platform_command
def alias(client: Client, *, name: str, alias_name: str, version: str | None, remove: bool) -> None:
    """Let NAME@ALIAS mean VERSION, for example: modelyard alias iris champion 3."""
    alias_name = alias_name.lstrip("@")
    if remove:
        client.send(calls.remove("models", name, "aliases", alias_name, project=client.connection.project))
        click.echo(f"{name}@{alias_name}  removed")
        return
    if version is None:
        raise InvalidRequest("no version is given", hint=f"modelyard alias {name} {alias_name} VERSION, or --remove")
    client.set_alias(name, alias_name, version)
    click.echo(f"{name}@{alias_name} → {name}:{version}")


@click.command(short_help="Add and take away tags of a model.")
@click.argument("name")
@click.argument("tags", nargs=-1, required=True, metavar="TAG|-TAG...")
@platform_command
def tag(client: Client, *, name: str, tags: tuple[str, ...]) -> None:
    """Add TAGs to model NAME; `-- -TAG` takes one away.

    Example: modelyard tag digits vision demo
    """
    project = client.connection.project
    kept = set(client.send(calls.read("models", name, project=project))["tags"])
    kept |= {text for text in tags if not text.startswith("-")}
    kept -= {text[1:] for text in tags if text.startswith("-")}
    document = client.send(calls.change("models", name, body={"tags": sorted(kept)}, project=project))
    click.echo(", ".join(document["tags"]) or "no tags")


@click.command(short_help="Say who may see a model.")
@click.argument("name")
@click.option("--visibility", type=click.Choice(["private", "shared", "public"]), default="shared", show_default=True)
@click.option("--with", "projects", multiple=True, help="Project to share with; repeatable.")
@platform_command
def share(client: Client, *, name: str, visibility: str, projects: tuple[str, ...]) -> None:
    """Share model NAME with other projects, or make it private again."""
    body = {"visibility": visibility, "shared_with": list(projects)}
    document = client.send(calls.change("models", name, body=body, project=client.connection.project))
    click.echo(f"{name}  {document['visibility']}")


@click.command(short_help="Fetch a version's files.")
@click.argument("reference")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Directory.  [default: here]"
)
@platform_command
def download(client: Client, *, reference: str, out: Path) -> None:
    """Download the files of NAME:VERSION as they were uploaded."""
    name, number = split_reference(reference)
    version = client.version(name, number)
    place = out / f"{name}-{number}"
    place.mkdir(parents=True, exist_ok=True)
    for file in version.document["files"]:
        url = f"{client.connection.url}/api/v1/models/{name}/versions/{number}/files/{file['name']}"
        (place / file["name"]).write_bytes(client.request("GET", url).content)
        click.echo(place / file["name"])


@click.command(short_help="Put a version out of use.")
@click.argument("reference")
@platform_command
def archive(client: Client, *, reference: str) -> None:
    """Archive NAME:VERSION; it stays in the library but cannot be deployed."""
    name, number = split_reference(reference)
    version = client.send(calls.decide(name, number, "archive", project=client.connection.project))
    click.echo(f"{version.name}:{version.version}  {version.state}")


@click.command(short_help="Delete a version.")
@click.argument("reference")
@click.option("--yes", is_flag=True, help="Do not ask.")
@platform_command
def delete(client: Client, *, reference: str, yes: bool) -> None:
    """Delete the archived, rejected or unreviewed version NAME:VERSION."""
    name, number = split_reference(reference)
    if not yes:
        click.confirm(f"delete {name}:{number} and its files?", abort=True, err=True)
    client.send(calls.remove("models", name, "versions", number, project=client.connection.project))
    click.echo(f"{name}:{number}  deleted")


def print_document(check: Mapping[str, object]) -> None:
    """One check of an audit on another machine, as it finishes."""
    print_check(from_plain(check, Check))


def _print_models(rows: list[calls.Document], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    columns = ("name", "latest_version", "task", "format", "aliases", "visibility", "updated_at")
    print_table(rows, columns, empty="no models; `modelyard upload PATH --name NAME` brings one in")


def _print_version(version: Version) -> None:
    document = version.document
    click.echo(f"{version.name}:{version.version}  {version.state}\ndigest   {version.digest}")
    click.echo(f"format   {document.get('format')}  task {document.get('task')}  by {document.get('created_by')}")
    for title in ("inputs", "outputs"):
        for spec in (document.get("contract") or {}).get(title, ()):
            click.echo(f"{title:<8} {spec['name']:<20} {spec['datatype']:<6} {spec['shape']}")
    for check in version.audit.get("checks", ()):
        print_check(from_plain(check, Check))
