"""Modelyard itself: the model server with packages as the audit made them, with everything on or all that can be off.

`on` checks a key with a scope, holds a rate and a bound on requests in flight, and writes an access log. Metrics and
answer headers cannot be turned off.
"""

import json
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from benchmarks.serving.models import MODELS
from benchmarks.serving.peers.base import ROOT, Launch, Place

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.routing import Backend, Limits, RoutingTable, ServiceRoute
from modelyard.foundation.documents import read_package, to_json
from modelyard.inspection import InspectionPolicy, ReceivedFile, inspect_bundle

_PEPPER = "ab" * 32


class Modelyard:
    """The model server."""

    models = ("s", "m", "r")
    has_binary = True
    style = "v2"

    def __init__(self, name: str, *, everything: bool) -> None:
        self.name = name
        self._everything = everything

    def launch(self, place: Place) -> Launch:
        """Audit the models and write table and settings."""
        key = make_key()
        limits = Limits(requests_per_s=1e9, max_in_flight=100_000) if self._everything else Limits()
        services = tuple(
            ServiceRoute(
                name=name,
                revision=1,
                limits=limits,
                backends=(
                    Backend(
                        model=name,
                        version="1",
                        digest=read_package(package).digest,
                        package=str(package),
                        revision=1,
                    ),
                ),
            )
            for name, package in packages(place.models).items()
        )
        pepper = place.directory / "pepper"
        pepper.write_text(_PEPPER)
        pepper.chmod(0o600)
        record = KeyRecord(
            id=key_id(key) or "",
            mac=key_mac(key, pepper=bytes.fromhex(_PEPPER)),
            name="bench",
            scopes=(Scope(Verb.INFER),),
        )
        keys = (record,) if self._everything else ()
        table = place.directory / "table.json"
        table.write_bytes(
            to_json(RoutingTable(revision=1, services=services, keys=keys, auth_required=self._everything))
        )
        config: dict[str, object] = {
            "table": {"static": str(table)},
            "port": place.port,
            "pepper": str(pepper),
            "metrics": str(place.directory / "metrics"),
            "log_level": "warning",
        }
        if self._everything:
            config["access_log"] = str(place.directory / "access.log")
            config["auth"] = "required"
        (place.directory / "metrics").mkdir()
        settings = place.directory / "server.json"
        settings.write_text(json.dumps(config))
        headers = {"Authorization": f"Bearer {key}"} if self._everything else {}
        command = (sys.executable, "-m", "modelyard.processes.model_server", "--config", str(settings))
        return Launch(command=command, headers=headers, env={"PYTHONPATH": str(ROOT / "src")})

    def path(self, model: str) -> str:
        """Open Inference Protocol."""
        return f"/v2/models/{model}/infer"


class Serve:
    """`modelyard serve` as a person starts it, with so many listening processes."""

    has_binary = True
    style = "v2"

    def __init__(self, model: str, *, workers: int) -> None:
        self.name = f"serve-{workers}"
        self.models = (model,)
        self._workers = workers

    def launch(self, place: Place) -> Launch:
        """The command."""
        path = str(place.models / f"{self.models[0]}.onnx")
        program = str(Path(sys.executable).with_name("modelyard"))
        command = (program, "serve", path, "--port", str(place.port), "--workers", str(self._workers))
        return Launch(command=command)

    def path(self, model: str) -> str:
        """Open Inference Protocol."""
        return f"/v2/models/{model}/infer"


class Echo:
    """The bare echo."""

    name = "echo"
    models = ("s", "m", "r")
    has_binary = True
    style = "echo"

    def launch(self, place: Place) -> Launch:
        """The program."""
        command = (sys.executable, "-m", "benchmarks.serving.echo", str(place.port))
        return Launch(command=command, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})

    def path(self, model: str) -> str:
        """Any."""
        return f"/v2/models/{model}/infer"


@cache
def packages(models: Path) -> dict[str, Path]:
    """Served packages of all models, audited once."""
    made: dict[str, Path] = {}
    for name in MODELS:
        path = models / f"{name}.onnx"
        workdir = models / f"{name}.audited"
        workdir.mkdir()
        data = path.read_bytes()
        file = ReceivedFile(name=path.name, path=path, size=len(data), sha256=sha256(data).hexdigest())
        inspection = inspect_bundle(
            [file], model_name=name, workdir=workdir, policy=InspectionPolicy(), on_check=lambda _: None
        )
        if inspection.package_dir is None:
            raise RuntimeError(f"{name} was not approved: {inspection.report}")
        made[name] = inspection.package_dir
    return made
