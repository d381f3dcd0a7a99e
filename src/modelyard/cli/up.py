"""`modelyard up`: what it asks and what it shows."""

from pathlib import Path

import click

from modelyard.cli.output import json_option, say
from modelyard.foundation.documents import to_json
from modelyard.processes.all_in_one import Standing, UpOptions
from modelyard.processes.all_in_one import up as run_up
from modelyard.processes.edge_rules import Exposure


class Teller:
    """Prints what the platform says of itself; with `as_json` one JSON line when it is ready."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def standing(self, standing: Standing) -> None:
        """Addresses, place of the data, and what to do next."""
        if self._as_json:
            click.echo(to_json(standing))
            return
        click.echo(click.style("modelyard is up", bold=True))
        click.echo(f"  control    {standing.control_url}")
        click.echo(f"  inference  {standing.inference_url}")
        click.echo(f"  gRPC       {standing.grpc_address}")
        click.echo(f"  data       {standing.data}")
        click.echo(f"  keys       {'required' if standing.auth_required else 'not asked for on loopback'}")
        if standing.adopted:
            click.echo(f"  adopted    {', '.join(standing.adopted)} went on answering and were taken over")
        if standing.bootstrap_token is not None:
            click.echo(f"\nfirst key:  modelyard keys bootstrap --token-file {standing.bootstrap_token}")
        click.echo("\nnext:       modelyard upload model.joblib --name my-model")
        say("Ctrl-C drains and stops.")

    def event(self, text: str) -> None:
        """Something happened to a process."""
        say(text)

    def draining(self) -> None:
        """The end was asked for."""
        say("draining: answers under way are finished first")


@click.command(short_help="Start the whole platform on this machine.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Data directory; it is printed.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--control-port", type=click.IntRange(0, 65535), help="Without it 8700 or the next free one.")
@click.option("--inference-port", type=click.IntRange(0, 65535), help="Without it 8080 or the next free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Without it 8081 or the next free one.")
@click.option("--servers", type=click.IntRange(1, 64), help="Listening model servers.  [default: one a core]")
@click.option("--nodes", type=click.IntRange(0, 16), help="Nodes of this machine that keep isolated workers apart.")
@click.option("--auth", type=click.Choice(["open", "required"]), help="Default: open on loopback, else required.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="TLS certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="TLS key, PEM.")
@click.option("--trusted-proxy", "proxies", multiple=True, metavar="CIDR", help="Proxy in front; repeatable.")
@click.option("--allowed-host", "hosts", multiple=True, metavar="HOST", help="Another Host to answer to; repeatable.")
@click.option("--settings", type=click.Path(path_type=Path, exists=True), help="Settings file, YAML.")
@json_option
def up(  # noqa: PLR0913  (one parameter an option)
    *,
    data: Path | None,
    host: str,
    control_port: int | None,
    inference_port: int | None,
    grpc_port: int | None,
    servers: int | None,
    nodes: int | None,
    auth: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    proxies: tuple[str, ...],
    hosts: tuple[str, ...],
    settings: Path | None,
    as_json: bool,
) -> None:
    """Start control plane, model servers and workers, supervised, on embedded defaults.

    Example: modelyard up --data ./yard
    """
    exposure = Exposure(
        host=host,
        auth=auth,
        tls_cert=str(tls_cert.resolve()) if tls_cert else None,
        tls_key=str(tls_key.resolve()) if tls_key else None,
        trusted_proxies=proxies,
        allowed_hosts=hosts,
    )
    given = {"data": data, "servers": servers, "nodes": nodes}
    options = UpOptions(
        control_port=control_port,
        inference_port=inference_port,
        grpc_port=grpc_port,
        settings=settings,
        exposure=exposure,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]  # by name
    )
    run_up(options, Teller(as_json=as_json))
