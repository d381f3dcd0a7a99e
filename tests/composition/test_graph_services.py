"""Graphs as services of a real platform: planned, applied, changed, gone back from; and what their parts may not do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.client import Client, calls
from modelyard.client.errors import RemoteError
from modelyard.testing.platform import Platform, running_platform, wait_until

pytestmark = [pytest.mark.platform, pytest.mark.slow]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("graphs")) as running:
        yield running


@pytest.fixture(scope="module")
def client(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    place = tmp_path_factory.mktemp("models")
    with platform.client() as opened:
        for name, factor, source in (("double", 2.0, "x"), ("triple", 3.0, "x"), ("halve", 0.5, "y")):
            opened.upload(model(place, name, factor, source), name=name)
        opened.upload(model(place, "double2", 20.0, "x"), name="double")
        opened.upload(model(place, "renamed", 1.0, "other"), name="renamed")
        for name in ("double", "triple"):
            opened.deploy(f"{name}:1", service=name)
        yield opened


def model(place: Path, name: str, factor: float, source: str) -> Path:
    """y = factor · source, both FP32 [-1, 2]."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = ["n", 2]
    graph = helper.make_graph(
        [helper.make_node("Mul", [source, "f"], ["y" if source != "y" else "z"])],
        name,
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y" if source != "y" else "z", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([factor], dtype="f4"), "f")],
    )
    path = place / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def manifest(name: str, nodes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.io/v1",
        "kind": "ModelService",
        "metadata": {"name": name},
        "spec": {"graph": {"nodes": nodes}, **spec},
    }


def deploy(client: Client, name: str, nodes: dict[str, Any], **more: Any) -> Any:
    return client.wait(client.send(calls.deploy({"name": name, "graph": {"nodes": nodes}, **more})))


def chain(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"root": {"type": "Sequence", "steps": list(steps)}}


def ask(platform: Platform, name: str) -> httpx.Response:
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
    return httpx.post(f"{platform.inference_url}/v2/models/{name}/infer", json=body, timeout=60, trust_env=False)


DOUBLE_TRIPLE = chain({"service": "double", "outputs": {"y": "x"}}, {"service": "triple"})


def test_a_graph_is_deployed_described_changed_and_gone_back_from(platform: Platform, client: Client) -> None:
    info = deploy(client, "six", DOUBLE_TRIPLE)
    answer = ask(platform, "six")
    assert answer.json()["outputs"][0]["data"] == [6.0, 12.0]
    assert answer.headers["x-model-digest"] == info.document["digest"]
    assert answer.headers["x-parts"] == "double;revision=1, triple;revision=1"
    shown = client.service("six").info.document
    assert [one["name"] for one in shown["contract"]["inputs"]] == ["x"]
    deploy(client, "six", chain({"service": "double"}))
    wait_until(lambda: ask(platform, "six").json()["outputs"][0]["data"] == [2.0, 4.0], what="the new graph answers")
    client.request("POST", f"{platform.control_url}/api/v1/services/six/rollback", json={})
    wait_until(lambda: ask(platform, "six").json()["outputs"][0]["data"] == [6.0, 12.0], what="the old graph answers")


def test_a_graph_with_models_of_its_own_keeps_the_versions_it_was_given(platform: Platform, client: Client) -> None:
    nodes = chain({"model": "double:1"}, {"model": "halve", "outputs": {"z": "result"}})
    info = deploy(client, "own", nodes)
    assert [part["version"] for part in info.document["spec"]["parts"]] == ["1", "1"]
    answer = ask(platform, "own")
    assert answer.json()["outputs"] == [{"name": "result", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]
    with pytest.raises(RemoteError, match="service own"):
        client.request("POST", f"{platform.control_url}/api/v1/models/halve/versions/1/archive", json={})


def test_a_part_that_a_graph_asks_is_not_taken_away_and_not_changed_into_what_does_not_fit(
    platform: Platform, client: Client
) -> None:
    client.deploy("double:1", service="needed")
    deploy(client, "needs", chain({"service": "needed"}))
    with pytest.raises(RemoteError, match="'needs'"):
        client.undeploy("needed")
    deploy(client, "maps", chain({"service": "needed", "inputs": {"x": "pixels"}}))
    with pytest.raises(RemoteError, match="would no longer hold"):
        client.deploy("renamed", service="needed")
    client.deploy("double:2", service="needed")
    wait_until(
        lambda: ask(platform, "needs").json()["outputs"][0]["data"] == [20.0, 40.0], what="the part's new version"
    )
    for name in ("needs", "maps", "needed"):
        client.undeploy(name)
        wait_until(lambda name=name: name not in [info.name for info in client.services()], what="it is gone")


@pytest.mark.parametrize(
    ("nodes", "field", "text"),
    [
        (chain({"service": "nobody"}), "graph.nodes.root.steps[0].service", "no service"),
        (chain({"model": "nobody"}), "graph.nodes.root.steps[0].model", "nobody"),
        (chain({"node": "away"}), "graph.nodes.root.steps[0].node", "no node"),
        (chain({"service": "wrong"}), "graph.nodes.root.steps[0].service", "leads back"),
        (
            chain({"service": "double", "outputs": {"q": "x"}}),
            "graph.nodes.root.steps[0].outputs.q",
            "no such output",
        ),
        (
            {"root": {"type": "Splitter", "steps": [{"service": "double", "weight": 70}, {"service": "triple"}]}},
            "graph.nodes.root.steps",
            "sum to 71",
        ),
    ],
)
def test_a_graph_that_cannot_be_is_refused_at_plan_with_the_path_of_the_field(
    platform: Platform, client: Client, nodes: dict[str, Any], field: str, text: str
) -> None:
    del client
    body = {"name": "wrong", "graph": {"nodes": nodes}}
    answer = httpx.post(f"{platform.control_url}/api/v1/services", json=body, timeout=60, trust_env=False)
    assert answer.status_code in (404, 409, 422), answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == [field]
    assert text in answer.text


def test_services_that_would_ask_each_other_are_refused(client: Client) -> None:
    deploy(client, "first", chain({"service": "double"}))
    deploy(client, "second", chain({"service": "first"}))
    with pytest.raises(RemoteError, match="first → second → first"):
        deploy(client, "first", chain({"service": "second"}))


def test_one_file_brings_a_graph_and_its_parts_and_export_writes_it_back(
    platform: Platform, client: Client, tmp_path: Path
) -> None:
    import subprocess
    import sys

    import yaml

    part = {
        "apiVersion": "modelyard.io/v1",
        "kind": "ModelService",
        "metadata": {"name": "brought"},
        "spec": {"model": "triple:1"},
    }
    nodes = {
        "root": {
            "type": "Switch",
            "steps": [
                {"service": "brought", "when": {"input": "x", "op": "gt", "value": 5}},
                {"node": "share"},
            ],
        },
        "share": {"type": "Splitter", "sticky": "user", "steps": [{"service": "brought", "weight": 100}]},
    }
    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump_all([manifest("bringing", nodes), part], default_flow_style=False))

    def run(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "modelyard.cli", *arguments, "--url", platform.control_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "bringing" in run("plan", "-f", str(file), code=4)
    run("apply", "-f", str(file))
    wait_until(lambda: ask(platform, "bringing").status_code == 200, what="the graph answers")
    assert ask(platform, "bringing").json()["outputs"][0]["data"] == [3.0, 6.0]
    run("plan", "-f", str(file))
    exported = [each for each in yaml.safe_load_all(run("export")) if each and each["metadata"]["name"] == "bringing"]
    assert exported[0]["spec"]["graph"] == {"nodes": nodes}
