"""The route of ONNX files, uploaded or built here: read the contract off the graph, rewrite only what must be.

A file that needs no rewriting is served byte for byte, with its external data beside it (mapped by the runtime, so that
models above 2 GB work).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, PathUnsafe, WeightsFormat, WeightsValues
from modelyard.domain.tensors import VARIABLE, TensorSpec
from modelyard.inspection.children import graph_edit
from modelyard.inspection.children.model_contract import Knowledge, agree, finish
from modelyard.inspection.children.packaging import ONNX_FILE, Work, copy_file, timed

_TABLE: Final = 2
_CLASS_OUTPUTS: Final = ("label", "output_label", "class", "predicted_label")
_SCORE_OUTPUTS: Final = ("probabilities", "output_probability", "probs", "scores", "logits")
_OPSETS: Final = ("", "ai.onnx")


def convert_onnx(work: Work) -> None:
    """Package an uploaded ONNX file."""
    with timed(work.channel, "onnx.graph") as found:
        path = work.weights_path
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:
            raise WeightsFormat("the ONNX file cannot be read", hint="export it again") from error
        _require_supported(model)
        external = sorted(set(_external_files(model, work.directory)))
        _require_numbers(model)
        changed = _drop_initializer_inputs(model)
        zipped = graph_edit.drop_zipmaps(model)
        classes = next((tuple(str(item) for item in values) for _, values in zipped if values), ())
        found.summary = f"{len(model.graph.node)} nodes, opset {_opset(model)}, IR version {model.ir_version}"
        found.evidence = {"external_files": external, "zipmaps_taken_out": len(zipped)}
    contract, relabelled = _contract_of(work, model, Knowledge(labels=classes))
    if changed or zipped or relabelled:
        onnx.save(model, work.out / ONNX_FILE)
    else:
        copy_file(path, work.out / ONNX_FILE)
    for name in external:
        copy_file(work.directory / name, work.out / name)
    finish(work, work.package(contract))


def convert_built(work: Work, model: onnx.ModelProto, known: Knowledge) -> None:
    """Package a graph that a builder made."""
    _drop_initializer_inputs(model)
    graph_edit.drop_zipmaps(model)
    contract, _ = _contract_of(work, model, known)
    onnx.save(model, work.out / ONNX_FILE)
    finish(work, work.package(contract))


def _require_supported(model: onnx.ModelProto) -> None:
    newest, newest_ir = onnx.defs.onnx_opset_version(), onnx.IR_VERSION
    if _opset(model) > newest or model.ir_version > newest_ir:
        raise WeightsFormat(
            f"the file uses opset {_opset(model)} (IR version {model.ir_version}); "
            f"this platform knows opsets to {newest} (IR version {newest_ir})",
            hint=f"export it with opset_version={min(newest, 21)}, or use onnx.version_converter.convert_version",
        )


def _opset(model: onnx.ModelProto) -> int:
    return max((int(item.version) for item in model.opset_import if item.domain in _OPSETS), default=1)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for nested in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(nested)


def _external_files(model: onnx.ModelProto, directory: Path) -> Iterator[str]:
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        name = next((item.value for item in tensor.external_data if item.key == "location"), "")
        path = directory / name
        if not name or Path(name).name != name or name in {".", ".."} or path.is_symlink():
            raise PathUnsafe(f"external data lies at {quote(name)}", hint="put it beside the model, under a plain name")
        if not path.is_file():
            raise BundleMismatch(f"the external data file {quote(name)} is missing", hint="upload it with the model")
        yield name


def _require_numbers(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type not in {
            TensorProto.FLOAT,
            TensorProto.DOUBLE,
        }:
            continue
        if np.isnan(numpy_helper.to_array(tensor)).any():
            raise WeightsValues(
                f"the weight {quote(tensor.name)} holds NaN", hint="train again; a model with NaN weights answers NaN"
            )


def _drop_initializer_inputs(model: onnx.ModelProto) -> bool:
    """Inputs that have a value already are no inputs (IR version 3 listed them so)."""
    fixed = {item.name for item in model.graph.initializer}
    kept = [item for item in model.graph.input if item.name not in fixed]
    if len(kept) == len(model.graph.input):
        return False
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return True


def _contract_of(work: Work, model: onnx.ModelProto, known: Knowledge) -> tuple[ModelContract, bool]:
    """The contract, and whether the graph was changed for it."""
    with timed(work.channel, "model.contract") as found:
        inputs = tuple(_spec(item, allows_nan=known.allows_nan) for item in model.graph.input)
        if not inputs:
            raise WeightsFormat("the graph has no inputs", hint="export the model with an example input")
        outputs = tuple(_spec(item) for item in model.graph.output)
        agreed = agree(work, inputs, outputs, known, found)
        if agreed.taken is not None:
            graph_edit.drop_output(model, agreed.taken)
        return agreed.contract, agreed.taken is not None


def _spec(value: onnx.ValueInfoProto, *, allows_nan: bool = False) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise WeightsFormat(
            f"{quote(value.name)} is not a tensor but a sequence or map", hint="export it without ZipMap (zipmap=False)"
        )
    kind = graph_edit.ONNX_TO_V2.get(value.type.tensor_type.elem_type)
    if kind is None:
        raise WeightsFormat(f"{quote(value.name)} has an element type that requests cannot carry", hint="use float32")
    shape = graph_edit.shape_of(value)
    return TensorSpec(
        name=value.name,
        datatype=kind,
        shape=(VARIABLE,) if shape is None else shape,
        allows_nan=allows_nan and kind.is_float,
    )
