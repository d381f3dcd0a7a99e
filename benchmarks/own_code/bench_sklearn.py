"""What scikit-learn costs as own code, against MLServer serving the same estimator: one run, alternating rounds.

    python -m benchmarks.own_code.bench_sklearn [--seconds 3] [--rounds 5] [--wheels DIR] [--pool]

The same file (scaler and logistic regression, or a forest of 100 trees) is served by MLServer's own scikit-learn
runtime (in its listening process; with --pool also in its pool of processes), by Modelyard as `predict.py` in an
isolated worker behind walls, and by Modelyard as it serves a scikit-learn file by itself (converted to ONNX).
Everything of a server runs on one core, wrk on the other; bodies differ; answers are compared before. Ratios hold on a
busy machine, rates do not.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import httpx
import joblib
import psutil
from benchmarks.serving.environments import install
from benchmarks.serving.load import Sample, drive, write_script
from benchmarks.serving.peers.base import python
from benchmarks.serving.servers import free_port
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.testing.platform import serving

PEER = "mlserver-sklearn"
OURS, INLINE, POOL, ONNX = "modelyard own code", "mlserver, in process", "mlserver, pool", "modelyard, as ONNX"
_SOURCE = """
import joblib

def load(path):
    return joblib.load(path + "/model.joblib")

def predict(inputs):
    return model.predict(inputs["x"])
"""
_CONFIG = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
    "batching": {"max_size": 64},
}
_NEEDS = ("scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl", "narwhals")
_START_S = 180.0


def main() -> None:
    """Serve, compare answers, drive in turn, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wheels", help="folder of wheels; without it the installer's own index is asked")
    parser.add_argument("--pool", action="store_true", help="MLServer's pool of processes too")
    given = parser.parse_args()
    install([PEER])
    x, y = load_iris(return_X_y=True)
    estimators = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "forest of 100 trees": RandomForestClassifier(100, random_state=1),
    }
    for title, estimator in estimators.items():
        with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
            place = Path(text)
            joblib.dump(estimator.fit(x.astype("f4"), y), place / "model.joblib")
            source = ("--wheels", given.wheels) if given.wheels else ()
            served = _serve_all(stack, place, source, pool=given.pool)
            _require_equal(served, estimator.predict(x[::7].astype("f4")).tolist(), x[::7])
            print(f"{title}", flush=True)
            for connections in (1, 16, 64):
                _round(served, place, x, connections=connections, given=given)


def _serve_all(stack: ExitStack, place: Path, source: tuple[str, ...], *, pool: bool) -> dict[str, tuple[str, int]]:
    """Name → address of the model and process at the top of its tree."""
    served = {}
    for name, path, options in (
        (OURS, _code(place), ("--trust", *source)),
        (ONNX, place / "model.joblib", ()),
    ):
        folder = place / f"serving-{len(served)}"
        folder.mkdir()
        one = stack.enter_context(serving(path, folder, "--name", "m", *options))
        assert one.command.process is not None
        served[name] = (f"{one.url}/infer", one.command.process.pid)
    for name, workers in ((INLINE, 0), (POOL, 1))[: 1 + pool]:
        served[name] = stack.enter_context(_mlserver(place / f"mlserver-{workers}", place, workers=workers))
    for _, pid in served.values():
        _pin(pid)
    return served


def _code(place: Path) -> Path:
    bundle = place / "bundle"
    bundle.mkdir()
    (bundle / "predict.py").write_text(_SOURCE)
    (bundle / "requirements.lock").write_text("".join(f"{name}=={version(name)}\n" for name in _NEEDS))
    (bundle / "config.json").write_text(json.dumps(_CONFIG))
    os.link(place / "model.joblib", bundle / "model.joblib")
    return bundle


@contextmanager
def _mlserver(folder: Path, place: Path, *, workers: int) -> Iterator[tuple[str, int]]:
    port = free_port()
    (folder / "m").mkdir(parents=True)
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = {**ports, "host": "127.0.0.1", "parallel_workers": workers, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "m",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(place / "model.joblib")},
    }
    (folder / "m" / "model-settings.json").write_text(json.dumps(model))
    program = str(Path(python(PEER)).with_name("mlserver"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "start", str(folder)], stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}/v2/models/m"
        _await(f"{url}/ready", process, folder / "log")
        yield f"{url}/infer", process.pid
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in tree:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).is_success:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(log.read_text(errors="replace")[-2000:])


def _body(row: Mapping[int, float]) -> bytes:
    data = [round(float(value), 4) for value in row]
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": data}]}).encode()


def _require_equal(served: Mapping[str, tuple[str, int]], wanted: list[int], rows: "Mapping[int, float]") -> None:
    for name, (url, _) in served.items():
        for row, label in zip(rows, wanted, strict=True):
            answer = httpx.post(url, content=_body(row), headers={"content-type": "application/json"}, trust_env=False)
            first = next(one for one in answer.json()["outputs"] if one["datatype"] in {"INT64", "BYTES"})
            assert str(first["data"][0]) == str(label), (name, answer.text)


def _pin(pid: int) -> None:
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        for thread in process.threads():
            psutil.Process(thread.id).cpu_affinity([0])


def _round(
    served: Mapping[str, tuple[str, int]],
    place: Path,
    rows: "Mapping[int, float]",
    *,
    connections: int,
    given: argparse.Namespace,
) -> None:
    script = place / "load.lua"
    write_script(script, [_body(row) for row in rows], {"content-type": "application/json"})
    samples: dict[str, list[Sample]] = {name: [] for name in served}
    for _ in range(given.rounds):
        for name, (url, pid) in served.items():
            samples[name].append(
                drive(url, script, connections=connections, seconds=given.seconds, core="1", pids=[pid])
            )
    print(f"  {connections} connections")
    for name, each in samples.items():
        rate, cpu = (statistics.median(getattr(sample, field) for sample in each) for field in ("rate", "cpu"))
        pairs = list(zip(samples[OURS], each, strict=True))
        cheaper = statistics.median(other.cpu / ours.cpu for ours, other in pairs)
        faster = statistics.median(ours.rate / other.rate for ours, other in pairs)
        print(
            f"    {name:<24} {rate:8.0f} req/s {cpu:8.1f} µs CPU   own code: {faster:6.2f} × the rate, "
            f"1/{cheaper:.2f} of the CPU   {sum(sample.bad for sample in each)} bad",
            flush=True,
        )


if __name__ == "__main__":
    main()
