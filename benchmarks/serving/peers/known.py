"""The peers: each is a small class that says how its server is started."""

import json
import subprocess
from pathlib import Path

from benchmarks.serving.models import MODELS, Model
from benchmarks.serving.peers.base import PROGRAMS, Launch, Peer, Place, environment, python

ALL = ("s", "m", "r")


class ByProgram:
    """A peer that is one Python program of ours in its own environment."""

    models: tuple[str, ...] = ALL
    has_binary = False
    style = "v2"

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self._arguments = arguments

    def launch(self, place: Place) -> Launch:
        """Run the program with the port where `{port}` stands."""
        arguments = tuple(each.format(port=place.port, programs=PROGRAMS) for each in self._arguments)
        return Launch(command=(python(self.name), *arguments), env=environment(place))

    def path(self, model: str) -> str:
        """A route a model."""
        return f"/{model}"


class KServe(ByProgram):
    """The KServe SDK's model server."""

    def path(self, model: str) -> str:
        """Open Inference Protocol."""
        return f"/v2/models/{model}/infer"


class MLServer(KServe):
    """MLServer with its settings files; inference in the listening process."""

    def launch(self, place: Place) -> Launch:
        """Write the settings."""
        settings = {
            "http_port": place.port,
            "grpc_port": place.port + 1000,
            "metrics_port": place.port + 2000,
            "host": "127.0.0.1",
            "parallel_workers": 0,
            "debug": False,
        }
        (place.directory / "settings.json").write_text(json.dumps(settings))
        for name in ALL:
            folder = place.directory / name
            folder.mkdir()
            model = {"name": name, "implementation": "mlserver_app.Onnx"}
            (folder / "model-settings.json").write_text(json.dumps(model))
        program = str(Path(python(self.name)).with_name("mlserver"))
        return Launch(command=(program, "start", str(place.directory)), env=environment(place))


class Triton:
    """tritonserver with its Python backend, both as they come inside nvidia-pytriton's wheel."""

    name = "triton"
    models = ALL
    has_binary = True
    style = "v2"

    def launch(self, place: Place) -> Launch:
        """Write a model repository."""
        interpreter = Path(python("triton"))
        site = next((interpreter.parents[1] / "lib").glob("python3.*")) / "site-packages"
        home = site / "pytriton" / "tritonserver"
        version = site.parent.name.removeprefix("python")
        stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
        backend = place.directory / "backends" / "python"
        backend.mkdir(parents=True)
        for file in (*(home / "backends" / "python").iterdir(), stub):
            (backend / file.name).symlink_to(file)
        repository = place.directory / "repository"
        for model in MODELS.values():
            folder = repository / model.name / "1"
            folder.mkdir(parents=True)
            (folder / "model.py").symlink_to(PROGRAMS / "triton_model.py")
            (folder.parent / "config.pbtxt").write_text(_config(model))
        libraries = (home / "external_libs", home / "lib", Path("/usr/lib"))
        env = {
            **environment(place),
            "SITE": f"{PROGRAMS}:{site}",
            "LD_LIBRARY_PATH": ":".join(str(each) for each in libraries),
        }
        command = (
            str(home / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={backend.parent}",
            f"--http-port={place.port}",
            "--http-address=127.0.0.1",
            "--http-thread-count=2",
            "--allow-grpc=false",
            f"--metrics-port={place.port + 2000}",
            "--metrics-address=127.0.0.1",
            "--log-error=true",
            "--log-info=false",
            "--log-warning=false",
        )
        return Launch(command=command, env=env)

    def path(self, model: str) -> str:
        """Open Inference Protocol."""
        return f"/v2/models/{model}/infer"


class MLflow:
    """`mlflow models serve` of a model of the ONNX flavour; only S, with bodies of its own protocol."""

    name = "mlflow"
    models = ("s",)
    has_binary = False
    style = "mlflow"

    def launch(self, place: Place) -> Launch:
        """Save the model."""
        model = place.directory / "model"
        env = environment(place)
        subprocess.run([python("mlflow"), str(PROGRAMS / "mlflow_save.py"), str(model)], env=env, check=True)
        env["PATH"] = f"{Path(python('mlflow')).parent}:{env['PATH']}"
        arguments = ("--env-manager", "local", "--host", "127.0.0.1", "--port", str(place.port))
        return Launch(
            command=(python("mlflow"), "-m", "mlflow", "models", "serve", "-m", str(model), *arguments), env=env
        )

    def path(self, model: str) -> str:
        """The one model of the server."""
        del model
        return "/invocations"


_UVICORN = ["-m", "uvicorn", "fastapi_app:app", "--no-access-log", "--log-level", "error", "--port", "{port}"]
_MOSEC = ["{programs}/mosec_app.py", "--address", "127.0.0.1", "--port", "{port}", "--log-level", "error"]
_BENTOML = ["-m", "bentoml", "serve", "bentoml_app:Models", "--working-dir", "{programs}", "--port", "{port}"]

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Triton(),
        MLServer("mlserver"),
        KServe("kserve", "{programs}/kserve_app.py"),
        ByProgram("bentoml", *_BENTOML),
        ByProgram("litserve", "{programs}/litserve_app.py"),
        ByProgram("mosec", *_MOSEC),
        MLflow(),
        ByProgram("fastapi", *_UVICORN),
        ByProgram("ray", "{programs}/ray_app.py"),
    )
}


def _config(model: Model) -> str:
    sizes = ", ".join(map(str, model.shape))
    return (
        f'name: "{model.name}"\nbackend: "python"\nmax_batch_size: 64\n'
        f'input [{{ name: "x" data_type: TYPE_FP32 dims: [{sizes}] }}]\n'
        f'output [{{ name: "y" data_type: TYPE_FP32 dims: [{model.outputs}] }}]\n'
        "dynamic_batching {}\ninstance_group [{ kind: KIND_CPU count: 1 }]\n"
    )
