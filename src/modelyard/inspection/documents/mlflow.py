"""An MLflow model directory, read from its `MLmodel` file without MLflow.

Only the flavours are looked at, to learn which file holds the model; module names, environments and the trust list that
the artifact brings (`skops_trusted_types`) are not used for anything. The signature is kept as inputs and outputs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid, FileTooLarge, TypeNotAllowed
from modelyard.domain.tensors import DataType
from modelyard.inspection.documents.json_text import read_bounded, read_json, read_text, require_object
from modelyard.inspection.documents.safe_yaml import read_yaml
from modelyard.inspection.kinds import WeightsKind, kind_of
from modelyard.inspection.policy import InspectionPolicy

_FILE_KEYS: Final[Mapping[str, tuple[str, WeightsKind | None]]] = {
    "onnx": ("data", WeightsKind.ONNX),
    "xgboost": ("data", WeightsKind.XGBOOST),
    "lightgbm": ("data", WeightsKind.LIGHTGBM),
    "sklearn": ("pickled_model", None),
}
_COLUMN_TYPES: Final = {
    "double": DataType.FP64, "float": DataType.FP32, "long": DataType.INT64, "integer": DataType.INT32,
    "string": DataType.BYTES, "boolean": DataType.BOOL,
}  # fmt: skip
_TENSOR_TYPES: Final = {
    "float64": DataType.FP64, "float32": DataType.FP32, "float16": DataType.FP16, "int64": DataType.INT64,
    "int32": DataType.INT32, "int16": DataType.INT16, "int8": DataType.INT8, "uint8": DataType.UINT8,
    "bool": DataType.BOOL, "str": DataType.BYTES, "object": DataType.BYTES,
}  # fmt: skip
_FEATURES: Final = 65_536


@dataclass(frozen=True, slots=True)
class MlflowModel:
    """The file with the model, its format, and the signature in the terms of `config.json`."""

    weights: str
    kind: WeightsKind
    signature: Mapping[str, object]


def read_mlmodel(path: Path, names: Collection[str], policy: InspectionPolicy) -> MlflowModel:
    """The model that `MLmodel` at `path` describes; `names` are the files of the directory.

    Raises:
        ConfigInvalid, ConfigUnsafe: the file is not the safe subset of YAML.
        TypeNotAllowed: none of its flavours is one that is read here.
        BundleMismatch: the file that it names did not come along.
    """
    text = read_text(
        read_bounded(path, limit=policy.config_bytes, what="MLmodel", too_large=FileTooLarge),
        what="MLmodel",
        refused=ConfigInvalid,
    )
    value = read_yaml(text, what="MLmodel", max_depth=policy.json_depth, max_digits=policy.json_int_digits)
    document = require_object(value, what="MLmodel", refused=ConfigInvalid)
    flavors = require_object(document.get("flavors"), what="flavors in MLmodel", refused=ConfigInvalid)
    for flavor, (key, kind) in _FILE_KEYS.items():
        if flavor in flavors:
            entry = require_object(flavors[flavor], what=f"the flavour {flavor}", refused=ConfigInvalid)
            weights = _file(entry.get(key), flavor, names)
            found = kind or kind_of(weights).weights
            if found is None or (kind is None and found not in (WeightsKind.PICKLE, WeightsKind.SKOPS)):
                raise BundleMismatch(f"{quote(weights)} is no file of the flavour {flavor}")
            return MlflowModel(weights, found, _signature(document.get("signature"), policy))
    raise TypeNotAllowed(
        f"the MLflow flavours {', '.join(quote(name) for name in sorted(flavors)[:6])} are not read",
        hint="log the model with mlflow.sklearn, mlflow.onnx, mlflow.xgboost or mlflow.lightgbm, or export it to ONNX",
    )


def _file(value: object, flavor: str, names: Collection[str]) -> str:
    if not isinstance(value, str) or value not in names:
        raise BundleMismatch(
            f"the flavour {flavor} has its model in {quote(value)}, which did not come along",
            hint="upload all files of the model directory, without folders",
        )
    return value


def _signature(value: object, policy: InspectionPolicy) -> Mapping[str, object]:
    """`inputs` and `outputs` as `config.json` has them; what cannot be expressed there is left out."""
    if not isinstance(value, dict):
        return {}
    found: dict[str, object] = {}
    for key in ("inputs", "outputs"):
        text = value.get(key)
        if isinstance(text, str):
            entries = read_json(text.encode(), what=f"signature {key}", policy=policy, refused=ConfigInvalid)
            if isinstance(entries, list) and len(entries) <= _FEATURES:
                tensors = [_tensor(entry, index) for index, entry in enumerate(entries)]
                if tensors and None not in tensors:
                    found[key] = tensors
    return found


def _tensor(entry: object, index: int) -> dict[str, object] | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("name", f"input_{index}")
    spec = entry.get("tensor-spec")
    if isinstance(spec, dict):
        datatype, shape = _TENSOR_TYPES.get(str(spec.get("dtype"))), spec.get("shape")
    else:
        datatype, shape = _COLUMN_TYPES.get(str(entry.get("type"))), [-1, 1]
    if datatype is None or not isinstance(name, str) or not isinstance(shape, list):
        return None
    return {"name": name, "datatype": datatype.value, "shape": shape}
