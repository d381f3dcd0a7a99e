"""Small rewrites of ONNX graphs: answers become tensors, class values become class positions, columns become one input.

Nothing here changes a number that a model computes; each rewrite adds or removes nodes at the graph's border.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelyard.domain.tensors import VARIABLE, DataType

ML_DOMAIN: Final = "ai.onnx.ml"
_ML_VERSION: Final = 3
ONNX_TO_V2: Final[dict[int, DataType]] = {
    TensorProto.BOOL: DataType.BOOL,
    TensorProto.UINT8: DataType.UINT8,
    TensorProto.UINT16: DataType.UINT16,
    TensorProto.UINT32: DataType.UINT32,
    TensorProto.UINT64: DataType.UINT64,
    TensorProto.INT8: DataType.INT8,
    TensorProto.INT16: DataType.INT16,
    TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64,
    TensorProto.FLOAT16: DataType.FP16,
    TensorProto.FLOAT: DataType.FP32,
    TensorProto.DOUBLE: DataType.FP64,
    TensorProto.STRING: DataType.BYTES,
}
V2_TO_ONNX: Final[dict[DataType, int]] = {kind: number for number, kind in ONNX_TO_V2.items()}

_STEPS_OF_ONE: Final = 1 << 20
"""Steps in which two probabilities are told apart."""


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The shape of a tensor value, -1 where it is variable or symbolic; None when not even its rank is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value > 0 else VARIABLE
        for dimension in tensor.shape.dim
    )


def drop_zipmaps(model: onnx.ModelProto) -> list[tuple[str, list[Any]]]:
    """Take ZipMap nodes out: the graph then gives the tensor that fed them. Pairs of new output and class values."""
    graph = model.graph
    dropped = []
    for node in [node for node in graph.node if node.op_type == "ZipMap" and node.domain == ML_DOMAIN]:
        classes: list[Any] = []
        for attribute in node.attribute:
            if attribute.name == "classlabels_strings":
                classes = [item.decode("utf-8", "replace") for item in attribute.strings]
            elif attribute.name == "classlabels_int64s":
                classes = list(attribute.ints)
        for output in graph.output:
            if output.name == node.output[0]:
                name = PROBABILITIES if _is_free(graph, PROBABILITIES) else f"{node.input[0]}_tensor"
                graph.node.append(helper.make_node("Identity", [node.input[0]], [name]))
                kind = _kind_before(model, node.input[0])
                output.CopyFrom(helper.make_tensor_value_info(name, kind, [None, len(classes) or None]))
                dropped.append((name, classes))
        graph.node.remove(node)
    return dropped


PROBABILITIES: Final = "probabilities"


def _is_free(graph: onnx.GraphProto, name: str) -> bool:
    taken = {item for node in graph.node for item in (*node.input, *node.output)}
    return name not in taken | {item.name for item in graph.input} | {item.name for item in graph.initializer}


def _kind_before(model: onnx.ModelProto, name: str) -> int:
    for node in model.graph.node:
        if name in node.output and node.op_type == "Cast":
            return next((item.i for item in node.attribute if item.name == "to"), TensorProto.FLOAT)
    return TensorProto.FLOAT


def rename_output(model: onnx.ModelProto, old: str, new: str, *, shape: Sequence[int | None], kind: int) -> None:
    """Give an output the contract's name, shape and element type (the type is stated, not converted)."""
    value = helper.make_tensor_value_info(new, kind, list(shape))
    if old != new:
        _append(model, "Identity", [old], new)
    _replace_output(model, old, value)


def flatten_output(model: onnx.ModelProto, old: str, new: str, *, kind: int) -> None:
    """[n, 1] becomes [n]."""
    old = _out_of_the_way(model, old, new)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{new}_shape"))
    _append(model, "Reshape", [old, f"{new}_shape"], new)
    _replace_output(model, old, helper.make_tensor_value_info(new, kind, [None]))


def cast_output(model: onnx.ModelProto, old: str, new: str, *, kind: int) -> None:
    """Convert an output of one value a row to another element type."""
    old = _out_of_the_way(model, old, new)
    model.graph.node.append(helper.make_node("Cast", [old], [f"{new}_cast"], to=kind))
    flatten = f"{new}_cast"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{new}_shape"))
    _append(model, "Reshape", [flatten, f"{new}_shape"], new)
    _replace_output(model, old, helper.make_tensor_value_info(new, kind, [None]))


def classes_to_positions(model: onnx.ModelProto, old: str, new: str, classes: Sequence[Any]) -> None:
    """Class values (text or whole numbers) become their positions: what `LabelSource.INDEX` wants."""
    positions = list(range(len(classes)))
    if all(isinstance(value, str) for value in classes):
        found = f"{new}_found"
        _encode(model, old, found, keys_strings=list(classes), values_int64s=positions)
    else:
        found = f"{new}_whole"
        model.graph.node.append(helper.make_node("Cast", [old], [found], to=TensorProto.INT64))
        keys = [int(value) for value in classes]
        if keys != positions:
            whole, found = found, f"{new}_found"
            _encode(model, whole, found, keys_int64s=keys, values_int64s=positions)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{new}_shape"))
    _append(model, "Reshape", [found, f"{new}_shape"], new)
    _replace_output(model, old, helper.make_tensor_value_info(new, TensorProto.INT64, [None]))


