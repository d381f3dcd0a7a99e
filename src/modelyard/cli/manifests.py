"""Commands for manifests: what applying them would do, doing it, and writing those of what is deployed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
import yaml

from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls
from modelyard.client.manifests import read_manifests

HAS_CHANGES: Final = 4
F = TypeVar("F", bound=Callable[..., Any])
_MARKS: Final = {"create": "+", "change": "~", "unchanged": "=", "held": "!"}


def _files(command: F) -> F:
    """The options that say what is meant."""
    for option in (
        click.option("--retry", is_flag=True, help="Try versions again that were given up or rolled back."),
        click.option("--overlay", "overlays", multiple=True, metavar="FILE", help="Merge FILE over the manifests."),
        click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="Manifests."),
    ):
        command = option(command)
    return command


@click.command(short_help="What applying manifests would do.")
@_files
@json_option
@platform_command
def plan(client: Client, *, files: Sequence[str], overlays: Sequence[str], retry: bool, as_json: bool) -> int:
    """Say what applying FILE would do to each service. Ends with 4 when it would change something."""
    made = client.plan_manifests(read_manifests(files, overlays), retry=retry)
    if as_json:
        print_json(made)
    else:
        _print_plan(made)
    return HAS_CHANGES if made["has_changes"] else 0


@click.command(short_help="Which fields applying manifests would change.")
@_files
@json_option
@platform_command
def diff(client: Client, *, files: Sequence[str], overlays: Sequence[str], retry: bool, as_json: bool) -> int:
    """Show field by field what FILE would change, without what the platform decides. Ends with 4 when it would."""
    made = client.plan_manifests(read_manifests(files, overlays), retry=retry)
    if as_json:
        print_json(made)
        return HAS_CHANGES if made["has_changes"] else 0
    for service in made["services"]:
        click.echo(f"{_MARKS[service['action']]} {service['project']}/{service['name']}  {service['reason']}")
        for each in service["changes"]:
            _print_field(each)
    return HAS_CHANGES if made["has_changes"] else 0


@click.command(short_help="Apply manifests, all or none.")
@_files
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every service stands.")
@json_option
@platform_command
def apply(
    client: Client, *, files: Sequence[str], overlays: Sequence[str], retry: bool, wait: bool, as_json: bool
) -> None:
    """Make the services what FILE says: all of its documents or none. The same file again changes nothing."""
    documents = read_manifests(files, overlays)
    planned = client.plan_manifests(documents, retry=retry)
    made = client.apply_manifests(documents, retry=retry, fingerprint=planned["fingerprint"])
    if as_json:
        print_json(made)
    else:
        _print_plan(made)
    if wait:
        for service in made["services"]:
            if service["action"] in ("create", "change"):
                client.wait(client.send(calls.service(service["name"], project=service["project"])))


@click.command(short_help="Write manifests of what is deployed.")
@json_option
@platform_command
def export(client: Client, *, as_json: bool) -> None:
    """Write the manifests of all services, as `apply` reads them."""
    found = client.export_manifests()
    if as_json:
        print_json(found)
        return
    click.echo(yaml.safe_dump_all(found, sort_keys=False, allow_unicode=True), nl=False)


def _print_plan(made: Mapping[str, Any]) -> None:
    rows = [
        {**each, "does": f"{_MARKS[each['action']]} {each['action']}", "service": f"{each['project']}/{each['name']}"}
        for each in made["services"]
    ]
    print_table(rows, ("does", "service", "version", "way", "reason"), empty="no services")
    for service in made["services"]:
        for note in service.get("notes") or ():
            say(f"note: {service['name']}: {note}")
    if not made["has_changes"]:
        say("nothing changes")


def _print_field(change: Mapping[str, Any]) -> None:
    if change["before"] is not None:
        click.secho(f"  - {change['path']}: {_text(change['before'])}", fg="red")
    if change["after"] is not None:
        click.secho(f"  + {change['path']}: {_text(change['after'])}", fg="green")


def _text(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True)).removesuffix("\n...\n").strip()
