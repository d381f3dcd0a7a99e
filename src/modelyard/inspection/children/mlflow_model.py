"""An MLflow model directory, read without mlflow: its MLmodel file names the flavour, the file and the signature.

The directory's own trust list and its `loader_module` are ignored: what a file may hold is decided here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid, PathUnsafe, TypeNotAllowed
from modelyard.domain.tensors import DataType

_FLAVOURS: Final[tuple[tuple[str, ModelFormat, tuple[str, ...]], ...]] = (
    ("onnx", ModelFormat.ONNX, ("data",)),
    ("sklearn", ModelFormat.SKLEARN, ("pickled_model",)),
    ("xgboost", ModelFormat.XGBOOST, ("data", "model_data")),
    ("lightgbm", ModelFormat.LIGHTGBM, ("data", "model_data")),
)
_TYPES: Final = {
    "string": DataType.BYTES,
    "boolean": DataType.BOOL,
    "integer": DataType.INT32,
    "long": DataType.INT64,
    "float": DataType.FP32,
    "double": DataType.FP64,
}
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowModel:
    """What the MLmodel file says: the file of the best flavour, its format, and declared types of named columns."""

    format: ModelFormat
    weights: str
    columns: Mapping[str, DataType] = field(default_factory=dict)
    is_classifier: bool = False


def read_mlflow(directory: Path, given: object = None) -> MlflowModel:
    """The model that `directory/MLmodel` describes; `given` is its content where the caller has read it.

    Raises:
        ConfigInvalid: no readable MLmodel.
        TypeNotAllowed: no flavour that can be served.
        BundleMismatch: the file it names is missing.
    """
    document = given if isinstance(given, Mapping) and "flavors" in given else _read(directory / "MLmodel")
    flavours = document.get("flavors")
    if not isinstance(flavours, Mapping):
        raise ConfigInvalid("MLmodel lists no flavors", hint="save the model again with mlflow")
    for name, kind, keys in _FLAVOURS:
        flavour = flavours.get(name)
        if isinstance(flavour, Mapping):
            weights = next((str(flavour[key]) for key in keys if flavour.get(key)), "")
            return MlflowModel(
                format=_format(kind, weights), weights=_checked(directory, weights), columns=_columns(document)
            )
    raise TypeNotAllowed(
        f"no flavour of this MLflow model can be served: {quote(', '.join(map(str, flavours)), limit=120)}",
        hint="log it with mlflow.sklearn, mlflow.onnx, mlflow.xgboost or mlflow.lightgbm",
    )


def _format(kind: ModelFormat, weights: str) -> ModelFormat:
    return ModelFormat.SKOPS if kind is ModelFormat.SKLEARN and weights.endswith(".skops") else kind


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigInvalid("MLmodel is larger than 1 MiB")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigInvalid("MLmodel cannot be read", hint="upload the whole MLflow model directory") from error
    if not isinstance(document, Mapping):
        raise ConfigInvalid("MLmodel is not a mapping")
    return document


def _checked(directory: Path, name: str) -> str:
    if not name or Path(name).name != name or name in {".", ".."}:
        raise PathUnsafe(f"MLmodel names the file {quote(name)}", hint="the model's files lie flat beside MLmodel")
    if not (directory / name).is_file():
        raise BundleMismatch(f"MLmodel names {quote(name)}, which is missing", hint="upload the whole directory")
    return name


def _columns(document: Mapping[str, Any]) -> dict[str, DataType]:
    """Declared types of named columns; empty for tensor signatures or none."""
    signature = document.get("signature")
    try:
        inputs = json.loads(signature["inputs"]) if isinstance(signature, Mapping) else []
        return {
            str(item["name"]): _TYPES[item["type"]]
            for item in inputs
            if isinstance(item, Mapping) and item.get("name") and item.get("type") in _TYPES
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
