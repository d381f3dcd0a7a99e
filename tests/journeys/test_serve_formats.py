"""`modelyard serve` on every format that it promises: held-out rows are answered like by the library that made it."""

import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from stranger_models import ALL, Stranger, make

from modelyard.testing.platform import Command, Serving, serving

pytestmark = [pytest.mark.platform, pytest.mark.slow]
AT_ONCE = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Stranger, Serving]]]:
    """Every format, built and served at the same time, a few starts side by side."""
    root = tmp_path_factory.mktemp("formats")
    models = {builder.__name__: make(builder, root / builder.__name__) for builder in ALL}
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:

        def start(name: str) -> Serving:
            model = models[name]
            context = serving(model.path, root / name, *model.options)
            opened = context.__enter__()
            stack.push(context)
            return opened

        started = dict(zip(models, pool.map(start, models), strict=True))
        yield {name: (models[name], started[name]) for name in models}


def answer(serving_: Serving, inputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Outputs by name."""
    response = httpx.post(serving_.url + "/infer", json={"inputs": inputs}, trust_env=False, timeout=20)
    assert response.status_code == 200, response.text
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in response.json()["outputs"]}


@pytest.mark.parametrize("kind", [builder.__name__ for builder in ALL])
def test_a_served_file_answers_like_the_library_that_made_it(
    served: dict[str, tuple[Stranger, Serving]], kind: str
) -> None:
    model, running = served[kind]
    outputs = answer(running, model.inputs)
    if model.labels is not None:
        assert outputs.pop("label").ravel().tolist() == model.labels
    assert model.numbers is not None
    fitting = [found for found in outputs.values() if found.size == model.numbers.size]
    assert len(fitting) == 1, {name: found.shape for name, found in outputs.items()}
    np.testing.assert_allclose(fitting[0].reshape(model.numbers.shape), model.numbers, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["joblib_classifier", "frame_pipeline", "xgboost_ubj", "original_pipeline"])
def test_the_printed_command_answers_when_it_is_pasted(served: dict[str, tuple[Stranger, Serving]], kind: str) -> None:
    running = served[kind][1]
    line = next(line.strip() for line in running.output.splitlines() if line.strip().startswith("curl "))
    done = subprocess.run(
        [*shlex.split(line), "-w", "\n%{http_code}"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.splitlines()[-1] == "200", done


def test_what_does_not_convert_is_served_by_a_worker_of_its_own(served: dict[str, tuple[Stranger, Serving]]) -> None:
    model, running = served["original_pipeline"]
    assert model.is_original
    assert "needs review" in running.output
    assert running.command.process is not None
    children = psutil.Process(running.command.process.pid).children(recursive=True)
    assert any("model-worker" in " ".join(child.cmdline()) for child in children)


def test_what_does_not_convert_asks_for_consent(served: dict[str, tuple[Stranger, Serving]], tmp_path: Path) -> None:
    command = Command(["serve", str(served["original_pipeline"][0].path), "--port", "0"], tmp_path, tmp_path / "log")
    command.start()
    assert command.process is not None
    try:
        assert command.process.wait(60) == 3
    finally:
        command.stop()
    assert "hint: read the checks marked `?`; to serve it all the same, add --trust" in command.text()
    assert "SplineTransformer" in command.text()


def test_every_format_says_what_it_is(served: dict[str, tuple[Stranger, Serving]]) -> None:
    told = {
        name: next(line for line in running.output.splitlines() if line.startswith("format "))
        for name, (_, running) in served.items()
    }
    for name, format_ in (
        ("joblib_classifier", "sklearn"),
        ("skops_classifier", "skops"),
        ("onnx_file", "onnx"),
        ("xgboost_json", "xgboost"),
        ("lightgbm_text", "lightgbm"),
        ("bare_safetensors", "safetensors"),
    ):
        assert told[name].startswith(f"format   {format_} →"), told[name]
