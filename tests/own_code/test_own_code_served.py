"""Own code from a directory to answers over HTTP: with `serve`, and on the platform."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from own_code_kit import DOUBLE, Wheelhouse, make_wheel, write_bundle

from modelyard.client import Client
from modelyard.testing.platform import Command, Platform, running_platform, serving, wait_until

QUESTION = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5, 6, 7]}]}
CORE = """
import pathlib
import onnxruntime
import numpy as np

def load(path):
    return onnxruntime.InferenceSession(str(pathlib.Path(path) / "core.onnx"), providers=["CPUExecutionProvider"])

def predict(frame):
    features = np.column_stack([frame["n"] / 10.0, frame["kind"] == "big"]).astype("f4")
    scores = model.run(None, {"features": features})[0]
    return {"label": ["yes" if score > 0 else "no" for score in scores[:, 0]], "score": scores}
"""
CORE_CONFIG = {
    "inputs_as": "frame",
    "inputs": [
        {"name": "n", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "kind", "datatype": "BYTES", "shape": [-1, 1], "categories": ["big", "small"]},
    ],
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "score", "datatype": "FP32", "shape": [-1, 1]},
    ],
    "batching": {"max_size": 32},
    "example": {
        "inputs": [
            {"name": "n", "shape": [1, 1], "datatype": "FP64", "data": [5.0]},
            {"name": "kind", "shape": [1, 1], "datatype": "BYTES", "data": ["big"]},
        ]
    },
}


EATS = """
import mmap
held = []

def eat(inputs):
    first = float(inputs["x"][0, 0])
    if first == 7:
        np.ones(1 << 29, "u1")
    if first == 8:
        held.append(np.frombuffer(mmap.mmap(-1, 400 << 20), "u1"))
        held[-1][:] = 1
"""


def asking(first: float) -> dict:
    """A question whose first number says what the code does."""
    return {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [first, 1, 2, 3]}]}


def core_model() -> bytes:
    """score = features · (1, -1)."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [1.0, -1.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["score"])],
        "core",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


def worker_pid(supervisor: int, service: str) -> int:
    """The worker of a service, by its name in the process list."""
    title = f"modelyard: model-worker {service} 0"
    found = [each for each in psutil.Process(supervisor).children() if " ".join(each.cmdline()).startswith(title)]
    assert len(found) == 1
    return found[0].pid


@pytest.mark.slow
def test_pandas_before_an_onnx_core_is_served_in_an_environment_of_its_own(
    tmp_path: Path, wheelhouse: Wheelhouse
) -> None:
    lock = "".join(wheelhouse.lines.values())
    bundle = write_bundle(tmp_path / "core", CORE, lock=lock, config=CORE_CONFIG, core__onnx=core_model())
    with serving(bundle, tmp_path, "--trust", "--wheels", str(wheelhouse.folder)) as served:
        answer = httpx.post(
            f"{served.url}/infer",
            json={
                "inputs": [
                    {"name": "n", "shape": [2, 1], "datatype": "FP64", "data": [20.0, 5.0]},
                    {"name": "kind", "shape": [2, 1], "datatype": "BYTES", "data": ["small", "big"]},
                ]
            },
        )
        unknown = httpx.post(
            f"{served.url}/infer",
            json={
                "inputs": [
                    {"name": "n", "shape": [1, 1], "datatype": "FP64", "data": [20.0]},
                    {"name": "kind", "shape": [1, 1], "datatype": "BYTES", "data": ["huge"]},
                ]
            },
        )
        assert "label=" in served.output
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs["label"] == ["yes", "no"]
    np.testing.assert_allclose(outputs["score"], [2.0, -0.5])
    assert unknown.json()["code"] == "unknown_category"


@pytest.mark.slow
def test_killing_the_worker_under_load_fails_no_request(tmp_path: Path, wheelhouse: Wheelhouse) -> None:
    bundle = write_bundle(tmp_path / "double", lock=wheelhouse.lines["numpy"])
    wrong: list[str] = []
    counts = [0] * 4
    over = threading.Event()

    def ask(index: int, url: str) -> None:
        with httpx.Client(timeout=30) as client:
            while not over.is_set():
                answer = client.post(f"{url}/infer", json=QUESTION)
                if answer.status_code != 200 or answer.json()["outputs"][0]["data"] != [12.0, 44.0]:
                    wrong.append(answer.text)
                counts[index] += 1

    with serving(bundle, tmp_path, "--trust", "--wheels", str(wheelhouse.folder)) as served:
        assert served.command.process is not None
        supervisor = served.command.process.pid
        threads = [threading.Thread(target=ask, args=(index, served.url)) for index in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            before = sum(counts)
            wait_until(lambda before=before: sum(counts) > before + 50, what="traffic")
            victim = worker_pid(supervisor, "double")
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda victim=victim, before=before: _another(supervisor, victim) and sum(counts) > before + 100,
                what="the successor's answers",
            )
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def _another(supervisor: int, than: int) -> bool:
    try:
        return worker_pid(supervisor, "double") != than
    except (AssertionError, psutil.Error):
        return False


