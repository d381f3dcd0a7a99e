"""What own code costs: the same small model as ONNX in the listening process and as predict.py in its own worker.

    python -m benchmarks.own_code.bench_own_code [--seconds 4] [--rounds 3] [--wheels DIR]

Server and worker share one core, wrk has the other; rounds alternate between the two, bodies differ.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import psutil
from benchmarks.serving.load import Sample, drive, write_script
from onnx import TensorProto, helper

from modelyard.testing.platform import Serving, serving

_SOURCE = """
import numpy as np

def load(path):
    return np.arange(12, dtype="f4").reshape(4, 3)

def predict(inputs):
    return inputs["x"] @ model
"""
_CONFIG = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    "batching": {"max_size": 64},
}


def main() -> None:
    """Serve both, drive them in turn, print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wheels", help="folder of wheels; without it the installer's own index is asked")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        place = Path(text)
        served = {
            "onnx, shared": stack.enter_context(serving(_onnx(place / "a"), place / "a", "--name", "m")),
            "own code": stack.enter_context(
                serving(_code(place / "b"), place / "b", "--name", "m", "--trust", *_source(given.wheels))
            ),
        }
        script = _script(place)
        for one in served.values():
            _pin(one, core=0)
        for connections in (1, 64):
            samples: dict[str, list[Sample]] = {name: [] for name in served}
            for _ in range(given.rounds):
                for name, one in served.items():
                    pids = [_tree(one)[0].pid]
                    url = f"{one.url}/infer"
                    sample = drive(url, script, connections=connections, seconds=given.seconds, core="1", pids=pids)
                    samples[name].append(sample)
            _show(connections, samples)


def _source(wheels: str | None) -> tuple[str, ...]:
    return ("--wheels", wheels) if wheels else ()


def _onnx(place: Path) -> Path:
    place.mkdir()
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 3], np.arange(12, dtype="f4"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), place / "m.onnx")
    return place / "m.onnx"


def _code(place: Path) -> Path:
    bundle = place / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "predict.py").write_text(_SOURCE)
    (bundle / "requirements.lock").write_text(f"numpy=={version('numpy')}\n")
    (bundle / "config.json").write_text(json.dumps(_CONFIG))
    return bundle


def _script(place: Path) -> Path:
    rows = np.random.default_rng(7).random((256, 4)).round(4)
    bodies = [
        json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row.tolist()}]}).encode()
        for row in rows
    ]
    path = place / "load.lua"
    write_script(path, bodies, {"content-type": "application/json"})
    return path


def _tree(one: Serving) -> list[psutil.Process]:
    assert one.command.process is not None
    top = psutil.Process(one.command.process.pid)
    return [top, *top.children(recursive=True)]


def _pin(one: Serving, *, core: int) -> None:
    for process in _tree(one):
        for thread in process.threads():
            psutil.Process(thread.id).cpu_affinity([core])


def _show(connections: int, samples: dict[str, Sequence[Sample]]) -> None:
    print(f"{connections} connections")
    for name, all_of in samples.items():
        rate, p50, p99, cpu = (
            statistics.median(getattr(sample, field) for sample in all_of) for field in ("rate", "p50", "p99", "cpu")
        )
        bad = sum(sample.bad for sample in all_of)
        print(f"  {name:<14} {rate:9.0f} req/s   p50 {p50:7.3f} ms   p99 {p99:7.3f} ms   {cpu:6.1f} µs CPU   {bad} bad")


if __name__ == "__main__":
    main()
