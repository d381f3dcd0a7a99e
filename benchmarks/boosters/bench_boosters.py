"""What boosted trees cost: the ONNX form that is served, against the libraries that made them. One thread, CPU time.

    python -m benchmarks.boosters.bench_boosters [--rounds 5] [--seconds 0.3]

Both forms hold the same trees (depth 6, 30 features), answer the same rows, and are compared on 2,000 rows before they
are timed. Rounds alternate between the two; figures are medians of processor time, so that they hold on a busy machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import xgboost

from modelyard.inspection.children.builders import lightgbm_trees, xgboost_trees

Array = np.ndarray[Any, Any]
Ask = Callable[[Array], Array]
FEATURES, DEPTH, ROWS = 30, 6, 5000
BATCHES = (1, 32, 1024)


def main() -> None:
    """Train, compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="processor time of one round of one form")
    given = parser.parse_args()
    print("library    trees  batch   ONNX µs   native µs   ONNX/native   largest difference")
    for library, make in (("xgboost", _xgboost), ("lightgbm", _lightgbm)):
        for trees in (100, 1000):
            with tempfile.TemporaryDirectory() as place:
                onnx, native = make(Path(place), trees)
            rows = np.random.default_rng(3).normal(size=(2000, FEATURES)).astype("f4")
            apart = float(np.abs(onnx(rows)[:, 1] - native(rows)).max())
            assert apart < 1e-5, f"{library} and its ONNX form differ by {apart}"
            for batch in BATCHES:
                left, right = _time(onnx, native, batch, given.rounds, given.seconds)
                print(
                    f"{library:<10} {trees:5}  {batch:5}  {left * 1e6:8.1f}   {right * 1e6:9.1f}   "
                    f"{left / right:11.2f}   {apart:.1e}",
                    flush=True,
                )


def _data() -> tuple[Array, Array]:
    random = np.random.default_rng(1)
    x = random.normal(size=(ROWS, FEATURES)).astype("f4")
    y = (x[:, 0] * x[:, 1] + np.sin(x[:, 2] * 3) + x[:, 3] + random.normal(size=ROWS) > 0).astype("f4")
    return x, y


def _xgboost(place: Path, trees: int) -> tuple[Ask, Ask]:
    x, y = _data()
    settings = {"objective": "binary:logistic", "max_depth": DEPTH, "min_child_weight": 0, "nthread": 1, "eta": 0.1}
    booster = xgboost.train(settings, xgboost.DMatrix(x, y), trees)
    booster.save_model(place / "m.json")
    built = xgboost_trees.build(place, "m.json", {})
    return _session(built.model.SerializeToString()), lambda rows: np.asarray(booster.inplace_predict(rows))


def _lightgbm(place: Path, trees: int) -> tuple[Ask, Ask]:
    x, y = _data()
    settings = {"objective": "binary", "max_depth": DEPTH, "num_leaves": 1 << DEPTH, "num_threads": 1, "verbose": -1,
                "min_data_in_leaf": 1}  # fmt: skip
    booster = lightgbm.train(settings, lightgbm.Dataset(x, y), trees)
    booster.save_model(place / "m.txt")
    built = lightgbm_trees.build(place, "m.txt", {"input": {"name": "x", "datatype": "FP32", "shape": [-1, FEATURES]}})
    return _session(built.model.SerializeToString()), lambda rows: np.asarray(booster.predict(rows, num_threads=1))


def _session(model: bytes) -> Ask:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: np.asarray(session.run(None, {name: rows})[0])


def _time(one: Ask, other: Ask, batch: int, rounds: int, seconds: float) -> tuple[float, float]:
    """Processor seconds of one call of each, the median of alternating rounds."""
    random = np.random.default_rng(5)
    batches = [random.normal(size=(batch, FEATURES)).astype("f4") for _ in range(16)]
    seen: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for form, times in zip((one, other), seen, strict=True):
            times.append(_per_call(form, batches, seconds))
    return statistics.median(seen[0]), statistics.median(seen[1])


def _per_call(form: Ask, batches: list[Array], seconds: float) -> float:
    calls, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        for rows in batches:
            form(rows)
        calls += len(batches)
    return (time.process_time() - began) / calls


if __name__ == "__main__":
    main()
