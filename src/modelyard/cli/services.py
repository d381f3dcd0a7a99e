"""Commands that look at services and ask them."""

import json
from pathlib import Path
from typing import Any

import click

from modelyard.cli.output import json_option, print_json, print_table, say, size_text
from modelyard.cli.platform import platform_command
from modelyard.client import Client, Prediction, ServiceInfo, calls
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest


@click.command(short_help="List services.")
@json_option
@platform_command
def services(client: Client, *, as_json: bool) -> None:
    """List what is deployed."""
    found = client.services()
    if as_json:
        print_json([info.document for info in found])
        return
    rows = [info.document for info in found]
    columns = ("name", "project", "phase", "model", "version", "revision", "url")
    print_table(rows, columns, empty="nothing is deployed; `modelyard deploy NAME` does it")


@click.command(short_help="How a service stands, and why.")
@click.argument("service")
@json_option
@platform_command
def status(client: Client, *, service: str, as_json: bool) -> None:
    """Show SERVICE: phase, reason, what answers, on which servers."""
    info = client.service(service).info
    account = client.send(calls.read("services", service, "account", project=client.connection.project))
    scaling = client.send(calls.read("services", service, "scaling", project=client.connection.project))
    if as_json:
        print_json({**info.document, "account": account, "scaling": scaling})
        return
    _print_status(info)
    if scaling["follows_load"]:
        click.echo(f"workers  {scaling['wanted']}: {scaling['reason'] or 'no load was reported yet'}")
    click.echo(_account_line(account))


@click.command(short_help="Ask a service.")
@click.argument("service")
@click.option("--data", required=True, help="JSON, @file.json, @file.csv or @file.parquet: rows, records or a V2 body.")
@click.option("--version", help="Version to ask; without it, the one that has the traffic.")
@click.option("--async", "later", is_flag=True, help="Do not wait: print the id by which `result` gives the answer.")
@click.option("--webhook", help="With --async: the address that is told the answer.")
@json_option
@platform_command
def predict(  # noqa: PLR0913  (the command line's options)
    client: Client, *, service: str, data: str, version: str | None, later: bool, webhook: str | None, as_json: bool
) -> None:
    """Ask SERVICE for predictions.

    \b
    modelyard predict digits --data '[[0, 0, 5, 13]]'
    modelyard predict digits --data @rows.csv
    """  # noqa: D301  (click reads \b as "keep these lines")
    asked = client.service(service)
    values = _read_data(data)
    if webhook is not None and not later:
        raise InvalidRequest("--webhook is told of answers that come later", hint="add --async")
    if later:
        accepted = asked.ask_later(values, version=version, webhook=webhook)
        if as_json:
            print_json(accepted.status())
        else:
            click.echo(accepted.id)
            say(f"accepted; modelyard result {service} {accepted.id}")
        return
    if isinstance(values, dict) and isinstance(values.get("inputs"), list):
        url = asked.info.url + (f"/versions/{version}" if version else "") + "/infer"
        print_json(client.request("POST", url, json=values).json())
        return
    _print_prediction(asked.ask(values, version=version), as_json=as_json)


@click.command(short_help="The answer to a request that was asked with --async.")
@click.argument("service")
@click.argument("request_id", metavar="ID")
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
@click.option("--cancel", is_flag=True, help="End it if it is not answered; let its answer go if it is.")
@click.option("--status", is_flag=True, help="Only what became of it.")
@json_option
@platform_command
def result(  # noqa: PLR0913  (the command line's options)
    client: Client, *, service: str, request_id: str, wait_s: float, cancel: bool, status: bool, as_json: bool
) -> None:
    """Fetch the answer to request ID of SERVICE, for example: modelyard result digits 5f0c93."""
    asked = client.service(service).later(request_id)
    if cancel:
        asked.cancel()
    elif status:
        print_json(asked.status())
    else:
        _print_prediction(asked.result(wait_s), as_json=as_json)


def _print_prediction(answer: Prediction, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(answer))
        return
    click.echo(answer.frame().to_string(index=False, max_rows=50))
    say(f"{answer.service} version {answer.version}, request {answer.request_id}")


def _read_data(text: str) -> Any:  # noqa: ANN401  (rows, records, a DataFrame or a V2 body)
    if not text.startswith("@"):
        return _json(text)
    path = Path(text[1:])
    if not path.is_file():
        raise InvalidRequest(
            f"there is no file {quote(path)}", hint="write --data @rows.csv for a file, or JSON itself"
        )
    if path.suffix == ".json":
        return _json(path.read_text(encoding="utf-8"))
    import pandas as pd

    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    raise InvalidRequest(f"{quote(path.name)} is of no kind that is read here", hint="use .json, .csv or .parquet")


def _json(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            f"the data is not JSON: {error}", hint="quote it for the shell, or use @file.json"
        ) from error


def _plain(answer: Prediction) -> dict[str, object]:
    return {
        "service": answer.service,
        "version": answer.version,
        "digest": answer.digest,
        "request_id": answer.request_id,
        "outputs": {name: values.tolist() for name, values in answer.outputs.items()},
    }


def _account_line(account: dict[str, Any]) -> str:
    """What became of all requests, in one line."""

    def part(name: str, reasons: dict[str, int]) -> str:
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        return f"{name} {sum(reasons.values())}" + (f" ({told})" if told else "")

    parts = (
        f"answered {account['answered']}",
        part("rejected", account["rejected"]),
        part("lost", account["lost"]),
        f"in flight {account['in_flight']}",
    )
    return f"inputs   received {account['received']} = {' + '.join(parts)}"


def _print_status(info: ServiceInfo) -> None:
    document = info.document
    click.echo(f"{info.name}  {click.style(info.phase, bold=True)}  {info.reason}")
    click.echo(f"answers  {info.model}:{info.version}  revision {info.revision}  {document.get('digest', '')}")
    click.echo(f"address  {info.url}")
    for condition in document.get("conditions") or ():
        click.echo(f"         {condition.get('type')}: {condition.get('status')}  {condition.get('reason', '')}")
    servers = [{**row, "memory": size_text(row.get("memory_bytes") or 0)} for row in document.get("servers") or ()]
    if servers:
        print_table(servers, ("server", "state", "version", "device", "load_s", "memory", "reason"), empty="")
