"""`modelyard serve`: what it asks and what it shows."""

from pathlib import Path

import click

from modelyard.cli.output import NEEDS_REVIEW, print_check, say, size_text
from modelyard.domain.contract import ServingPackage
from modelyard.domain.report import AuditReport, Check, Outcome, Refusal, Verdict
from modelyard.domain.tensors import TensorSpec
from modelyard.processes.serve import Served, ServeOptions
from modelyard.processes.serve import serve as run_serve


class Teller:
    """Prints what `serve` does, as it does it."""

    def opened(self, name: str, path: Path, size: int) -> None:
        """What will be served."""
        click.echo(f"{click.style(name, bold=True)}  {path}  {size_text(size)}")
        click.echo()

    def check(self, check: Check) -> None:
        """One audit check."""
        print_check(check)

    def judged(self, report: AuditReport, digest: str) -> None:
        """The verdict."""
        colour = {Verdict.APPROVED: "green", Verdict.NEEDS_REVIEW: "yellow", Verdict.REFUSED: "red"}[report.verdict]
        click.echo()
        click.echo(f"verdict  {click.style(report.verdict.value.replace('_', ' '), fg=colour)}")
        click.echo(f"digest   {digest}")
        if report.refusal is not None:
            self._refused(
                report.refusal, told=any(check.hint for check in report.checks if check.outcome is Outcome.FAILED)
            )

    def _refused(self, refusal: Refusal, *, told: bool) -> None:
        """Why, under the code that is in the documentation; and what to do, unless the check has said it."""
        say(f"error: {refusal.title} ({refusal.code})")
        say(f"  {refusal.detail}")
        if not told:
            say(f"hint: {refusal.hint or 'save the model anew with its own library, then try again'}")

    def explained(self, package: ServingPackage) -> None:
        """The contract."""
        contract = package.contract
        click.echo(f"format   {package.format.value} → {package.runtime}, {contract.task.value}")
        click.echo()
        for title, specs in (("inputs", contract.inputs), ("outputs", contract.outputs)):
            for row, spec in enumerate(specs):
                click.echo(f"{title if row == 0 else '':<8} {_spec(spec)}")
        if contract.labels:
            shown = ", ".join(contract.labels[:12])
            more = f", … {len(contract.labels)} in all" if len(contract.labels) > 12 else ""  # noqa: PLR2004
            click.echo(f"labels   {shown}{more}")

    def serving(self, served: Served) -> None:
        """The address, an answer with its time, and a command to paste."""
        click.echo()
        click.echo(f"golden   {served.answer}  in {served.answer_ms:.1f} ms")
        click.echo(f"ready    {click.style(served.url, bold=True)}  after {served.started_s:.1f} s")
        click.echo(f"gRPC     {served.grpc_address}")
        click.echo()
        click.echo("try it:")
        click.echo(f"  {served.curl}")
        click.echo()
        say("Ctrl-C stops it.")

    def event(self, text: str) -> None:
        """Something happened to a process."""
        say(text)


@click.command(short_help="Serve one model file.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the service; without it, the file's own name.")
@click.option("--labels", type=click.Path(path_type=Path), help="Label map: .json, .txt or .csv, class index to label.")
@click.option("--config", type=click.Path(path_type=Path), help="Bundle configuration (config.json or model.yaml).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; without it 8080 or the next free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="gRPC port; without it 8081 or the next free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Listening processes.")
@click.option("--device", default="auto", show_default=True, help="Where it computes: cpu, cuda, cuda:1, gpu, npu.")
@click.option("--trust", is_flag=True, help="Serve it also when the audit says `needs review` (read why first).")
@click.option("--wheels", type=click.Path(path_type=Path, exists=True), help="Folder of wheels for own code, offline.")
@click.option("--index", help="Package index for own code; without it the installer's own, none with --wheels.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="TLS certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="TLS key, PEM.")
@click.option("--allowed-host", multiple=True, help="Another Host that requests may name; repeatable.")
@click.option("--trusted-proxy", multiple=True, help="CIDR of a proxy in front, where TLS may end; repeatable.")
@click.pass_context
def serve(ctx: click.Context, /, path: Path, **options: object) -> int:
    """Audit a model and serve it: PATH is a model file, a bundle directory or an archive.

    \b
    modelyard serve digits.joblib
    modelyard serve digits.joblib --labels labels.json --port 9000
    """  # noqa: D301  (click reads \b as "keep these lines")
    del ctx
    outcome = run_serve(ServeOptions.from_command_line(path, options), Teller())
    if outcome is Verdict.NEEDS_REVIEW:
        say("hint: read the checks marked `?`; to serve it all the same, add --trust")
        return NEEDS_REVIEW
    return 0 if outcome is Verdict.APPROVED else 1


def _spec(spec: TensorSpec) -> str:
    shape = "×".join("n" if size < 0 else str(size) for size in spec.shape) or "scalar"
    text = f"{spec.name:<20} {spec.datatype.value:<6} {shape}"
    if spec.categories is not None:
        text += f"  one of {', '.join(spec.categories[:6])}{', …' if len(spec.categories) > 6 else ''}"  # noqa: PLR2004
    return text + ("  (may be NaN)" if spec.allows_nan else "")
