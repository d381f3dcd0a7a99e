"""Commands for nodes: what runs where and why, and where new workers may not go."""

from typing import Any

import click

from modelyard.cli.output import json_option, print_json, print_table, size_text
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls


@click.command(short_help="What runs where.")
@json_option
@platform_command
def nodes(client: Client, *, as_json: bool) -> None:
    """List the nodes of the platform and what they hold."""
    rows = client.send(calls.listing("nodes"))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["memory"] = size_text(row["memory_bytes"])
        row["workers"] = len(row["workers"])
    print_table(rows, ("name", "state", "cpus", "memory", "servers", "workers", "models"), empty="no nodes")


@click.command(short_help="Show a node, cordon it, drain it.")
@click.argument("name")
@click.option("--cordon", "wish", flag_value="cordon", help="It takes no new workers and keeps those it has.")
@click.option(
    "--drain", "wish", flag_value="drain", help="Its workers move to other nodes, each when it is ready there."
)
@click.option("--uncordon", "wish", flag_value="uncordon", help="It takes workers again.")
@click.option("--why", default="", help="Reason; it is shown with the node and kept in history.")
@json_option
@platform_command
def node(client: Client, *, name: str, wish: str | None, why: str, as_json: bool) -> None:
    """Show node NAME with what runs there and why, or say what it may take.

    Example: modelyard node node-1 --drain --why "memory is replaced"
    """
    if wish is None:
        document = client.send(calls.read("nodes", name))
    else:
        document = client.send(calls.act("nodes", name, wish, body={"why": why}))
    if as_json:
        print_json(document)
        return
    click.echo(f"{document['name']}  {document['state']}" + (f": {document['why']}" if document["why"] else ""))
    free, memory = size_text(document["memory_available_bytes"]), size_text(document["memory_bytes"])
    click.echo(f"  {document['cpus']:g} cores, load {document['load']}, {free} of {memory} left\n")
    print_table(_runs(document), ("what", "state", "holds", "why"), empty="nothing runs there")


def _runs(document: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "what": server["name"],
            "state": server["state"],
            "holds": f"{each['service']}:{each['version']}",
            "why": each["why"],
        }
        for server in document["servers"]
        for each in server["models"]
    ]
    for worker in document["workers"]:
        state = f"moving to {worker['moving_to']}" if worker["moving_to"] else worker["state"]
        holds = f"{worker['service']} revision {worker['revision']}"
        rows.append({"what": "model-worker", "state": state, "holds": holds, "why": worker["why"]})
    return rows
