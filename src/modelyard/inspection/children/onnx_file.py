"""The route of ONNX files, uploaded or built here: read the contract off the graph, rewrite only what must be.

A file that needs no rewriting is served byte for byte, with its external data beside it (mapped by the runtime, so that
models above 2 GB work).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modelyard.domain.contract import Labelling, LabelSource, ModelContract, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, PathUnsafe, WeightsFormat, WeightsValues
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec
from modelyard.inspection.children import graph_edit, synthetic
from modelyard.inspection.children.packaging import ONNX_FILE, Work, copy_file, timed

_TABLE: Final = 2
_CLASS_OUTPUTS: Final = ("label", "output_label", "class", "predicted_label")
_SCORE_OUTPUTS: Final = ("probabilities", "output_probability", "probs", "scores", "logits")
_OPSETS: Final = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What is known of a graph beside what it says itself (from a builder, a signature or the configuration)."""

    task: Task | None = None
    labels: tuple[str, ...] = ()
    labelling: Labelling | None = None
    allows_nan: bool = False


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
    finish_graph(work, contract)


def convert_built(work: Work, model: onnx.ModelProto, known: Knowledge) -> None:
    """Package a graph that a builder made."""
    _drop_initializer_inputs(model)
    graph_edit.drop_zipmaps(model)
    contract, _ = _contract_of(work, model, known)
    onnx.save(model, work.out / ONNX_FILE)
    finish_graph(work, contract)


def finish_graph(work: Work, contract: ModelContract) -> None:
    """Leave rows for the probe and say that the package is whole."""
    arrays = work.read_sample(contract.inputs)
    source = "sample"
    if arrays is None or not _fits(arrays, contract):
        arrays, source = synthetic.arrays_for(contract), "generated"
    arrays = synthetic.as_sent(arrays, contract, limit=64)
    work.write_rows(arrays, contract.inputs, source=source)
    work.finish(work.package(contract))


def _fits(arrays: Mapping[str, np.ndarray[Any, Any]], contract: ModelContract) -> bool:
    return all(
        arrays[item.name].ndim == len(item.shape)
        and all(want in {VARIABLE, have} for want, have in zip(item.shape, arrays[item.name].shape, strict=True))
        for item in contract.inputs
    )


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
        _require_declared(work, inputs, "inputs")
        _require_declared(work, outputs, "outputs")
        named = work.labels or known.labels
        labels = named or _positions(_task(work, named, known), outputs)
        labelling = known.labelling or (_labelling(work, outputs, labels) if labels else None)
        changed = False
        if labelling is not None:
            _require_label_count(work, outputs, labelling, labels)
            changed, outputs = _give_way(model, outputs, labelling)
            label = TensorSpec(name=labelling.output, datatype=DataType.BYTES, shape=(VARIABLE,))
            outputs = (label, *outputs) if labels else outputs
        contract = ModelContract(
            inputs=inputs,
            outputs=outputs,
            task=_task(work, named, known),
            labels=labels,
            labelling=labelling if labels else None,
            max_batch_size=_batching(inputs, outputs),
        )
        found.summary = ", ".join(f"{item.name} {item.datatype.value} {list(item.shape)}" for item in inputs[:4])
        if contract.task is Task.CLASSIFICATION and not named:
            found.outcome, found.hint = (
                Outcome.WARNING,
                "add labels.json so that answers carry names instead of positions",
            )
        return contract, changed


