"""The program `convert`: one upload in, one package out (`python -I -m modelyard.inspection.children.convert`)."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Final

from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed
from modelyard.domain.tensors import DataType
from modelyard.inspection.children.program import Channel, Program, Request

if TYPE_CHECKING:
    from modelyard.inspection.children.packaging import Work

_BUILDERS: Final = {
    ModelFormat.SAFETENSORS: "architecture",
    ModelFormat.XGBOOST: "xgboost_trees",
    ModelFormat.LIGHTGBM: "lightgbm_trees",
}
_HERE: Final = "modelyard.inspection.children"
_LIBRARIES: Final = {
    ModelFormat.SKLEARN: ("sklearn.pipeline", "skl2onnx", f"{_HERE}.estimators", f"{_HERE}.unpickle"),
    ModelFormat.SKOPS: ("sklearn.pipeline", "skl2onnx", "skops.io", f"{_HERE}.estimators", f"{_HERE}.skops_file"),
    ModelFormat.ONNX: (f"{_HERE}.onnx_file",),
    ModelFormat.MLFLOW: (f"{_HERE}.mlflow_model", f"{_HERE}.onnx_file"),
    ModelFormat.PYTHON: (f"{_HERE}.own_code",),
    ModelFormat.OPENVINO: (f"{_HERE}.openvino_file",),
    ModelFormat.TORCH_EXPORT: (f"{_HERE}.torch_export_file",),
}


def preload(kind: str) -> None:
    """Import what a format needs, before the walls stand and, when started early, before there is a request."""
    if not kind:
        return
    for name in _LIBRARIES.get(ModelFormat(kind), (f"{_HERE}.onnx_file",)):
        import_module(name)


def work(request: Request, channel: Channel) -> None:
    """Convert by the format that the parent told from the content."""
    from modelyard.inspection.children.packaging import Work

    _convert(Work.of(request, channel), {})


def _convert(task: "Work", columns: dict[str, DataType]) -> None:
    match task.format:
        case ModelFormat.ONNX:
            from modelyard.inspection.children.onnx_file import convert_onnx

            convert_onnx(task)
        case ModelFormat.SKLEARN | ModelFormat.SKOPS:
            _convert_estimator(task, columns)
        case ModelFormat.SAFETENSORS | ModelFormat.XGBOOST | ModelFormat.LIGHTGBM:
            _convert_built(task)
        case ModelFormat.PYTHON:
            from modelyard.inspection.children.own_code import convert_code

            convert_code(task)
        case ModelFormat.OPENVINO:
            from modelyard.inspection.children.openvino_file import convert_openvino

            convert_openvino(task)
        case ModelFormat.TORCH_EXPORT:
            from modelyard.inspection.children.torch_export_file import convert_torch_export

            convert_torch_export(task)
        case ModelFormat.MLFLOW:
            from modelyard.inspection.children.mlflow_model import read_mlflow

            found = read_mlflow(task.directory, task.config.get("mlflow"))
            _convert(replace(task, format=found.format, weights=found.weights), dict(found.columns))
        case _:
            raise TypeNotAllowed(
                f"{quote(task.format.value)} cannot be served yet",
                hint="export the model as ONNX, or bring it as predict.py with a requirements.lock",
            )


def _convert_estimator(task: "Work", columns: dict[str, DataType]) -> None:
    from modelyard.inspection.children.estimators import convert_estimator
    from modelyard.inspection.children.packaging import timed

    with timed(task.channel, "model.load") as found:
        if task.format is ModelFormat.SKOPS:
            from modelyard.inspection.children.skops_file import read_skops

            read = read_skops(task.weights_path)
        else:
            from modelyard.inspection.children.unpickle import read_estimator

            read = read_estimator(task.weights_path)
        found.summary = f"a {type(read.model).__name__}, read by a reader that knows one table of types"
    convert_estimator(task, read, types={**_declared_columns(task.config), **columns})


def _declared_columns(config: Mapping[str, object]) -> dict[str, DataType]:
    """Datatypes of named inputs that the configuration, or an MLflow signature in its terms, declares."""
    signature = config.get("signature")
    declared = [config.get("inputs"), signature.get("inputs") if isinstance(signature, Mapping) else None]
    kinds = {kind.value: kind for kind in DataType}
    return {
        str(item["name"]): kinds[item["datatype"]]
        for entries in declared
        if isinstance(entries, list)
        for item in entries
        if isinstance(item, Mapping) and "name" in item and item.get("datatype") in kinds
    }


def _convert_built(task: "Work") -> None:
    from modelyard.inspection.children.model_contract import Knowledge
    from modelyard.inspection.children.onnx_file import convert_built
    from modelyard.inspection.children.packaging import timed

    with timed(task.channel, "model.build") as found:
        builder = import_module(f"{_HERE}.builders.{_BUILDERS[task.format]}")
        built = builder.build(task.directory, task.weights, task.config)
        found.summary = f"a graph of {len(built.model.graph.node)} nodes was built"
        found.evidence = {"notes": list(built.notes)}
    known = Knowledge(task=built.task, labels=built.labels, labelling=built.labelling, allows_nan=built.allows_nan)
    convert_built(task, built.model, known)


PROGRAM: Final = Program("convert", preload, work)

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:]))
