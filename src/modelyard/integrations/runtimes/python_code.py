"""Serve own code (`predict.py` and `requirements.lock`) with the interpreter and the packages of its own environment.

The code never enters a process of ours: this runtime names the program that runs in the worker's place. That program is
`own_code_shim.py`, which is started by path and needs nothing of Modelyard but the file of its frames.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from modelyard.domain.contract import Golden, ModelContract, ServingPackage
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.documents import to_plain
from modelyard.foundation.environments import LOCK_FILE, Environments, environment_beside
from modelyard.ports.runtime import LoadOptions, Program

SHIM: Final = Path(__file__).with_name("own_code_shim.py")
FRAMES: Final = Path(__file__).with_name("own_code_frames.py")


class PythonCode:
    """The runtime `python_code`."""

    name = "python_code"

    def load(self, directory: Path, package: ServingPackage, options: LoadOptions) -> NoReturn:
        """Own code is not loaded by a process of ours."""
        del directory, options
        raise NotSupported(
            f"{package.name} is own code, which runs in a worker of its own", hint="deploy it with isolation process"
        )

    def program(self, directory: Path, package: ServingPackage, environments: Path) -> Program:
        """The shim over the package's built environment; `NotFound` when that is not built."""
        environment = environment_beside(package) or Environments(environments).find(package.files[LOCK_FILE])
        contract, label = package.contract, package.contract.labelling
        settings = {
            "package": str(directory),
            "digest": package.digest,
            "environment": str(Path(environment.site).parent),
            "site": environment.site,
            "inputs": [_spec(item) for item in contract.inputs],
            "outputs": [_spec(item) for item in contract.outputs if label is None or item.name != label.output],
            "labelling": None if label is None else {**to_plain(label), "labels": list(contract.labels)},
            "inputs_as": package.options.get("inputs_as", "arrays"),
            "example": _example(contract, package.golden),
            "example_is_given": package.golden is not None,
            "golden": [] if package.golden is None else [to_plain(tensor) for tensor in package.golden.outputs],
        }
        return Program(
            command=(environment.python, "-I", "-S", "-B", str(SHIM)),
            settings=settings,
            read=(SHIM, FRAMES, Path(environment.site).parent, Path(environment.python)),
        )


def _spec(spec: TensorSpec) -> Mapping[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _example(contract: ModelContract, golden: Golden | None) -> list[Mapping[str, Any]]:
    """Tensors of one request: the bundle's own, else a row of halves, ones and texts."""
    if golden is not None:
        return [to_plain(tensor) for tensor in golden.request["inputs"]]
    return [_made_up(spec) for spec in contract.inputs]


def _made_up(spec: TensorSpec) -> Mapping[str, Any]:
    shape = [1 if size < 0 else size for size in spec.shape]
    first = spec.categories[0] if spec.categories else None
    value: object
    if spec.datatype is DataType.BYTES:
        value = first or "text"
    elif spec.datatype is DataType.BOOL:
        value = False
    elif spec.datatype.is_float:
        value = 0.5 if first is None else float(first)
    else:
        value = 1 if first is None else int(first)
    count = 1
    for size in shape:
        count *= size
    return {**_spec(spec), "shape": shape, "data": [value] * count}
