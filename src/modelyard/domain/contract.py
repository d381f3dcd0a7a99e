"""What a served model promises: inputs, outputs, labels, batching, and one answer known to be right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelyard.domain.tensors import TensorSpec


class Task(StrEnum):
    """What kind of question the model answers; decides how answers are labelled and shown."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CLUSTERING = "clustering"
    TRANSFORMATION = "transformation"
    OTHER = "other"


class ModelFormat(StrEnum):
    """The format a model was uploaded in."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    SKLEARN = "sklearn"
    SKOPS = "skops"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    OPENVINO = "openvino"
    TORCH_EXPORT = "pt2"
    PYTHON = "python"
    MLFLOW = "mlflow"


class Isolation(StrEnum):
    """Where a model may run: in the listening process, or only in a worker process of its own."""

    SHARED = "shared"
    PROCESS = "process"


class LabelSource(StrEnum):
    """How a label follows from an output: the largest value's position, or the value itself as a position."""

    ARGMAX = "argmax"
    INDEX = "index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """Adds a BYTES output `output` of labels, one a row, computed from the runtime's tensor `source`.

    With `INDEX` the runtime's tensor `source` holds class positions and is itself not part of the public outputs
    unless the contract lists it.
    """

    source: str
    rule: LabelSource
    output: str = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    """Inputs and outputs as clients see them.

    `outputs` includes the label output that `labelling` adds. `labels` are in class-index order; empty when there are
    none. `max_batch_size` is 1 unless intake proved that a batch of n equals n single runs; 0 means the model has no
    batch axis at all.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: Task = Task.OTHER
    labels: tuple[str, ...] = ()
    labelling: Labelling | None = None
    max_batch_size: int = 1

    def label_file(self) -> dict[str, str] | None:
        """The labels as `labels.json` of a bundle holds them, by position; None where there are none."""
        return {str(index): label for index, label in enumerate(self.labels)} or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A request and the answer it must get, both as V2 documents in plain JSON values.

    `request` is `{"inputs": [{"name", "shape", "datatype", "data"}]}` with flat data; `outputs` the answer's outputs.
    Recorded by the probe, checked again before a revision takes traffic, and shown to users as the working example.
    """

    request: Mapping[str, Any]
    outputs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPackage:
    """A directory that a runtime can load: `package.json` holds this value, `files` names what lies beside it.

    `digest` is the digest of the upload it came from (`bundle_digest`); `runtime` is a name in the runtime registry;
    `entry` the file in the directory that the runtime opens. `isolation` is the least isolation it may run under.
    `options` are what the bundle's configuration says to the runtime.
    """

    name: str
    digest: str
    format: ModelFormat
    runtime: str
    entry: str
    platform: str
    contract: ModelContract
    golden: Golden | None = None
    isolation: Isolation = Isolation.SHARED
    files: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    schema: int = 1
