"""Commands that change services: deploy, move a rollout, go back, take away."""

from typing import Any

import click

from modelyard.cli.comparing import evidence_of, print_evidence
from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client, ServiceInfo, calls
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest


@click.command(short_help="Create or change a service.")
@click.argument("model", metavar="NAME[:VERSION|@ALIAS]")
@click.option("--service", help="Name of the service; without it, the model's.")
@click.option("--replicas", help="N or MIN..MAX isolated workers (with --isolation process).")
@click.option("--target", help="The place where it runs.")
@click.option("--isolation", type=click.Choice(["shared", "process"]), help="Where the model runs.")
@click.option("--device", metavar="auto|cpu|cuda[:N]|gpu|npu", help="Where it computes; refused where it is not.")
@click.option("--canary", metavar="P[,P…]", help="Shares of the traffic, in percent, on the way to all of it.")
@click.option("--shadow", type=click.IntRange(0, 100), metavar="P", help="Send it copies of P % of the requests only.")
@click.option("--guard", type=click.Choice(["auto", "watch", "off"]), help="Who moves the canary.")
@click.option("--why", default="", help="Why, for history.")
@click.option("--retry", is_flag=True, help="Try a version again that was given up or rolled back.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it serves.")
@json_option
@platform_command
def deploy(client: Client, *, model: str, wait: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Deploy a model: without a version the champion, else the newest approved. What is not named stays as it is.

    \b
    modelyard deploy digits:1 --service digits
    modelyard deploy digits:2 --canary 10,50 --guard auto
    modelyard deploy digits:3 --shadow 100
    """  # noqa: D301  (click reads \b as "keep these lines")
    service = given.pop("service")
    if given["shadow"] is not None:
        info = _shadow(client, model, service, given["shadow"])
    else:
        info = client.deploy(model, service=service, wait=False, **_options(given)).info
    if wait:
        info = client.wait(info)
    if as_json:
        print_json(info.document)
        return
    _print_line(info)
    click.echo(info.url)
    say(f"hint: modelyard predict {info.name} --data @rows.csv")


def _options(given: dict[str, Any]) -> dict[str, object]:
    """What the API is sent of what was typed."""
    replicas, canary, guard = given["replicas"], given["canary"], given["guard"]
    if guard is not None and canary is None:
        raise InvalidRequest("a guard watches a canary, and there is none", hint="add --canary 10")
    rollout: dict[str, object] | None = None
    if canary is not None:
        rollout = {"strategy": "canary", "steps": _steps(canary)} | ({"guard": guard} if guard else {})
    return {
        "isolation": given["isolation"],
        "device": given["device"],
        "replicas": _replicas(replicas) if replicas else None,
        "target": given["target"],
        "rollout": rollout,
        "why": given["why"] or None,
        "retry": given["retry"] or None,
    }


def _shadow(client: Client, model: str, service: str | None, percent: int) -> ServiceInfo:
    """Let a version of a running service's model see copies of its requests; the service stays as it is."""
    name, mark, rest = model.partition("@") if "@" in model else model.partition(":")
    which = {"alias" if mark == "@" else "version": rest} if rest else {}
    body = {"name": service or name, "shadow": {"model": name, "percent": percent, **which}}
    return client.send(calls.deploy({**body, "project": client.connection.project}))


@click.group(short_help="Look at and move what is on its way.")
def rollout() -> None:
    """Look at a canary, give it more of the traffic, or give it up."""


@rollout.command(name="status", short_help="What is on its way, and how far.")
@click.argument("service")
@json_option
@platform_command
def rollout_status(client: Client, *, service: str, as_json: bool) -> None:
    """Show what is on its way to SERVICE's traffic, how far it is, and what was rejected."""
    found = client.rollout(service)
    evidence = evidence_of(client, service)
    if as_json:
        print_json({**found, "evidence": evidence})
        return
    click.echo(f"{found['name']}  {click.style(found['phase'], bold=True)}  {found['reason']}")
    moving = found["rollout"]
    rows = [
        {**found[which], "part": which, "traffic": f"{_share(which, moving)} %"}
        for which in ("live", "candidate")
        if found[which]
    ]
    rows += [{**each, "part": "warm", "traffic": "0 %"} for each in found["warm"]]
    print_table(rows, ("part", "revision", "model", "version", "traffic"), empty="nothing answers yet")
    if moving and moving["steps"]:
        click.echo(f"steps  {', '.join(map(str, moving['steps']))}  guard {moving['guard']}  since {moving['since']}")
    for each in found["rejected"]:
        click.echo(f"rejected  {each['digest'][:19]}  {each['reason']}")
    if evidence is not None:
        print_evidence(evidence)


@rollout.command(name="promote", short_help="Give the canary more of the traffic, or all.")
@click.argument("service")
@click.option("--next", "only_next", is_flag=True, help="Only the next share.")
@click.option("--why", default="", help="Why, for history.")
@json_option
@platform_command
def rollout_promote(client: Client, *, service: str, only_next: bool, why: str, as_json: bool) -> None:
    """Give SERVICE's canary all of the traffic, or its next share."""
    _print_moved(client.wait(client.promote(service, to="next" if only_next else "end", why=why)), as_json=as_json)


@rollout.command(name="abort", short_help="Give up what is on its way.")
@click.argument("service")
@click.option("--why", default="", help="Why, for history.")
@json_option
@platform_command
def rollout_abort(client: Client, *, service: str, why: str, as_json: bool) -> None:
    """Give all of SERVICE's traffic back to what was live; the version is not tried again until --retry."""
    _print_moved(_settled(client, client.abort(service, why=why)), as_json=as_json)


@click.command(short_help="List a service's revisions.")
@click.argument("service")
@json_option
@platform_command
def revisions(client: Client, *, service: str, as_json: bool) -> None:
    """List every change of SERVICE, newest first."""
    rows = client.send(calls.listing(f"services/{service}/revisions", project=client.connection.project))
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("revision", "model", "version", "state", "by", "created_at", "reason"), empty="no revisions")


