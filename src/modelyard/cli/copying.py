"""Command that copies a version from one platform to another."""

import click

from modelyard.cli.library import print_document
from modelyard.cli.output import NEEDS_REVIEW, json_option, print_json, say
from modelyard.cli.platform import platform_command, split_reference
from modelyard.client import Client
from modelyard.client.connection import Connection
from modelyard.client.copying import copy_version


@click.command(short_help="Copy a version to another platform.")
@click.argument("reference", metavar="NAME:VERSION")
@click.option("--to", "to_url", required=True, metavar="URL", help="Control address of the other platform.")
@click.option("--to-key", envvar="MODELYARD_TO_KEY", help="API key there; better in MODELYARD_TO_KEY.")
@click.option("--to-project", help="Project there; without it the key's own.")
@click.option("--to-ca", type=click.Path(exists=True), help="PEM file that vouches for the certificate there.")
@click.option("--name", help="Name there; without it, the same.")
@json_option
@platform_command
def copy(  # noqa: PLR0913  (one parameter an option)
    client: Client,
    *,
    reference: str,
    to_url: str,
    to_key: str | None,
    to_project: str | None,
    to_ca: str | None,
    name: str | None,
    as_json: bool,
) -> int:
    """Copy NAME:VERSION with its files to another platform, which audits it anew.

    Where it comes from, the verdict and the approval here are kept with the copy as evidence. Ends with 3 when somebody
    there has to approve it.
    """
    other = Connection(url=to_url.rstrip("/"), key=to_key, project=to_project, ca=to_ca)  # never the key of this one
    with Client(connection=other) as there:
        done = copy_version(client, there, split_reference(reference), name=name, on_check=print_document)
    if as_json:
        print_json({"from": done.here.document, "to": done.there.document, "is_new": done.is_new})
    else:
        was = "" if done.is_new else "  (was there)"
        click.echo(f"{done.there.name}:{done.there.version}  {done.there.state}  {done.there.digest}{was}")
    if done.there.state == "needs_review":
        say(f"hint: somebody there has to approve it: modelyard approve {done.there.name}:{done.there.version}")
        return NEEDS_REVIEW
    return 0
