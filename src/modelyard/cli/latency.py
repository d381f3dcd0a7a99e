"""Commands about latency: find the cheapest way to serve within it, and measure whether a service keeps to it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from modelyard.cli.candidates import finished, split_model, submit_for
from modelyard.cli.jobs import print_accepted, tell
from modelyard.cli.output import json_option, print_json, print_table, say
from modelyard.cli.platform import platform_command
from modelyard.client import Client, calls
from modelyard.client.errors import RemoteError
from modelyard.client.manifests import merged
from modelyard.client.working import download, follow, give_file, require_success, submit
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.compress import COMPRESSION_METHODS
from modelyard.domain.job_kinds.optimise import RUNTIMES

_UNITS: Final = {"ms": 1.0, "us": 1e-3, "s": 1e3}
_COLUMNS: Final = ("", "form", "runtime", "threads", "batch", "wait", "size", "lost", "p50 ms", "p99 ms", "cost")


def milliseconds(text: str) -> float:
    """The time in `text`, such as 20ms, 0.02s or 20, in ms."""
    given = text.strip().lower()
    unit = next((each for each in _UNITS if given.endswith(each)), "")
    try:
        found = float(given.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise click.BadParameter(f"{text} is no time; write 20ms, 0.02s or 20")
    return found


@click.command(short_help="The cheapest way to serve a model within a latency.")
@click.argument("model", metavar="NAME[:VERSION]")
@click.option(
    "--p99", required=True, type=milliseconds, metavar="TIME", help="What 99 of 100 requests are answered within."
)
@click.option(
    "--sample", required=True, type=click.Path(path_type=Path), help="Rows to ask and judge by: .csv, .npy or .npz."
)
@click.option("--target", help="The column of the sample that holds the right answers; without it, the model's own.")
@click.option("--max-drop", type=float, default=0.5, show_default=True, help="Points that may be lost.")
@click.option("--rate", type=float, default=50.0, show_default=True, help="Requests a second.")
@click.option("--rows", type=click.IntRange(1, 4096), default=1, show_default=True, help="Rows of a request.")
@click.option("--seconds", type=float, default=120.0, show_default=True, help="How long is measured in all.")
@click.option("--method", "methods", multiple=True, type=click.Choice(COMPRESSION_METHODS), help="Only these forms.")
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(RUNTIMES), help="Only these runtimes.")
@click.option("--name", help="The model whose version the chosen form becomes; without it, the same.")
@click.option("--out", type=click.Path(path_type=Path), help="Where every point and the plot of the frontier go.")
@click.option("--deploy", is_flag=True, help="Deploy what is chosen, measure it, and say whether the promise held.")
@click.option("--service", help="The service that is deployed; without it, the model's name.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the outcome.")
@json_option
@platform_command
def optimise(client: Client, *, model: str, wait: bool, as_json: bool, **given: Any) -> int:  # noqa: ANN401
    """Measure a model's forms, runtimes, threads and batching through real servers, and choose the cheapest that fits.

    Cost is processor seconds for 1,000 rows. Ends with 1 when nothing meets the latency, or the promise did not hold.

    \b
    modelyard optimise digits:1 --p99 20ms --max-drop 0.5 --sample held-out.csv --target digit
    modelyard optimise digits:1 --p99 20ms --sample held-out.csv --rate 200 --rows 16 --deploy
    """  # noqa: D301  (click reads \b as "keep these lines")
    name, version = split_model(model, command="optimise")
    if given["deploy"] and not wait:
        raise InvalidRequest("what is chosen can only be deployed when it is waited for", hint="leave out --no-wait")
    sample = give_file(client, given["sample"])
    job = submit_for(client, "optimise", name, version, {"sample": sample}, _parameters(client, given))
    if not wait:
        print_accepted(job, as_json=as_json)
        return 0
    done = finished(client, job)
    if given["out"]:
        download(client, done, given["out"])
    if not as_json:
        _print_search(done["result"])
    made = _chosen(client, done, name, version)
    if made is None or not given["deploy"]:
        if as_json:
            print_json(done)
        elif made is not None:
            click.echo(f"chosen  {made}  {_settings(done['result']['chosen'])}")
        return 0 if made is not None else 1
    check = _deployed(client, done, made, service=given["service"] or name, sample=sample, target=given["target"])
    if as_json:
        print_json({**done, "check": check})
    elif check is not None:
        _print_measure(check["result"])
    return 0 if check is None or check["result"]["within_target"] else 1


@click.command(short_help="What 99 of 100 requests to a service are answered within.")
@click.argument("service")
@click.option(
    "--sample", required=True, type=click.Path(path_type=Path), help="Rows to ask: a .csv, .npy or .npz file."
)
@click.option("--target", help="A column of the sample that is not asked.")
@click.option("--rate", type=float, default=50.0, show_default=True, help="Requests a second.")
@click.option("--rows", type=click.IntRange(1, 4096), default=1, show_default=True, help="Rows of a request.")
@click.option("--seconds", type=float, default=30.0, show_default=True, help="How long is measured in all.")
@click.option("--p99", type=milliseconds, metavar="TIME", help="What 99 of 100 requests have to be answered within.")
@json_option
@platform_command
def measure(client: Client, *, service: str, sample: Path, as_json: bool, **given: Any) -> int:  # noqa: ANN401
    """Load SERVICE with rows of a sample, as its users would, and say how long it took. Ends with 1 above --p99.

    Example: modelyard measure digits --sample held-out.csv --target digit --rate 100 --p99 20ms
    """
    parameters = {key: given[key] for key in ("target", "rate", "rows", "seconds")}
    done = _measured(client, service, give_file(client, sample), {**parameters, "p99_ms": given["p99"]})
    if as_json:
        print_json(done)
    else:
        _print_measure(done["result"])
    return 1 if done["result"]["within_target"] is False else 0


def _parameters(client: Client, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "p99_ms": given["p99"],
        "servers": _servers(client),
        "methods": list(given["methods"]) or None,
        "runtimes": list(given["runtimes"]) or None,
        **{key: given[key] for key in ("max_drop", "target", "rate", "rows", "seconds", "name")},
    }


def _servers(client: Client) -> int | None:
    """How many model servers there are, so that as many are measured; None where the key may not look."""
    with suppress(RemoteError):
        nodes = client.send(calls.listing("nodes", project=None))
        return sum(len(node["servers"]) for node in nodes) or None
    return None


def _chosen(client: Client, job: dict[str, Any], name: str, version: str) -> str | None:
    """NAME:VERSION of what was chosen, or None with the reason told."""
    result = job["result"]
    if result["chosen"] is None:
        p99, goal = result["quickest"]["p99_ms"], result["goal"]["p99_ms"]
        say(f"nothing stays within {goal:g} ms; the quickest has {p99['value']:g} ({p99['low']:g} to {p99['high']:g})")
        say("hint: allow more with --p99 or --max-drop, or ask for less with --rate")
        return None
    for each in job["candidates"]:
        if each["state"] != "version":
            say(f"the intake refused the chosen form: {each.get('reason')}")
            return None
        return f"{each['name']}:{each['version']}"
    if not version:
        version = str(client.send(calls.read("models", name, project=client.connection.project))["newest"])
    return f"{name}:{version}"


def _deployed(
    client: Client, job: dict[str, Any], made: str, *, service: str, sample: dict[str, str], target: str | None
) -> dict[str, Any] | None:
    """Deploy, load and compare; the job that measured, or None where a canary goes first."""
    result = job["result"]
    chosen, load = result["chosen"], result["load"]
    wanted = {
        "apiVersion": "modelyard.io/v1",
        "kind": "ModelService",
        "metadata": {"name": service, **({"project": client.connection.project} if client.connection.project else {})},
        "spec": {
            "model": made,
            "resources": {"cpu": chosen["threads"]},
            "batching": {"max_size": chosen["max_batch_size"], "max_wait_ms": chosen["max_wait_ms"]},
        },
    }
    present = next((each for each in client.export_manifests() if each["metadata"]["name"] == service), {})
    client.apply_manifests([merged(present, wanted)], retry=True)
    info = client.wait(client.service(service).info)
    say(f"deployed  {made} as {service}  {_settings(chosen)}")
    if info.phase == "canary":
        say(f"hint: it has a part of the traffic; when it has all of it: modelyard measure {service} …")
        return None
    return _measured(
        client,
        service,
        sample,
        {
            "target": target,
            "rate": load["rate"],
            "rows": load["rows"],
            "seconds": max(5.0, load["round_s"] * load["rounds"]),
            "p99_ms": result["goal"]["p99_ms"],
            "predicted_ms": [chosen["p99_ms"]["low"], chosen["p99_ms"]["high"]],
        },
    )


def _measured(client: Client, service: str, sample: dict[str, str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in parameters.items() if value is not None}
    job = submit(client, "measure", {"service": service, **kept}, {"sample": sample})
    return require_success(follow(client, job["id"], on_progress=tell))


def _print_search(result: dict[str, Any]) -> None:
    rows = [
        {
            "": "→" if point["is_chosen"] else "*" if point["is_on_frontier"] else "",
            "form": point["form"] + (" (default)" if point["is_default"] else ""),
            "runtime": point["runtime"],
            "threads": point["threads"],
            "batch": point["max_batch_size"],
            "wait": f"{point['max_wait_ms']:g}",
            "size": f"{point['size_bytes'] / 1e6:.2f} MB",
            "lost": f"{point['points_lost']:g}",
            "p50 ms": f"{point['p50_ms']['value']:.2f}",
            "p99 ms": _span(point["p99_ms"]),
            "cost": _span(point["cost"]),
        }
        for point in result["points"]
    ]
    print_table(rows, _COLUMNS, empty="nothing was measured")
    load = result["load"]
    say(
        f"* on the frontier; {load['rate']:g} requests a second of {load['rows']} rows, {load['servers']} servers,"
        f" {load['rounds']} rounds of {load['round_s']:g} s; cost in processor seconds for 1,000 rows"
    )
    for each in result["left_out"]:
        say(f"left out  {each['form']} on {each['runtime']}: {each['reason']}")
    if result["times_cheaper"]:
        click.echo(f"cheaper {_span(result['times_cheaper'])} times than the default")


def _print_measure(result: dict[str, Any]) -> None:
    click.echo(f"p50     {_span(result['p50_ms'])} ms")
    click.echo(f"p99     {_span(result['p99_ms'])} ms over {result['answered']} requests in {result['rounds']} rounds")
    if result["failed"]:
        click.echo(f"failed  {result['failed']}: {result['reason']}")
    if result["within_target"] is not None:
        click.echo(f"target  {'kept' if result['within_target'] else 'missed'}")
    if result["prediction"] is not None:
        low, high = result["predicted_ms"]
        held = "did not hold" if result["prediction"] == "slower" else "held"
        click.echo(f"promise {held}: {low:.3g} to {high:.3g} ms were predicted")


def _settings(point: dict[str, Any]) -> str:
    gathered = f"batching up to {point['max_batch_size']}, {point['max_wait_ms']:g} ms"
    return f"{point['threads']} thread{'s' if point['threads'] > 1 else ''}, {gathered}"


def _span(values: Mapping[str, float]) -> str:
    return f"{values['value']:.3g} ({values['low']:.3g} to {values['high']:.3g})"
