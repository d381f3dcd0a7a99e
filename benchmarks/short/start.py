"""From `modelyard serve digits.joblib` to the first correct prediction, and what it then holds while it idles.

Each run is paired with the bare import of the libraries that reading, converting and running a model need.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import joblib
import psutil
from benchmarks.figures import Figure
from benchmarks.serving.servers import free_port
from benchmarks.serving.trees import Memory, end, memory
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_IMPORTS = "import sklearn, skl2onnx, onnxruntime"
_LIMIT_S, _POLL_S, _IDLE_S = 60.0, 0.01, 3.0


def measure(rounds: int = 5) -> list[Figure]:
    """Start times as they are and against the imports; memory and processes of one model under `serve`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.joblib"
        image, digit = _train(path)
        runs = [(_imports(), *_run(path, image, digit, idle=index == rounds - 1)) for index in range(rounds)]
    command = "modelyard serve digits.joblib"
    took = tuple(seconds for _, seconds, _ in runs)
    held = runs[-1][2]
    assert held is not None
    return [
        Figure(name=f"{command} to first correct prediction", values=took, unit="s", command=command, aim=3.0),
        Figure(
            name=f'the same ÷ python -c "{_IMPORTS}"',
            values=tuple(seconds / imports for imports, seconds, _ in runs),
            unit="ratio",
            command=command,
        ),
        Figure(name="idle memory of serve, PSS of all", values=(held.pss,), unit="MiB", command=command, aim=150),
        Figure(name="idle memory of serve, RSS of all", values=(held.rss,), unit="MiB", command=command),
        Figure(name="processes of serve", values=(held.processes,), unit="", command=command, aim=2),
    ]


def _train(path: Path) -> tuple[list[float], int]:
    images, digits = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(images[:1500], digits[:1500])
    joblib.dump(model, path)
    return [float(value) for value in images[1600]], int(model.predict(images[1600:1601])[0])


def _imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORTS], check=True)
    return time.perf_counter() - began


def _run(path: Path, image: list[float], digit: int, *, idle: bool) -> tuple[float, Memory | None]:
    port = free_port()
    program = str(Path(sys.executable).with_name("modelyard"))
    began = time.perf_counter()
    process = psutil.Popen([program, "serve", str(path), "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        _await(process, f"http://127.0.0.1:{port}/v2/models/digits", image, digit, began)
        took = time.perf_counter() - began
        if not idle:
            return took, None
        time.sleep(_IDLE_S)
        return took, memory([process.pid])
    finally:
        end([process], grace_s=15)


def _await(process: psutil.Popen, base: str, image: list[float], digit: int, began: float) -> None:
    with httpx.Client(trust_env=False, timeout=_LIMIT_S) as client:
        while True:
            if process.poll() is not None or time.perf_counter() - began > _LIMIT_S:
                raise RuntimeError("modelyard serve did not answer")
            with suppress(httpx.HTTPError):
                described = client.get(base)
                if described.is_success:
                    name = described.json()["inputs"][0]["name"]
                    one = {"name": name, "shape": [1, len(image)], "datatype": "FP32", "data": image}
                    answer = client.post(f"{base}/infer", content=json.dumps({"inputs": [one]}))
                    if answer.is_success:
                        _require(answer.json(), digit)
                        return
            time.sleep(_POLL_S)


def _require(answer: dict[str, Any], digit: int) -> None:
    label = next(output for output in answer["outputs"] if output["name"] == "label")
    if str(label["data"][0]) != str(digit):
        raise RuntimeError(f"a wrong prediction: {answer}, the model says {digit}")
