"""Commands for sealed secrets: set, list, delete. No command shows a text."""

import sys
from pathlib import Path

import click

from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls
from modelyard.domain.errors.platform import InvalidRequest


@click.group(short_help="Sealed secrets: set, list, delete.")
def secrets() -> None:
    """Keys that services need elsewhere; they are sealed, and never shown again."""


@secrets.command("set")
@click.argument("name")
@click.option("--from-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="File with its text.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read its text from standard input.")
@platform_command
def set_(client: Client, *, name: str, from_file: Path | None, from_stdin: bool) -> None:
    """Set secret NAME, or give it another text; services that use it follow within seconds.

    Example: modelyard secrets set openai-key --from-file key.txt
    """
    if (from_file is None) is not from_stdin:
        raise InvalidRequest("a secret comes from one place", hint="give --from-file FILE or --stdin")
    text = from_file.read_text(encoding="utf-8") if from_file is not None else sys.stdin.read()
    body = {"value": text.rstrip("\r\n")}
    document = client.send(calls.change("secrets", name, body=body, method="PUT", project=client.connection.project))
    click.echo(f"{document['name']}  set")
    say("name it in a manifest: auth: {secret: " + name + "}")


@secrets.command("list")
@json_option
@platform_command
def list_(client: Client, *, as_json: bool) -> None:
    """List the secrets, never their texts."""
    rows = client.send(calls.listing("secrets", project=client.connection.project))
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("name", "project", "set_by", "updated_at"), empty="no secrets")


@secrets.command()
@click.argument("name")
@platform_command
def delete(client: Client, *, name: str) -> None:
    """Forget secret NAME, which nothing may use any more."""
    client.send(calls.remove("secrets", name, project=client.connection.project))
    click.echo(f"{name}  deleted")
