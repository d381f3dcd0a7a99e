"""From a package directory to a model that has proved itself. Blocking: to be called beside the event loop."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import ServingPackage
from modelyard.domain.errors.inference import NotReady
from modelyard.foundation.documents import read_package
from modelyard.inference.hosting.golden import check_golden, golden_inputs, neutral_inputs
from modelyard.inference.hosting.labelling import Labeller
from modelyard.inference.hosting.runtimes import RUNTIMES
from modelyard.ports.runtime import LoadedModel, LoadOptions

Array = np.ndarray[Any, Any]
_WARM_RUNS: Final = 3
_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class HostedModel:
    """A model that is loaded, warm and answers its golden request. `run_s` is its time for one row, measured."""

    package: ServingPackage
    model: LoadedModel
    labeller: Labeller | None
    load_s: float
    run_s: float

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The public outputs for one batch: those of the runtime, and labels where the contract has them."""
        outputs = self.model.run(batch)
        return outputs if self.labeller is None else self.labeller.add(outputs)


def load_model(directory: Path, *, options: LoadOptions, digest: str | None = None) -> HostedModel:
    """Load the package in `directory`, warm it up, and check it.

    `digest`, when given, is that of the upload the caller expects.

    Raises:
        NotReady: the package is not the expected one, a file is damaged, or the golden answer differs.
        ModelyardError: what the runtime says.
    """
    began = time.perf_counter()
    package = read_package(directory)
    if digest is not None and package.digest != digest:
        raise NotReady("the package on disk is not of the digest that the table names")
    require_whole(directory, package)
    model = RUNTIMES.get(package.runtime)().load(directory, package, options)
    labeller = Labeller(package.contract) if package.contract.labelling is not None else None
    hosted = HostedModel(package=package, model=model, labeller=labeller, load_s=0.0, run_s=0.0)
    try:
        hosted.run_s = _warm_up(hosted)
    except BaseException:
        model.close()
        raise
    hosted.load_s = time.perf_counter() - began
    return hosted


def _warm_up(hosted: HostedModel) -> float:
    package = hosted.package
    if package.golden is not None:
        check_golden(hosted.run(golden_inputs(package.golden)), package.golden.outputs)
    inputs = neutral_inputs(package.contract) if package.golden is None else golden_inputs(package.golden)
    times = []
    for _ in range(_WARM_RUNS):
        began = time.perf_counter()
        hosted.run(inputs)
        times.append(time.perf_counter() - began)
    return min(times)


def require_whole(directory: Path, package: ServingPackage) -> None:
    """Every file that is there has the digest that intake wrote down, or `NotReady`."""
    for name, expected in package.files.items():
        path = directory / name
        if not path.is_file():
            continue
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != expected.removeprefix("sha256:"):
            raise NotReady(f"the file {name} of the package is damaged", hint="upload the model again")
