"""Do configuration, labels and weights speak of the same model?"""

from collections.abc import Mapping, Sequence

from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch
from modelyard.domain.tensors import VARIABLE
from modelyard.inspection.bundle import Bundle
from modelyard.inspection.structure import Structure

_ALIKE = ({ModelFormat.SKLEARN, ModelFormat.SKOPS}, {ModelFormat.PYTHON})


def require_consistent(
    bundle: Bundle, config: Mapping[str, object], labels: Sequence[str], structure: Structure
) -> Mapping[str, object]:
    """What was compared, or `BundleMismatch` with the two things that contradict each other."""
    compared: dict[str, object] = {}
    _require_format(bundle, config)
    _require_external(bundle, structure)
    count = config.get("num_labels")
    if labels and count is not None:
        compared["labels"] = len(labels)
        if len(labels) != count:
            raise BundleMismatch(
                f"num_labels is {count}, the label map has {len(labels)}", hint="correct the one that is wrong"
            )
    width = _last_size(config.get("output"))
    if type(count) is int and width is not None and width not in (1, count) and config.get("task") == "classification":
        raise BundleMismatch(f"num_labels is {count}, the output is declared with {width} values")
    if bundle.format is ModelFormat.SAFETENSORS:
        compared["tensors"] = _require_architecture(config, structure)
    return compared


def _require_format(bundle: Bundle, config: Mapping[str, object]) -> None:
    stated = config.get("format")
    if stated is None or stated == bundle.format or (stated == ModelFormat.MLFLOW and bundle.mlflow is not None):
        return
    if not any({stated, bundle.format} <= group for group in _ALIKE):
        raise BundleMismatch(
            f"the config says {stated}, the weights {quote(bundle.weights.name)} are {bundle.format}",
            hint="correct format in the config, or leave it out",
        )


def _require_external(bundle: Bundle, structure: Structure) -> None:
    unused = bundle.external - structure.external
    if unused:
        raise BundleMismatch(f"{quote(min(unused))} is not named by the weights", hint="leave it out of the bundle")


def _require_architecture(config: Mapping[str, object], structure: Structure) -> int:
    """How many layers; the tensors of a first linear layer must be there and fit the declared input."""
    layers = config.get("architecture")
    if not isinstance(layers, list):
        raise BundleMismatch(
            "bare weights do not say what is computed with them",
            hint='add config.json with "architecture": [{"linear": {"weight": "w", "bias": "b"}}] and the input',
        )
    first = layers[0].get("linear")
    weight = first.get("weight") if isinstance(first, dict) else None
    if isinstance(first, dict) and isinstance(weight, str):
        tensor = structure.tensors.get(weight)
        if tensor is None:
            raise BundleMismatch(
                f"the first layer wants the tensor {quote(weight)}, which is not in the weights",
                hint=f"tensors: {', '.join(list(structure.tensors)[:12])}",
            )
        width = _last_size(config.get("input"))
        axis = 0 if first.get("transposed") is True else -1
        if width is not None and (len(tensor.shape) != 2 or tensor.shape[axis] != width):  # noqa: PLR2004
            raise BundleMismatch(
                f"the input has {width} values, the tensor {quote(weight)} has the shape {list(tensor.shape)}",
                details=[{"field": "input", "expected": list(tensor.shape), "received": width}],
            )
    return len(layers)


def _last_size(tensor: object) -> int | None:
    """The last size of a declared tensor, None when it is variable or not declared."""
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    size = shape[-1] if isinstance(shape, list) and shape else None
    return size if isinstance(size, int) and size != VARIABLE else None
