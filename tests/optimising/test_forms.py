"""A form that is offered becomes a version that promises what the original does."""

import json

import numpy as np
import pytest

from modelyard.foundation.documents import read_package
from modelyard.foundation.samples import read_sample
from modelyard.inference.hosting import load_model
from modelyard.ports.runtime import LoadOptions
from modelyard.processes.jobs.optimising.forms import FormMaker, package_of
from modelyard.testing.audited import audited


@pytest.mark.slow
def test_the_form_of_another_runtime_passes_the_audit_with_the_same_contract_and_answers(attempt, network, tmp_path):
    job = attempt(network)
    package = package_of(job)
    sample = read_sample(job.input("sample"), package.contract.inputs, target=None)
    forms = FormMaker(job, package, sample).make((), ("onnxruntime", "openvino"), tell=lambda _, __: None)
    original, converted = forms.made
    assert (converted.runtime, converted.points) == ("openvino", 0)
    files = {path.name: path.read_bytes() for path in converted.upload.iterdir()}
    labels = {"labels.json": json.dumps(converted.package.contract.label_file()).encode()}
    made = audited(tmp_path / "audit", {**files, **labels}, name="digits")
    found = read_package(made)
    assert found.runtime == "openvino"
    assert found.contract.outputs == package.contract.outputs
    assert found.contract.labels == package.contract.labels
    assert [(spec.name, spec.datatype) for spec in found.contract.inputs] == [
        (spec.name, spec.datatype) for spec in package.contract.inputs
    ]
    assert found.contract.max_batch_size > 1
    rows = sample.part(0, 64)
    before, after = (load_model(place, options=LoadOptions()).run(rows) for place in (original.directory, made))
    assert before.keys() == after.keys()
    assert (before["label"] == after["label"]).all()
    for name in before.keys() - {"label"}:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-5)
