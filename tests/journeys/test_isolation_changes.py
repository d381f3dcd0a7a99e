"""A service whose model moves between the listening servers and a worker of its own, back and forth, without a gap."""

from pathlib import Path

import psutil
import pytest
from stranger_models import joblib_classifier, make, original_pipeline

from modelyard.testing.platform import running_platform

pytestmark = [pytest.mark.platform, pytest.mark.slow]


def test_a_service_moves_into_a_worker_and_out_of_it_again(tmp_path: Path) -> None:
    shared, isolated = make(joblib_classifier, tmp_path / "a"), make(original_pipeline, tmp_path / "b")
    with running_platform(tmp_path) as platform, platform.client() as client:
        client.upload(shared.path, name="flowers")
        client.upload(isolated.path, name="flowers")
        client.approve("flowers", "2")
        server = psutil.Process(platform.pid_of("model-server-0"))
        for version, model in (("1", shared), ("2", isolated), ("1", shared), ("2", isolated)):
            info = client.deploy(f"flowers:{version}").info
            assert (info.phase, info.version) == ("serving", version)
            url = f"{info.url}/infer"
            answer = client.request("POST", url, json={"inputs": model.inputs}).json()
            label = next(output for output in answer["outputs"] if output["name"] == "label")
            assert label["data"] == model.labels
            libraries = [mapped.path for mapped in server.memory_maps()]
            assert not [path for path in libraries if "/sklearn/" in path], "the original came into a listening server"
