"""The whole search on a real model, through real model servers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from modelyard.domain.errors.platform import InvalidRequest, JobFailed, NotSupported
from modelyard.domain.job_kinds import KINDS
from modelyard.processes.jobs.runners import JOB_RUNNERS

pytestmark = pytest.mark.slow


def optimise(job):
    return JOB_RUNNERS.get("optimise")().run(job)


def test_the_cheapest_form_that_keeps_to_both_bounds_is_chosen_and_offered(attempt, forest):
    job = attempt(forest, rows=16, methods=["trees", "int8"], parent="digits:1")
    result = optimise(job)
    chosen, default = result["chosen"], result["default"]
    assert (chosen["form"], default["form"]) == ("trees", "as it is")
    assert 0 <= chosen["points_lost"] <= 0.5
    assert chosen["p99_ms"]["high"] <= 1000
    assert chosen["cost"]["value"] < default["cost"]["value"]
    assert result["times_cheaper"]["value"] > 1
    assert {each["rounds"] for each in result["points"]} == {6}
    assert ("int8", "onnxruntime") in {(each["form"], each["runtime"]) for each in result["left_out"]}
    assert all(each["runtime"] != "openvino" for each in result["points"]), "OpenVINO knows no trees"
    [offered] = job.offered
    assert (offered.name, offered.parent, offered.labels) == ("digits", "digits:1", {str(n): str(n) for n in range(10)})
    assert json.loads(job.kept["points.json"].read_text())["chosen"] == chosen
    assert job.kept["frontier.svg"].read_text().count("as it is on onnxruntime") >= 1
    assert job.reports[-1].done == 1.0


def test_where_nothing_keeps_to_the_latency_nothing_is_offered_and_the_quickest_is_named(attempt, forest):
    job = attempt(forest, p99_ms=0.01, methods=["graph"], runtimes=["onnxruntime"])
    result = optimise(job)
    assert result["chosen"] is None
    assert result["quickest"]["p99_ms"]["value"] > 0.01
    assert job.offered == []


def test_a_form_that_would_lose_too_much_is_left_out_with_what_it_would_lose(attempt, forest):
    result = optimise(attempt(forest, max_drop=0.0, methods=["trees"], runtimes=["onnxruntime"], seconds=5))
    assert all(each["points_lost"] == 0 for each in result["points"])


def test_openvino_serves_what_it_can_read(attempt, network):
    result = optimise(attempt(network, methods=["graph"], rows=4))
    found = {(each["form"], each["runtime"]) for each in result["points"]}
    looked_at = " ".join(each["what"] for each in result["put_aside"])
    assert ("as it is", "openvino") in found or "as it is on openvino" in looked_at
    assert not [each for each in result["left_out"] if each["runtime"] == "openvino"]


def test_more_rows_than_the_model_takes_at_once_are_refused(attempt, forest):
    package = json.loads((forest.given / "package" / "package.json").read_text())
    assert package["contract"]["max_batch_size"] < 4097
    with pytest.raises(InvalidRequest, match="more than this model takes at once"):
        optimise(attempt(forest, rows=package["contract"]["max_batch_size"] + 1))


def test_a_sample_of_another_shape_is_refused_before_anything_is_measured(attempt, forest):
    other = SimpleNamespace(given=forest.given, rows=forest.rows[:, :60], right=forest.right)
    with pytest.raises(InvalidRequest, match="has the shape \\[60\\]"):
        optimise(attempt(other))


def test_a_model_that_runs_in_a_worker_of_its_own_is_refused(attempt, forest, tmp_path):
    given = tmp_path / "given"
    (given / "package").mkdir(parents=True)
    package = json.loads((forest.given / "package" / "package.json").read_text())
    (given / "package" / "package.json").write_text(
        json.dumps({**package, "isolation": "process", "runtime": "python_code", "format": "python"})
    )
    with pytest.raises(NotSupported, match="this one is python"):
        optimise(attempt(SimpleNamespace(given=given, rows=forest.rows, right=forest.right)))


def test_one_that_is_cancelled_ends_soon_and_offers_nothing(attempt, forest):
    job = attempt(forest, seconds=600)
    job.cancelled = True
    with pytest.raises(JobFailed, match="ended before it was done"):
        optimise(job)
    assert job.offered == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"p99_ms": 0}, "parameters.p99_ms"),
        ({"p99_ms": 5, "methods": ["magic"]}, "parameters.methods"),
        ({"p99_ms": 5, "runtimes": ["tensorrt"]}, "parameters.runtimes"),
        ({"p99_ms": 5, "rows": 1.5}, "parameters.rows"),
        ({}, "parameters.p99_ms"),
    ],
)
def test_a_wrong_parameter_is_named_when_it_is_submitted(wrong, field):
    with pytest.raises(InvalidRequest) as refused:
        KINDS["optimise"].check(wrong, {"model": {}, "sample": {}})
    assert [each["field"] for each in refused.value.details] == [field]


def test_two_ends_make_a_prediction():
    runner = JOB_RUNNERS.get("measure")()
    runner.check({"service": "s", "predicted_ms": [1, 2]})
    with pytest.raises(InvalidRequest, match="two ends"):
        runner.check({"service": "s", "predicted_ms": [1]})


def test_forms_of_one_seed_are_asked_the_same_rows(attempt, forest):
    from modelyard.domain.tensors import DataType, TensorSpec
    from modelyard.foundation.samples import Sample
    from modelyard.processes.jobs.optimising.pool import made_requests

    given = [TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 64))]
    sample = Sample({"x": forest.rows}, None, len(forest.rows))
    one, other = (made_requests("/p", given, given, sample, rows=3, chance=np.random.default_rng(5)) for _ in range(2))
    assert one == other
    assert len({len(each) for each in one}) == 1
