"""Smaller forms of real models: how small, how much worse, and what happens where it costs too much."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import numpy_helper

from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.integrations.compressors.compress import Compress
from modelyard.testing.audited import audited


def run(attempt) -> dict:
    runner = Compress()
    runner.check(attempt.parameters)
    return dict(runner.run(attempt))


@pytest.mark.parametrize(("method", "ratio"), [("int8", 0.3), ("int8-static", 0.3), ("fp16", 0.65)])
def test_a_network_gets_smaller_and_answers_as_well(digits, attempt, tmp_path: Path, method, ratio) -> None:
    job = attempt(digits, method=method)
    result = run(job)
    assert result["size"]["ratio"] <= ratio
    assert result["drop"]["points"] <= 0.5
    assert result["drop"]["measure"] == "accuracy"
    assert result["drop"]["rows"] == len(digits.rows)
    assert result["drop"]["low"] <= result["drop"]["points"] <= result["drop"]["high"]
    assert result["drop"]["before"] > 0.9
    assert result["time"]["batch"]["before_us"] > 0
    [offered] = job.offered
    assert offered.name == "digits"
    package = audited(tmp_path / "again", {"model.onnx": offered.data, "labels.txt": labels(10)}, name="smaller")
    session = onnxruntime.InferenceSession(str(next(package.glob("*.onnx"))), providers=["CPUExecutionProvider"])
    [scores] = session.run(None, {session.get_inputs()[0].name: digits.rows})
    assert float((scores.argmax(axis=1) == digits.right).mean()) == pytest.approx(result["drop"]["after"], abs=1e-9)


def labels(count: int) -> bytes:
    return "\n".join(str(number) for number in range(count)).encode()


def test_without_a_target_the_original_is_what_is_right(digits, attempt) -> None:
    result = run(attempt(digits, known=False, method="int8"))
    assert result["drop"]["measure"] == "disagreement with the original"
    assert result["drop"]["before"] is None


def test_a_model_of_numbers_is_judged_by_its_error(diabetes, attempt, tmp_path: Path) -> None:
    frame = pd.DataFrame(diabetes.rows).assign(progression=diabetes.right)
    sample = tmp_path / "rows.csv"
    frame.to_csv(sample, index=False)
    result = run(attempt(diabetes, sample=sample, method="int8", target="progression", max_drop=5.0))
    assert result["drop"]["measure"] == "mean absolute error"
    assert result["drop"]["points"] <= 5.0


def test_a_graph_with_less_in_it_gives_the_same_answers(digits, attempt) -> None:
    result = run(attempt(digits, method="graph", max_drop=0.0))
    assert result["drop"]["points"] == 0.0


def test_what_costs_too_much_stays_as_it_is(digits, attempt, tmp_path: Path) -> None:
    """One layer is given a weight so large that 8 bits leave nothing of the others: it is found, and left out."""
    spoilt = tmp_path / "spoilt"
    (spoilt / "package").mkdir(parents=True)
    for file in (digits.given / "package").iterdir():
        (spoilt / "package" / file.name).write_bytes(file.read_bytes())
    path = next((spoilt / "package").glob("*.onnx"))
    model = onnx.load(str(path))
    weights = {each.name: each for each in model.graph.initializer}
    last = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")][-1]
    values = numpy_helper.to_array(weights[last.input[1]]).copy()
    values[0, :] = 10_000.0  # met by a unit that never fires for these rows, so the answers stay right
    first = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")][-2]
    quiet = numpy_helper.to_array(weights[first.input[1]]).copy()
    quiet[:, 0] = -1.0
    for name, array in ((last.input[1], values), (first.input[1], quiet)):
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, str(path))
    model_of = SimpleNamespace(given=spoilt, rows=digits.rows, right=digits.right)
    result = run(attempt(model_of, method="int8", max_drop=0.5))
    assert result["left_out"]
    assert result["drop"]["points"] <= 0.5
    assert result["size"]["ratio"] < 0.35


def test_where_nothing_is_good_enough_the_job_says_how_much_it_would_cost(digits, attempt) -> None:
    job = attempt(digits, known=False, method="fp16", max_drop=-1.0)
    with pytest.raises(NotSupported, match="points of disagreement with the original on 899 rows, and -1 are allowed"):
        Compress().run(job)
    assert job.offered == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.txt", b"1,2\n", ".csv, .npy or .npz"),
        ("rows.csv", b"a,b\n1,2\n" * 1, "a row of"),
        ("rows.csv", b"\0\1\2", "a row of|cannot be read"),
        ("rows.npy", b"nothing", "cannot be read"),
        ("rows.npz", b"nothing", "cannot be read"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_with_what_would(digits, attempt, tmp_path, name, content, says) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=says) as refused:
        run(attempt(digits, sample=file, method="int8"))
    assert refused.value.details[0]["field"] == "inputs.sample"


def test_too_few_rows_and_labels_that_the_model_does_not_have_are_refused(digits, attempt, tmp_path) -> None:
    few = tmp_path / "few.npy"
    np.save(few, digits.rows[:5])
    with pytest.raises(InvalidRequest, match="5 rows"):
        run(attempt(digits, sample=few, method="int8"))
    with pytest.raises(InvalidRequest, match="there is no such method"):
        Compress().check({"method": "int3"})
