"""Bare weights and a list of layers become a graph (docs/reference/architecture-layers.md).

Every shape is followed from the declared input to the output, so that a wrong tensor is named with the layer that
wanted it, before a runtime sees anything. A tensor that no layer uses is refused too: a forgotten layer would answer
wrongly in silence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from modelyard.domain.contract import Labelling, LabelSource, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid
from modelyard.domain.tensors import VARIABLE, DataType
from modelyard.inspection.children.builders import Built
from modelyard.inspection.children.builders.dense_layers import DENSE_LAYERS, EXACT_IN_FLOAT64
from modelyard.inspection.children.builders.graph import Graph
from modelyard.inspection.children.builders.layers import DEPTH_LIMIT, LAYER_LIMIT, Build, Flow, Layer, Place
from modelyard.inspection.children.builders.safetensors_file import SafetensorsFile
from modelyard.inspection.children.builders.spatial_layers import SPATIAL_LAYERS
from modelyard.inspection.children.builders.tensor_config import (
    Declared,
    declared_task,
    declared_tensor,
    require_class_count,
    require_fit,
)

_FLOATS: Final = frozenset({DataType.FP16, DataType.FP32, DataType.FP64})
_INDICES: Final = frozenset({DataType.INT64, DataType.INT32})
_INPUTS: Final = _FLOATS | _INDICES | {DataType.UINT8, DataType.INT8, DataType.INT16}
_HINT: Final = 'such as "architecture": [{"linear": {"weight": "w", "bias": "b"}}, {"softmax": {}}]'


def build(directory: Path, weights: str, config: Mapping[str, object]) -> Built:
    """The graph of `config["architecture"]` over the tensors of `directory/weights`.

    Arithmetic is float32; float64 when every weight is F64 and every layer has a float64 kernel.

    Raises:
        ConfigInvalid: a layer or option that does not exist, or no input declared.
        BundleMismatch: tensors missing, unused or of the wrong shape.
        WeightsFormat: the file is not safetensors.
        WeightsValues: NaN or infinity in a tensor.
    """
    layers = config.get("architecture")
    if not isinstance(layers, list) or not layers:
        raise ConfigInvalid("bare weights need a list of layers under architecture", hint=_HINT)
    tensors = SafetensorsFile(directory / weights)
    compute, notes = _compute(tensors, layers)
    declared = declared_tensor(config, "input") or _inferred_input(tensors, layers)
    work = Build(graph=Graph("architecture"), tensors=tensors, compute=compute)
    flow = run_layers(work, layers, _enter(work, declared), path="architecture", depth=0)
    unused = [name for name in tensors if name not in work.used and not name.endswith("num_batches_tracked")]
    if unused:
        names = ", ".join(quote(name) for name in unused[:8])
        raise BundleMismatch(
            f"no layer uses the tensors {names}",
            hint='add the layers they belong to, or {"ignore": {"tensors": [...]}} if they are meant to be left out',
        )
    return _finish(work, flow, config, notes)


def run_layers(build_: Build, layers: list[object], flow: Flow, *, path: str, depth: int) -> Flow:
    """One layer after the other; `path` and `depth` are for messages and the limit on nesting."""
    for index, entry in enumerate(layers):
        here = f"{path}[{index}]"
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ConfigInvalid(f"{here}: a layer is an object with one key", hint=_HINT)
        kind, options = next(iter(entry.items()))
        layer = LAYERS.get(kind)
        if layer is None:
            raise ConfigInvalid(f"{here}: there is no layer {quote(kind)}", hint=f"layers: {', '.join(LAYERS)}")
        if not isinstance(options, Mapping):
            raise ConfigInvalid(f"{here}.{kind}: options are an object, {{}} when there are none")
        build_.layers += 1
        if build_.layers > LAYER_LIMIT:
            raise ConfigInvalid(f"more than {LAYER_LIMIT} layers")
        place = Place(build_, f"{here}.{kind}", options, depth)
        if flow.is_index and kind not in {"embedding", "dropout", "ignore"}:
            raise place.mismatch("whole numbers come in", hint="begin with an embedding, or declare the input FP32")
        flow = layer(place, flow)
        place.finish()
    return flow


def residual(place: Place, flow: Flow) -> Flow:
    """Adds the input back: layers(x) + x, or + shortcut(x) where a list `shortcut` is given; shapes must agree."""
    if place.depth >= DEPTH_LIMIT:
        raise place.wrong(f"layers are nested deeper than {DEPTH_LIMIT}")
    ends = [flow, flow]
    for position, key in enumerate(("layers", "shortcut")):
        inner = place.option(key)
        if inner is None and key == "shortcut":
            continue
        if not isinstance(inner, list) or not inner:
            raise place.wrong(f"{key} must be a list of layers")
        ends[position] = run_layers(place.build, inner, flow, path=f"{place.path}.{key}", depth=place.depth + 1)
    if ends[0].shape != ends[1].shape:
        raise place.mismatch(f"shapes {list(ends[0].shape)} and {list(ends[1].shape)} cannot be added")
    return Flow(value=place.graph.add("Add", ends[0].value, ends[1].value), shape=ends[0].shape)


def ignore(place: Place, flow: Flow) -> Flow:
    """No layer: names tensors of the file that are meant to stay unused."""
    names = place.option("tensors")
    if not isinstance(names, list):
        raise place.wrong("tensors must be a list of names")
    for name in names:
        place.shape_of("tensors", name)
        place.build.used.add(str(name))
    return flow


LAYERS: Final[Mapping[str, Layer]] = {**DENSE_LAYERS, **SPATIAL_LAYERS, "residual": residual, "ignore": ignore}


def _compute(tensors: SafetensorsFile, layers: list[object]) -> tuple[DataType, tuple[str, ...]]:
    """The type of the arithmetic, and a note where it is narrower than the weights."""
    dtypes = {tensors.dtype(name) for name in tensors} - {"I64"}
    if "F64" not in dtypes:
        return DataType.FP32, ()
    kinds = {str(key) for entry in layers if isinstance(entry, Mapping) for key in entry}
    if dtypes == {"F64"} and kinds <= EXACT_IN_FLOAT64 - {"residual"}:
        return DataType.FP64, ()
    return DataType.FP32, ("64-bit weights are rounded to 32 bits, since not every layer computes in 64 bits",)


def _inferred_input(tensors: SafetensorsFile, layers: list[object]) -> Declared:
    """The input of a list that begins with a linear layer; others must be declared."""
    first = layers[0]
    options = first.get("linear") if isinstance(first, Mapping) else None
    name = options.get("weight") if isinstance(options, Mapping) else None
    if isinstance(options, Mapping) and isinstance(name, str) and len(tensors.get(name, ())) == 2:  # noqa: PLR2004
        axis = 0 if options.get("transposed") is True else 1
        return Declared(name="x", datatype=DataType.FP32, shape=(VARIABLE, tensors[name][axis]))
    raise ConfigInvalid(
        "the input is not declared", hint='such as "input": {"name": "x", "datatype": "FP32", "shape": [-1, 3]}'
    )


def _enter(work: Build, declared: Declared) -> Flow:
    """The declared input as a flow in the type of the arithmetic."""
    datatype = declared.datatype or DataType.FP32
    if declared.shape is None:
        raise ConfigInvalid("the input needs a shape", hint='such as "shape": [-1, 3]')
    if datatype not in _INPUTS:
        raise ConfigInvalid(f"an input of {datatype} cannot be given to layers", hint="use FP32, or INT64 for indices")
    value = work.graph.input(declared.name, datatype, declared.shape)
    if datatype in _INDICES:
        return Flow(value=value, shape=declared.shape, is_index=True)
    if datatype is not work.compute:
        value = work.graph.cast(value, work.compute)
    return Flow(value=value, shape=declared.shape)


def _finish(work: Build, flow: Flow, config: Mapping[str, object], notes: tuple[str, ...]) -> Built:
    """Publish the output and say what kind of model it is."""
    declared = declared_tensor(config, "output") or Declared(name="y")
    datatype = declared.datatype or work.compute
    if datatype not in _FLOATS:
        raise ConfigInvalid(f"output: the layers give floats, not {datatype}", hint='use "datatype": "FP32"')
    require_fit("the output", declared.shape, flow.shape)
    source = declared_tensor(config, "input")
    if source is not None and source.name == declared.name:
        raise ConfigInvalid(f"input and output are both called {quote(declared.name)}")
    value = flow.value if datatype is work.compute else work.graph.cast(flow.value, datatype)
    work.graph.output(value, declared.name, datatype, flow.shape)
    task = declared_task(config) or Task.OTHER
    classes = flow.shape[-1] if len(flow.shape) == 2 else VARIABLE  # noqa: PLR2004 (batch and classes)
    labelling = None
    if task is Task.CLASSIFICATION and classes > 1:
        require_class_count(config, classes)
        labelling = Labelling(source=declared.name, rule=LabelSource.ARGMAX)
    return Built(model=work.graph.model({}), task=task, notes=notes, labelling=labelling)