@click.command(short_help="Go back to an earlier revision.")
@click.argument("service")
@click.option("--to", "revision", type=int, help="Revision; without it, the last one that was good.")
@click.option("--why", default="", help="Why, for history.")
@json_option
@platform_command
def rollback(client: Client, *, service: str, revision: int | None, why: str, as_json: bool) -> None:
    """Let an earlier revision of SERVICE answer again; what is on its way is given up."""
    _print_moved(_settled(client, client.rollback(service, revision=revision, why=why)), as_json=as_json)


@click.command(short_help="Change the number of workers.")
@click.argument("service")
@click.argument("replicas", metavar="N|MIN..MAX")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until they are there.")
@json_option
@platform_command
def scale(client: Client, *, service: str, replicas: str, wait: bool, as_json: bool) -> None:
    """Give SERVICE N isolated workers; those that run are kept."""
    body = {"name": service, "replicas": _replicas(replicas), "why": f"scaled to {replicas}"}
    info = client.send(calls.deploy({**body, "project": client.connection.project}))
    _print_moved(client.wait(info) if wait else info, as_json=as_json)


@click.command(short_help="Take a service away.")
@click.argument("service")
@platform_command
def undeploy(client: Client, *, service: str) -> None:
    """Drain SERVICE and take it away; its history stays."""
    client.undeploy(service)
    click.echo(f"{service}  going away")


def _settled(client: Client, info: ServiceInfo) -> ServiceInfo:
    """The service when it stands still, whatever became of the wish: giving up leaves the goal unreached."""
    return client.wait(info, goal=False)


def _print_moved(info: ServiceInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(info.document)
    else:
        _print_line(info)


def _print_line(info: ServiceInfo) -> None:
    moving = info.document.get("rollout")
    share = f"  {moving['weight']} % to revision {moving['revision']}" if moving and info.phase == "canary" else ""
    click.echo(f"{info.name}  {info.phase}  {info.model}:{info.version}  revision {info.revision}{share}")


def _share(which: str, moving: dict[str, Any] | None) -> int:
    weight = int(moving["weight"]) if moving else 0
    return weight if which == "candidate" else 100 - weight


def _steps(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidRequest(f"{quote(text)} are no shares", hint="write percents, as in --canary 10,50") from error


def _replicas(text: str) -> dict[str, int]:
    low, _, high = text.partition("..")
    try:
        return {"min": int(low), "max": int(high)} if high else {"min": int(low)}
    except ValueError as error:
        raise InvalidRequest(f"{quote(text)} is not a number of replicas", hint="write N or MIN..MAX") from error