def test_without_trust_nothing_is_built_or_run(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "double", lock="numpy==2.0.0\n")
    command = Command(["serve", str(bundle), "--port", "0"], tmp_path, tmp_path / "log")
    command.start()
    try:
        assert command.process is not None
        assert command.process.wait(60) == 3
        assert "needs review" in command.text()
        assert "building" not in command.text()
    finally:
        command.stop()


@pytest.mark.slow
@pytest.mark.platform
class TestPlatform:
    @pytest.fixture
    def platform(self, tmp_path: Path, wheelhouse: Wheelhouse):
        settings = tmp_path / "settings.yaml"
        settings.write_text(f"environments:\n  wheel_folder: {wheelhouse.folder}\n  run_limit_s: 1.0\n")
        with running_platform(tmp_path, "--settings", str(settings)) as platform:
            yield platform

    def test_an_approved_version_is_built_deployed_and_a_bad_one_says_why(
        self, tmp_path: Path, platform: Platform, wheelhouse: Wheelhouse
    ) -> None:
        good = write_bundle(tmp_path / "good", lock=wheelhouse.lines["numpy"])
        bad = write_bundle(tmp_path / "bad", lock=wheelhouse.lines["numpy"] + "not-there-at-all==1.0\n")
        broken = write_bundle(tmp_path / "broken", DOUBLE + "\nimport not_there\n", lock=wheelhouse.lines["numpy"])
        with platform.client() as client, httpx.Client(base_url=platform.control_url, timeout=30) as control:
            _deploy(client, control, good, "good")
            assert _phase(control, "good", "serving")["version"] == "1"
            answer = httpx.post(f"{platform.inference_url}/v2/models/good/infer", json=QUESTION)
            assert answer.json()["outputs"][0]["data"] == [12.0, 44.0]
            _deploy(client, control, bad, "bad")
            reason = _phase(control, "bad", "failed")["reason"]
            assert "a package is not where it was looked for" in reason
            assert "not-there-at-all" in reason
            _deploy(client, control, broken, "broken")
            assert "the code imports not_there" in _phase(control, "broken", "failed")["reason"]
            assert _phase(control, "good", "serving")
            make_wheel(wheelhouse.folder, "not_there_at_all", "1.0", {"not_there_at_all.py": b""})
            again = {"name": "bad", "model": "bad", "retry": True}
            control.post("/api/v1/services", json=again).raise_for_status()
            assert _phase(control, "bad", "serving")["revision"]
        built = [path.name for path in platform.places.environments.iterdir() if path.is_dir()]
        assert len(built) == 2

    def test_a_secret_is_in_the_environment_of_the_code_and_nowhere_else(
        self, tmp_path: Path, platform: Platform, wheelhouse: Wheelhouse
    ) -> None:
        text = "sk-the-token-of-this-test"
        source = "import os\n" + DOUBLE.replace(
            "* 2}", f"* (2 if os.environ['TOKEN'] == {text[::-1]!r}[::-1] else 0)}}"
        )
        bundle = write_bundle(tmp_path / "secretive", source, lock=wheelhouse.lines["numpy"])
        manifest = tmp_path / "secretive.json"
        spec = {"model": "secretive:1", "isolation": "process", "env": {"TOKEN": {"secret": "token"}}}
        head = {"apiVersion": "modelyard.io/v1", "kind": "ModelService", "metadata": {"name": "secretive"}}
        manifest.write_text(json.dumps({**head, "spec": spec}))
        apply = [sys.executable, "-m", "modelyard.cli", "apply", "-f", str(manifest), "--url", platform.control_url]
        with platform.client() as client, httpx.Client(base_url=platform.control_url, timeout=30) as control:
            client.upload(bundle, name="secretive")
            control.post("/api/v1/models/secretive/versions/1/approve").raise_for_status()
            refused = subprocess.run(apply, capture_output=True, text=True, timeout=120, check=False)
            assert (refused.returncode, "modelyard secrets set token" in refused.stderr) == (1, True), refused
            control.put("/api/v1/secrets/token", json={"value": text}).raise_for_status()
            subprocess.run(apply, capture_output=True, text=True, timeout=180, check=True)
            _phase(control, "secretive", "serving")
            answer = httpx.post(f"{platform.inference_url}/v2/models/secretive/infer", json=QUESTION)
            assert answer.json()["outputs"][0]["data"] == [12.0, 44.0]
            used = control.delete("/api/v1/secrets/token")
            assert (used.status_code, "service secretive" in used.text) == (409, True)
        files = [path for path in platform.places.data.rglob("*") if path.is_file()]
        assert [path for path in files if text.encode() in path.read_bytes()] == []

    def test_a_worker_is_held_to_the_memory_and_the_processors_that_its_service_allows(
        self, tmp_path: Path, platform: Platform, wheelhouse: Wheelhouse
    ) -> None:
        """Private memory beyond it fails at once, in the code; shared memory is seen, and ends the worker."""
        source = DOUBLE.replace("def predict(inputs):", EATS + "\ndef predict(inputs):\n    eat(inputs)")
        assert source != DOUBLE
        bundle = write_bundle(tmp_path / "hungry", source, lock=wheelhouse.lines["numpy"])
        spec = {"model": "hungry:1", "isolation": "process", "resources": {"memory": "300Mi", "cpu": 1}}
        manifest = {
            "apiVersion": "modelyard.io/v1",
            "kind": "ModelService",
            "metadata": {"name": "hungry"},
            "spec": spec,
        }
        url = f"{platform.inference_url}/v2/models/hungry/infer"
        with platform.client() as client, httpx.Client(base_url=platform.control_url, timeout=30) as control:
            client.upload(bundle, name="hungry")
            control.post("/api/v1/models/hungry/versions/1/approve").raise_for_status()
            for resources, field in (
                ({"memory": "64Mi"}, "spec.resources.memory"),
                ({"memory": "900000Gi"}, "spec.resources.memory"),
                ({"cpu": 1.5}, "spec.resources.cpu"),
                ({"cpu": 100_000}, "spec.resources.cpu"),
            ):
                wrong = {**manifest, "spec": {**spec, "resources": resources}}
                refused = control.post("/api/v1/manifests/plan", json={"documents": [wrong]})
                assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, field), refused.text
            control.post("/api/v1/manifests/apply", json={"documents": [manifest]}).raise_for_status()
            _phase(control, "hungry", "serving")
            worker = psutil.Process(platform.pid_of("model-worker default.hungry.1.0"))
            assert len(worker.cpu_affinity()) == 1

            eaten = httpx.post(url, json=asking(7), timeout=30)
            assert (eaten.status_code, "memory" in eaten.text.lower()) == (500, True), eaten.text
            assert httpx.post(url, json=asking(1), timeout=30).status_code == 200
            assert worker.is_running()

            httpx.post(url, json=asking(8), timeout=30)
            wait_until(lambda: not worker.is_running(), what="the end of the worker")
            log = lambda: control.get("/api/v1/services/hungry").text  # noqa: E731
            wait_until(lambda: httpx.post(url, json=asking(1), timeout=30).status_code == 200, what="the next worker")
            assert "MiB of memory that it may have" in (platform.directory / "up.log").read_text() + log()

    def test_code_that_hangs_costs_its_request_and_its_worker_only(
        self, tmp_path: Path, platform: Platform, wheelhouse: Wheelhouse
    ) -> None:
        source = DOUBLE.replace(
            "    return {", "    import time\n    time.sleep(60 * (inputs['x'][0, 0] == 9))\n    return {"
        )
        bundle = write_bundle(tmp_path / "hangs", source, lock=wheelhouse.lines["numpy"])
        hang = json.loads(json.dumps(QUESTION).replace("[0, 1,", "[9, 1,"))
        with platform.client() as client, httpx.Client(base_url=platform.control_url, timeout=30) as control:
            _deploy(client, control, bundle, "hangs")
            _phase(control, "hangs", "serving")
            began = time.monotonic()
            answer = httpx.post(f"{platform.inference_url}/v2/models/hangs/infer", json=hang, timeout=30)
            assert answer.json()["code"] == "run_failed"
            assert time.monotonic() - began < 15
            after = httpx.post(f"{platform.inference_url}/v2/models/hangs/infer", json=QUESTION, timeout=30)
            assert after.json()["outputs"][0]["data"] == [12.0, 44.0]


def _deploy(client: Client, control: httpx.Client, bundle: Path, name: str) -> None:
    client.upload(bundle, name=name)
    control.post(f"/api/v1/models/{name}/versions/1/approve").raise_for_status()
    control.post("/api/v1/services", json={"name": name, "model": name}).raise_for_status()


def _phase(control: httpx.Client, name: str, phase: str) -> dict[str, str]:
    def reached() -> dict[str, str] | None:
        found: dict[str, str] = control.get(f"/api/v1/services/{name}").json()
        return found if found["phase"] == phase else None

    return dict(wait_until(reached, limit_s=90, what=f"{name} {phase}"))