def _positions(task: Task, outputs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """The classes of a classifier whose names nobody knows: their positions, so that an answer still says which."""
    scores = [item for item in outputs if item.datatype.is_float and len(item.shape) == _TABLE]
    if task is not Task.CLASSIFICATION or len(scores) != 1 or scores[0].shape[1] < _TABLE:
        return ()
    return tuple(str(index) for index in range(scores[0].shape[1]))


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


def _require_declared(work: Work, specs: tuple[TensorSpec, ...], which: str) -> None:
    declared = work.config.get(which) or (
        [work.config[which[:-1]]] if isinstance(work.config.get(which[:-1]), Mapping) else []
    )
    by_name = {item.name: item for item in specs}
    for item in declared if isinstance(declared, list) else []:
        if not isinstance(item, Mapping) or "name" not in item:
            continue
        spec = by_name.get(str(item["name"]))
        if spec is None:
            raise BundleMismatch(
                f"the configuration declares the {which[:-1]} {quote(item['name'])}, which the graph does not have",
                hint=f"the graph has {', '.join(quote(name) for name in list(by_name)[:8])}",
            )
        kind, shape = item.get("datatype"), item.get("shape")
        if kind not in {None, spec.datatype.value} or not _same_shape(shape, spec.shape):
            raise BundleMismatch(
                f"the configuration says {quote(spec.name)} is {quote(kind)} {quote(shape)}, "
                f"the graph says {spec.datatype.value} {list(spec.shape)}",
                hint="leave inputs and outputs out of the configuration: they are read from the graph",
            )


def _same_shape(declared: object, shape: tuple[int, ...]) -> bool:
    if not isinstance(declared, list):
        return True
    return len(declared) == len(shape) and all(
        VARIABLE in {want, have} or want == have for want, have in zip(declared, shape, strict=True)
    )


def _labelling(work: Work, outputs: tuple[TensorSpec, ...], labels: tuple[str, ...]) -> Labelling | None:
    """Which output decides: scores of one value a class, else whole numbers that are positions."""
    scores = [item for item in outputs if item.datatype.is_float and len(item.shape) == _TABLE]
    named = [item for item in scores if item.name in _SCORE_OUTPUTS]
    fitting = [item for item in scores if item.shape[1] in {len(labels), VARIABLE}]
    for candidates in ([item for item in named if item in fitting], fitting):
        if candidates:
            return Labelling(source=candidates[0].name, rule=LabelSource.ARGMAX)
    positions = [item for item in outputs if item.datatype in {DataType.INT64, DataType.INT32} and len(item.shape) == 1]
    if positions:
        return Labelling(source=positions[0].name, rule=LabelSource.INDEX)
    if scores and work.labels:
        work.require_labels(scores[0].shape[1])
    return None


def _require_label_count(
    work: Work, outputs: tuple[TensorSpec, ...], labelling: Labelling, labels: tuple[str, ...]
) -> None:
    source = next((item for item in outputs if item.name == labelling.source), None)
    if source and labels and labelling.rule is LabelSource.ARGMAX and source.shape[-1] not in {VARIABLE, len(labels)}:
        work.require_labels(source.shape[-1])


def _give_way(
    model: onnx.ModelProto, outputs: tuple[TensorSpec, ...], labelling: Labelling
) -> tuple[bool, tuple[TensorSpec, ...]]:
    """Drop a graph output that has the name of the label output, unless the label is made from it."""
    taken = [item for item in outputs if item.name == labelling.output]
    if not taken:
        return False, outputs
    if labelling.source == labelling.output:
        return False, tuple(item for item in outputs if item.name != labelling.output)
    graph_edit.drop_output(model, labelling.output)
    return True, tuple(item for item in outputs if item.name != labelling.output)


def _task(work: Work, labels: tuple[str, ...], known: Knowledge) -> Task:
    declared = work.config.get("task")
    if isinstance(declared, str) and declared in {item.value for item in Task}:
        return Task(declared)
    if known.task is not None:
        return known.task
    return Task.CLASSIFICATION if labels or work.config.get("num_labels") else Task.OTHER


def _batching(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> int:
    """1 where rows can stand on a first axis (the probe proves more), 0 where there is no such axis."""
    firsts = {item.shape[0] if item.shape else 0 for item in (*inputs, *outputs)}
    return 1 if firsts <= {VARIABLE} or firsts == {1} else 0
