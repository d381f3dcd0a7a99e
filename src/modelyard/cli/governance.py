"""Commands for keys and history: who may do what, and who did what."""

from pathlib import Path
from typing import Final

import click

from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls
from modelyard.domain.errors.platform import InvalidRequest

_LIMITS: Final = {
    "rate": "requests_per_s",
    "max_in_flight": "max_in_flight",
    "per_day": "requests_per_day",
    "per_month": "requests_per_month",
}


@click.group(short_help="API keys: bootstrap, create, list, revoke.")
def keys() -> None:
    """Keys that people and programs present to the platform."""


@keys.command()
@click.option("--token-file", type=click.Path(path_type=Path, exists=True), required=True, help="DATA/bootstrap.token.")
@json_option
@platform_command
def bootstrap(client: Client, *, token_file: Path, as_json: bool) -> None:
    """Trade the one-time token of the first start for an admin key."""
    token = token_file.read_text(encoding="utf-8").strip()
    _print_new(client.send(calls.act("keys", "bootstrap", body={"token": token})), as_json=as_json)


@keys.command()
@click.option("--name", required=True, help="What the key is for.")
@click.option("--scope", "scopes", multiple=True, required=True, help="VERB[:PROJECT[/MODEL]]; repeatable.")
@click.option("--expires", metavar="DAYS", type=click.IntRange(1, 3650), help="Days until it ends.  [default: 90]")
@click.option("--rate", metavar="N", type=click.FloatRange(0, min_open=True), help="Requests a second, at most.")
@click.option("--max-in-flight", metavar="N", type=click.IntRange(1), help="Requests at the same time, at most.")
@click.option("--per-day", metavar="N", type=click.IntRange(0), help="Predictions a day (UTC), at most.")
@click.option("--per-month", metavar="N", type=click.IntRange(0), help="Predictions a month (UTC), at most.")
@json_option
@platform_command
def create(
    client: Client, *, name: str, scopes: tuple[str, ...], expires: int | None, as_json: bool, **limits: float | None
) -> None:
    """Create a key. It is printed once and stored nowhere.

    Example: modelyard keys create --name ci --scope upload --scope deploy:default
    """
    body: dict[str, object] = {"name": name, "scopes": list(scopes)}
    if expires is not None:
        body["expires_days"] = expires
    asked = {_LIMITS[option]: value for option, value in limits.items() if value is not None}
    if asked:
        body["limits"] = asked
    _print_new(client.send(calls.act("keys", body=body)), as_json=as_json)


@keys.command("list")
@json_option
@platform_command
def list_(client: Client, *, as_json: bool) -> None:
    """List the keys, never their secrets."""
    rows = client.send(calls.listing("keys"))
    if as_json:
        print_json(rows)
        return
    columns = ("id", "name", "state", "project", "scopes", "expires_at", "last_used_at")
    print_table(rows, columns, empty="no keys")


@keys.command()
@click.argument("key_id")
@platform_command
def revoke(client: Client, *, key_id: str) -> None:
    """End key KEY_ID; model servers follow within five seconds."""
    client.send(calls.remove("keys", key_id))
    click.echo(f"{key_id}  revoked")


@click.group(short_help="Projects: list, create.")
def projects() -> None:
    """Projects keep the models, services and keys of teams apart."""


@projects.command("list")
@json_option
@platform_command
def list_projects(client: Client, *, as_json: bool) -> None:
    """List the projects that the key may see."""
    rows = client.send(calls.listing("projects"))
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("name", "description", "two_person_review", "created_at"), empty="no projects")


@projects.command("create")
@click.argument("name")
@click.option("--description", default="", help="What it is for.")
@click.option("--two-person-review", is_flag=True, help="The author of a version may not approve it.")
@json_option
@platform_command
def create_project(client: Client, *, name: str, description: str, two_person_review: bool, as_json: bool) -> None:
    """Create project NAME.

    Example: modelyard projects create team-a --two-person-review
    """
    body = {"name": name, "description": description, "two_person_review": two_person_review}
    document = client.send(calls.act("projects", body=body))
    if as_json:
        print_json(document)
    else:
        click.echo(document["name"])


@projects.command("quota")
@click.argument("name")
@click.option("--per-day", metavar="N", type=click.IntRange(0), help="Predictions a day (UTC); left out: any number.")
@click.option("--per-month", metavar="N", type=click.IntRange(0), help="Predictions a month; left out: any number.")
@json_option
@platform_command
def set_quota(client: Client, *, name: str, per_day: int | None, per_month: int | None, as_json: bool) -> None:
    """Set how many predictions the callers of project NAME get together.

    Example: modelyard projects quota team-a --per-day 100000
    """
    body = {"requests_per_day": per_day, "requests_per_month": per_month}
    document = client.send(calls.change("projects", name, body=body))
    if as_json:
        print_json(document)
    else:
        day, month = document["requests_per_day"], document["requests_per_month"]
        click.echo(f"{name}  a day: {'any' if day is None else day}  a month: {'any' if month is None else month}")


@click.command(short_help="Who did what, what was live when.")
@click.argument("service", required=False)
@click.option("--at", "moment", help="Time (ISO 8601; to the second: its end): what answered for SERVICE then.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Entries.")
@click.option("--verify", is_flag=True, help="Check the whole chain for tampering.")
@json_option
@platform_command
def history(client: Client, *, service: str | None, moment: str | None, limit: int, verify: bool, as_json: bool) -> int:
    """Show the history, of everything or of SERVICE.

    Example: modelyard history digits --at 2026-01-31T12:00:00Z
    """
    if verify:
        document = client.send(calls.read("history", "verify"))
        print_json(document)
        return 0 if document.get("intact") else 1
    if moment is not None:
        if service is None:
            raise InvalidRequest("--at asks about a service", hint="modelyard history SERVICE --at TIME")
        _print_moment(
            client.send(calls.read("history", at=moment, service=service, project=client.connection.project)),
            as_json=as_json,
        )
        return 0
    rows = client.send(calls.listing("history", service=service, limit=limit, project=client.connection.project))
    if as_json:
        print_json(rows)
        return 0
    print_table(rows, ("at", "actor", "action", "subject", "sequence"), empty="no history yet")
    return 0


def _print_moment(document: calls.Document, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    live = document.get("live") or []
    if not live:
        say(f"nothing answered for {document['service']} then")
        return
    columns = ("model", "version", "revision", *(("weight",) if len(live) > 1 else ()), "digest", "servers")
    print_table(live, columns, empty="")
    click.echo(f"since {document['since']}, by {document['changed_by']['name']}")


def _print_new(document: calls.Document, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(document["key"])
    say("this is shown once; put it into MODELYARD_KEY")
