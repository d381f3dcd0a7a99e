"""What every runtime must do. Subclass; give `package`: a directory that the audit made, with golden answer and batch.

```python
class TestOpenVino(RuntimeConformance):
    library = "openvino"

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return audited(tmp_path_factory.mktemp("openvino"), {"m.xml": XML, "m.bin": BIN})
```

A runtime with a program of its own is asked in a worker, as `isolation: process` does; every other one in the test's
process, and once in a worker, where it must answer the same.
"""

import gc
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import psutil
import pytest

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.tensors import VARIABLE, DataType
from modelyard.foundation.documents import read_package, write_package
from modelyard.inference.hosting import RUNTIMES, load_model
from modelyard.inference.hosting.golden import golden_inputs
from modelyard.inspection.children import synthetic
from modelyard.inspection.children.v2_values import FROM_NUMPY
from modelyard.ports.runtime import LoadOptions, ProgramRuntime
from modelyard.testing.isolated import IsolatedModel

Array = np.ndarray[Any, Any]
CPU = LoadOptions(threads=1, device="cpu")
RTOL, ATOL = 1e-4, 1e-5
BUSY_S = 1.0
MORE_THAN_ONE_CORE = 1.35
CYCLES = 8


class Opened(Protocol):
    """A loaded model, wherever it runs."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def memory_bytes(self) -> int:
        """What loading took."""

    def run(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Public answers for one batch, labels among them."""

    def cpu_s(self) -> float:
        """Processor seconds of the process that runs it."""

    def close(self) -> None:
        """Give it back."""


class _Here:
    """A model in this process, behind hosting as a model server holds it."""

    def __init__(self, package: Path, options: LoadOptions, environments: Path | None = None) -> None:
        del environments
        self._hosted = load_model(package, options=options)
        self.device = self._hosted.model.device
        self.memory_bytes = self._hosted.model.memory_bytes
        self.run = self._hosted.run
        self.close = self._hosted.model.close

    def cpu_s(self) -> float:
        return time.process_time()


