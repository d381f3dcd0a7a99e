"""Every runtime keeps the promises of its port, with its real library."""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from made import CODE, CONFIG, onnx_model, openvino_files, original, sha256, with_golden

from modelyard.foundation.documents import to_json
from modelyard.foundation.environments import Environment, Environments, base_interpreter
from modelyard.testing.audited import audited
from modelyard.testing.conformance.runtime import RuntimeConformance

pytestmark = pytest.mark.slow


class TestOnnxRuntime(RuntimeConformance):
    library = "onnxruntime"

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return audited(tmp_path_factory.mktemp("onnx"), {"m.onnx": onnx_model(512).SerializeToString()})


class TestOpenVino(RuntimeConformance):
    library = "openvino"

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        place = tmp_path_factory.mktemp("openvino")
        labels = json.dumps(["setosa", "versicolor", "virginica"]).encode()
        return audited(place / "audit", {**openvino_files(place, width=512), "labels.json": labels})


class TestSklearnOriginal(RuntimeConformance):
    library = "sklearn"

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return audited(tmp_path_factory.mktemp("original"), {"m.joblib": original()})


class TestOwnCode(RuntimeConformance):
    library = "predict"
    in_process: ClassVar[bool] = False

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        files = {"predict.py": CODE.encode(), "requirements.lock": b"", "config.json": json.dumps(CONFIG).encode()}
        return with_golden(audited(tmp_path_factory.mktemp("code"), files))

    @pytest.fixture(scope="class")
    @classmethod
    def environments(cls, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The environment of the tests themselves: nothing has to be installed."""
        root = tmp_path_factory.mktemp("environments")
        place = root / sha256(package / "requirements.lock")
        place.mkdir()
        site = next(path for path in sys.path if path.endswith("site-packages"))
        record = Environment(python=base_interpreter(), site=site, builder="borrowed")
        (place / "environment.json").write_bytes(to_json(record))
        return root


class TestTorchExport(RuntimeConformance):
    library = "torch"
    in_process: ClassVar[bool] = False

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, torch_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Audited by an installation that has torch, so with its golden answer."""
        place = tmp_path_factory.mktemp("torch")
        programs = Path(__file__).parent / "programs"
        subprocess.run([torch_python, programs / "export_program.py", place / "m.pt2"], check=True, capture_output=True)
        done = subprocess.run(
            [torch_python, programs / "audit_program.py", place / "m.pt2", place / "audit"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return Path(done.stdout.strip().splitlines()[-1])

    @pytest.fixture(scope="class")
    @classmethod
    def environments(cls, package: Path, torch_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The environment of the package's own lock file, which the tests have built already."""
        root = tmp_path_factory.mktemp("environments")
        place = root / sha256(package / "requirements.lock")
        place.mkdir()
        site = next((torch_python.parents[1] / "lib").glob("python3.*")) / "site-packages"
        record = Environment(python=base_interpreter(), site=str(site), builder="borrowed")
        (place / "environment.json").write_bytes(to_json(record))
        Environments(root).write_policy(Environments(root).policy())
        return root