def first_of_largest(model: onnx.ModelProto, old: str, new: str, probabilities: str) -> None:
    """In place of `old`, the position of the first class of those with the largest probability.

    What differs by less than 32 bits can hold of a sum counts as the same.
    """
    kind = next(each.type.tensor_type.elem_type for each in model.graph.output if each.name == probabilities)
    number = helper.tensor_dtype_to_np_dtype(kind)
    model.graph.initializer.append(numpy_helper.from_array(np.array(_STEPS_OF_ONE, dtype=number), f"{new}_steps"))
    _append(model, "Mul", [probabilities, f"{new}_steps"], f"{new}_counted")
    _append(model, "Round", [f"{new}_counted"], f"{new}_whole")
    _append(model, "ArgMax", [f"{new}_whole"], new)
    model.graph.node[-1].attribute.extend(
        helper.make_attribute(name, value) for name, value in (("axis", 1), ("keepdims", 0))
    )
    _replace_output(model, old, helper.make_tensor_value_info(new, TensorProto.INT64, [None]))


def threshold_position(
    model: onnx.ModelProto, old: str, new: str, probabilities: str, *, position: int, threshold: float
) -> None:
    """In place of `old`, the position of the class out of two: `position` from `threshold` of its probability on."""
    kind = next(each.type.tensor_type.elem_type for each in model.graph.output if each.name == probabilities)
    numbers = {
        "column": np.array([position], dtype=np.int64),
        "least": np.array([threshold], dtype=helper.tensor_dtype_to_np_dtype(kind)),
        "yes": np.array(position, dtype=np.int64),
        "no": np.array(1 - position, dtype=np.int64),
        "shape": np.array([-1], dtype=np.int64),
    }
    for name, value in numbers.items():
        model.graph.initializer.append(numpy_helper.from_array(value, f"{new}_{name}"))
    _append(model, "Gather", [probabilities, f"{new}_column"], f"{new}_score")
    model.graph.node[-1].attribute.append(helper.make_attribute("axis", 1))
    _append(model, "GreaterOrEqual", [f"{new}_score", f"{new}_least"], f"{new}_reached")
    _append(model, "Where", [f"{new}_reached", f"{new}_yes", f"{new}_no"], f"{new}_chosen")
    _append(model, "Reshape", [f"{new}_chosen", f"{new}_shape"], new)
    _replace_output(model, old, helper.make_tensor_value_info(new, TensorProto.INT64, [None]))


def _encode(model: onnx.ModelProto, source: str, target: str, **tables: list[Any]) -> None:
    node = helper.make_node("LabelEncoder", [source], [target], domain=ML_DOMAIN)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in tables.items())
    model.graph.node.append(node)
    declared = [item for item in model.opset_import if item.domain == ML_DOMAIN]
    if not declared:
        model.opset_import.append(helper.make_opsetid(ML_DOMAIN, _ML_VERSION))
    for item in declared:
        item.version = max(item.version, _ML_VERSION)


def join_columns(model: onnx.ModelProto, table: str, columns: Sequence[str], *, kind: int) -> None:
    """The input `table` [n, columns] becomes one input [n, 1] a column, joined inside."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} & set(columns)
    if taken:
        raise ValueError(f"a column is named like something inside the model: {min(taken)!r}")
    kept = [item for item in model.graph.input if item.name != table]
    del model.graph.input[:]
    model.graph.input.extend([helper.make_tensor_value_info(name, kind, [None, 1]) for name in columns])
    model.graph.input.extend(kept)
    model.graph.node.insert(0, helper.make_node("Concat", list(columns), [table], axis=1))


def _out_of_the_way(model: onnx.ModelProto, old: str, new: str) -> str:
    """The name that `old` goes by inside from now on: another one when the new output takes its name."""
    if old != new:
        return old
    inner = f"{old}_inner"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = inner
    for output in model.graph.output:
        if output.name == old:
            output.name = inner
    return inner


def name_inputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Give the inputs their columns' names back: the converter writes `sepal_length__cm_` for `sepal length (cm)`."""
    if len(model.graph.input) != len(names):
        raise ValueError(f"the graph has {len(model.graph.input)} inputs for {len(names)} columns")
    renamed = {item.name: name for item, name in zip(model.graph.input, names, strict=True) if item.name != name}
    for item in model.graph.input:
        item.name = renamed.get(item.name, item.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in renamed:
                node.input[index] = renamed[name]


def use_known_locale(model: onnx.ModelProto) -> None:
    """Text is folded by Unicode's rules in the locale that every machine has; the converter names one that few have."""
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [item for item in node.attribute if item.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("locale", "C.UTF-8")])


def drop_output(model: onnx.ModelProto, name: str) -> None:
    """The graph no longer answers `name`; what computed it alone is pruned by the runtime."""
    for output in [item for item in model.graph.output if item.name == name]:
        model.graph.output.remove(output)


def _append(model: onnx.ModelProto, operator: str, inputs: list[str], output: str) -> None:
    model.graph.node.append(helper.make_node(operator, inputs, [output]))


def _replace_output(model: onnx.ModelProto, old: str, new: onnx.ValueInfoProto) -> None:
    for output in model.graph.output:
        if output.name == old:
            output.CopyFrom(new)
            return