class RuntimeConformance:
    """The promises of `modelyard.ports.runtime`."""

    library: ClassVar[str]
    """The module that the runtime imports only when it loads a model."""

    in_process: ClassVar[bool] = True
    """Whether it may be loaded in a process of ours; False for runtimes with a program of their own."""

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls) -> Path:
        """The directory of a package of this runtime."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def environments(cls) -> Path | None:
        """Where environments lie, for runtimes with a program of their own."""
        return None

    @pytest.fixture
    def opening(self, environments: Path | None) -> Callable[[Path, LoadOptions], Opened]:
        """Opens a package in this process, or in a worker of its own where it is a program of its own."""
        kind: Any = _Here if self.in_process else IsolatedModel
        return lambda package, options: kind(package, options, environments)

    @pytest.fixture
    def copy(self, package: Path, tmp_path: Path) -> Path:
        """A copy that a test may damage."""
        return Path(shutil.copytree(package, tmp_path / "package"))

    def rows(self, package: Path, count: int) -> dict[str, Array]:
        """`count` rows that the model can be asked: the golden request and made-up ones after it."""
        described = read_package(package)
        assert described.golden is not None, "the package must come with its golden answer"
        first, more = golden_inputs(described.golden), synthetic.arrays_for(described.contract)
        made = synthetic.as_sent(more, described.contract, limit=64)
        return {name: np.concatenate([first[name], *[made[name]] * (count // 32 + 1)])[:count] for name in first}

    def test_answers_have_the_names_datatypes_and_shapes_of_the_contract(
        self, package: Path, opening: Callable[[Path, LoadOptions], Opened]
    ) -> None:
        """Every output that is promised, and no other."""
        contract = read_package(package).contract
        with closing(opening(package, CPU)) as model:
            answers = model.run(self.rows(package, 2))
        assert set(answers) == {spec.name for spec in contract.outputs}
        for spec in contract.outputs:
            answer = answers[spec.name]
            assert FROM_NUMPY.get(answer.dtype, DataType.BYTES) is spec.datatype, spec.name
            assert answer.ndim == len(spec.shape), spec.name
            assert answer.shape[0] == 2, spec.name
            assert all(want in {VARIABLE, got} for want, got in zip(spec.shape, answer.shape, strict=True)), spec.name
            if spec.datatype is DataType.BYTES:
                assert all(isinstance(value, bytes) for value in answer.ravel()), spec.name

    def test_a_batch_answers_like_its_rows(self, package: Path, opening: Callable[[Path, LoadOptions], Opened]) -> None:
        """Rows of different callers travel together; nobody may notice."""
        assert read_package(package).contract.max_batch_size > 1, "the package must come with a proved batch"
        rows = self.rows(package, 8)
        with closing(opening(package, CPU)) as model:
            together = model.run(rows)
            alone = [model.run({name: array[at : at + 1] for name, array in rows.items()}) for at in range(8)]
        for name, answer in together.items():
            require_same(answer, np.concatenate([one[name] for one in alone]))

    def test_an_answer_is_not_changed_by_the_next_run(
        self, package: Path, opening: Callable[[Path, LoadOptions], Opened]
    ) -> None:
        """Answers are arrays of their own, not a view of a buffer that is used again."""
        rows = self.rows(package, 8)
        with closing(opening(package, CPU)) as model:
            first = model.run({name: array[:4] for name, array in rows.items()})
            kept = {name: array.copy() for name, array in first.items()}
            model.run({name: array[4:] for name, array in rows.items()})
        for name, answer in first.items():
            require_same(answer, kept[name])

    def test_another_golden_answer_is_refused(self, copy: Path, opening: Callable[[Path, LoadOptions], Opened]) -> None:
        """What does not answer as the audit recorded is not served."""
        package = read_package(copy)
        assert package.golden is not None
        opening(copy, CPU).close()
        write_package(copy, replace(package, golden=replace(package.golden, outputs=_altered(package))))
        with pytest.raises(ModelyardError, match="recorded"):
            opening(copy, CPU)

    def test_a_damaged_file_is_refused(self, copy: Path, opening: Callable[[Path, LoadOptions], Opened]) -> None:
        """One changed byte of the file that the runtime opens."""
        path = copy / read_package(copy).entry
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(ModelyardError, match="damaged"):
            opening(copy, CPU)

    def test_a_package_without_its_entry_is_refused(
        self, copy: Path, opening: Callable[[Path, LoadOptions], Opened]
    ) -> None:
        """With the reason, not with the library's own error."""
        (copy / read_package(copy).entry).unlink()
        with pytest.raises(ModelyardError, match="entry"):
            opening(copy, CPU)

    @pytest.mark.parametrize("device", ["tpu", "cuda:9"])
    def test_a_device_that_is_not_there_is_refused_by_name(
        self, package: Path, opening: Callable[[Path, LoadOptions], Opened], device: str
    ) -> None:
        """It never runs elsewhere instead."""
        with pytest.raises(ModelyardError, match=device):
            opening(package, LoadOptions(device=device))

    def test_the_device_is_shown(self, package: Path, opening: Callable[[Path, LoadOptions], Opened]) -> None:
        """By the name that it was asked by."""
        with closing(opening(package, CPU)) as model:
            assert model.device == "cpu"
            assert model.memory_bytes >= 0

    def test_one_thread_keeps_one_core_busy_at_most(
        self, package: Path, opening: Callable[[Path, LoadOptions], Opened]
    ) -> None:
        """Processor time never runs faster than the clock, however busy the machine is."""
        rows = self.rows(package, read_package(package).contract.max_batch_size)
        with closing(opening(package, CPU)) as model:
            model.run(rows)
            began, used = time.perf_counter(), model.cpu_s()
            while time.perf_counter() - began < BUSY_S:
                model.run(rows)
            used, took = model.cpu_s() - used, time.perf_counter() - began
        assert used <= took * MORE_THAN_ONE_CORE, f"{used:.2f} s of processor time in {took:.2f} s"

    def test_two_models_run_side_by_side(self, package: Path, opening: Callable[[Path, LoadOptions], Opened]) -> None:
        """Each is asked by one thread; neither sees the other's rows."""
        rows = self.rows(package, 16)
        halves = [{name: array[start::2] for name, array in rows.items()} for start in (0, 1)]
        with closing(opening(package, CPU)) as left, closing(opening(package, CPU)) as right:
            expected = [left.run(half) for half in halves]
            wrong: list[str] = []

            def ask(model: Opened, which: int) -> None:
                try:
                    for _ in range(20):
                        answers = model.run(halves[which])
                        for name, answer in answers.items():
                            require_same(answer, expected[which][name])
                except Exception as error:  # noqa: BLE001  (said by the test's own thread)
                    wrong.append(f"{type(error).__name__}: {error}")

            threads = [threading.Thread(target=ask, args=pair) for pair in ((left, 0), (right, 1))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        assert not wrong

    def test_close_gives_back_what_loading_took(
        self, package: Path, opening: Callable[[Path, LoadOptions], Opened]
    ) -> None:
        """Descriptors and threads do not pile up, and close may be called twice."""
        here = psutil.Process()

        def cycle() -> tuple[int, int]:
            model = opening(package, LoadOptions(threads=2, device="cpu"))
            model.run(self.rows(package, 2))
            model.close()
            model.close()
            del model
            gc.collect()
            return here.num_fds(), here.num_threads()

        cycle()
        fds, threads = cycle()
        for _ in range(CYCLES if self.in_process else 1):
            after = cycle()
        assert after[0] <= fds
        assert after[1] <= threads

    def test_a_worker_of_its_own_answers_the_same(self, package: Path) -> None:
        """Isolation changes where a model runs, not what it says."""
        if not self.in_process:
            pytest.skip("this runtime runs in a worker only: all of this suite has asked one")
        rows = self.rows(package, 8)
        with closing(_Here(package, CPU)) as here, closing(IsolatedModel(package, CPU)) as worker:
            expected, answers = here.run(rows), worker.run(rows)
            assert worker.device == here.device
        assert set(answers) == set(expected)
        for name, answer in answers.items():
            require_same(answer, expected[name])

    def test_a_stream_is_refused_or_yields(self, package: Path) -> None:
        """A runtime without streams says so."""
        if not self.in_process:
            pytest.skip("this runtime is a program of its own: streams are its worker's business")
        described = read_package(package)
        model = RUNTIMES.get(described.runtime)().load(package, described, CPU)
        try:
            with pytest.raises(NotSupported):
                model.stream(self.rows(package, 1))
        finally:
            model.close()

    def test_a_program_of_its_own_is_never_loaded_here(self, package: Path) -> None:
        """Such a runtime refuses to load in the asking process."""
        described = read_package(package)
        runtime = RUNTIMES.get(described.runtime)()
        assert isinstance(runtime, ProgramRuntime) is not self.in_process
        if not self.in_process:
            with pytest.raises(NotSupported, match="worker of its own"):
                runtime.load(package, described, CPU)

    def test_importing_the_runtime_does_not_import_its_library(self, package: Path) -> None:
        """What is not asked for costs neither time nor memory, and need not be installed."""
        name = RUNTIMES.get(read_package(package).runtime).__module__
        code = f"import sys, {name}; print({self.library!r} in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


@contextmanager
def closing(model: Opened) -> Iterator[Opened]:
    """The model, closed afterwards."""
    try:
        yield model
    finally:
        model.close()


def require_same(got: Array, want: Array) -> None:
    """Equal shapes, texts and whole numbers; numbers within what a golden answer allows."""
    assert got.shape == want.shape
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=RTOL, atol=ATOL)
    else:
        assert got.tolist() == want.tolist()


def _altered(package: ServingPackage) -> tuple[dict[str, Any], ...]:
    """The golden outputs with other numbers; where there are none, other texts."""
    assert package.golden is not None
    outputs = [json.loads(json.dumps(dict(item))) for item in package.golden.outputs]
    for item in outputs:
        item["data"] = [f"not {x}" if isinstance(x, str) else x + 7 for x in item["data"]]
    return tuple(outputs)


__all__ = ["Opened", "RuntimeConformance", "closing", "require_same"]
