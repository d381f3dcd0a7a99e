"""What is known of a canary and of a shadow, as tables."""

from typing import Any

import click

from modelyard.cli.output import json_option, print_json, print_table
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls
from modelyard.client.errors import RemoteError

_NOT_FOUND = 404
_COLUMNS = ("watched", "canary n", "stable n", "stable", "canary", "effect", "interval", "evidence", "sees", "days")


def evidence_of(client: Client, service: str) -> dict[str, Any] | None:
    """The evidence about the last canary of a service; None when there was none."""
    try:
        return client.send(calls.read("services", service, "rollout", "evidence", project=client.connection.project))
    except RemoteError as error:
        if error.status == _NOT_FOUND:
            return None
        raise


def print_evidence(evidence: dict[str, Any]) -> None:
    """n, effect with its interval, how strong the evidence is, and what cannot be seen yet."""
    state = "is compared" if evidence["open"] else "was compared"
    click.echo(
        f"revision {evidence['revision']} {state} with {evidence['stable']}: {evidence['verdict']}"
        f" (evidence of harm {evidence['evidence']:.3g} to 1, {evidence['needed']:.3g} rolls back,"
        f" level {evidence['level']:g} over all of it)"
    )
    print_table([_row(row) for row in evidence["rows"]], _COLUMNS, empty="nothing has been counted yet")
    for reason in evidence["reasons"]:
        click.echo(f"  {reason}")


@click.group(short_help="Look at a service's shadow.")
def shadow() -> None:
    """Look at a version that is sent copies of requests, and at how its answers compare."""


@shadow.command(name="report", short_help="How a shadow's answers compare.")
@click.argument("service")
@json_option
@platform_command
def shadow_report(client: Client, *, service: str, as_json: bool) -> None:
    """Show how many copies SERVICE's shadow had, and where its answers differ from those that were given."""
    found = client.send(calls.read("services", service, "shadow", project=client.connection.project))
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['service']}  shadow {found['version']}  on {found['servers']} servers")
    click.echo(
        f"copied  {found['copied']}  compared {found['compared']}  failed {found['failed']}"
        f"  dropped {found['dropped']}  under way {found['under_way']}"
    )
    if found["last_failure"]:
        click.echo(f"failed  {found['last_failure']}")
    click.echo(
        f"differ  {found['differing']} requests; {found['other_labels']} of {found['rows']} rows have another label;"
        f" largest difference {found['largest_difference']:.4g} ({100 * found['largest_relative']:.4g} %)"
    )
    times = [
        {"runs": name, **{at: "" if s is None else f"{1000 * s:.3g} ms" for at, s in spread.items()}}
        for name, spread in found["run_seconds"].items()
    ]
    print_table(times, ("runs", "p50", "p95", "p99"), empty="")
    if found["examples"]:
        print_table(found["examples"], ("output", "answered", "shadow", "inputs"), empty="")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    is_time = row["thing"] == "latency"

    def share(value: float | None) -> str:
        return "∞" if value is None else f"× {value:.2f}" if is_time else f"{100 * value:+.2f}"

    def level(value: float) -> str:
        return f"{1000 * value:.3g} ms" if is_time else f"{100 * value:.2f} %"

    visible = row["visible"]
    return {
        "watched": f"{row['thing']}: {row['what']}",
        "canary n": row["canary_n"],
        "stable n": row["stable_n"],
        "stable": level(row["stable"]),
        "canary": level(row["canary"]),
        "effect": share(row["effect"]),
        "interval": f"{share(row['low'])} … {share(row['high'])}",
        "evidence": f"{row['evidence']:.3g}",
        "sees": "nothing yet" if visible is None else share(visible),
        "days": "" if row["days"] is None else f"{row['days']:.3g}",
    }
