"""Documents that describe: the server, a model, its configuration (V2 and the Triton extensions of it)."""

from collections.abc import Mapping, Sequence
from typing import Final

from modelyard.domain.contract import ServingPackage
from modelyard.domain.routing import Batching
from modelyard.domain.tensors import TensorSpec

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""Only what works is listed."""
Document = Mapping[str, object]


def server_metadata(version: str) -> Document:
    """`GET v2`."""
    return {"name": "modelyard", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, package: ServingPackage, *, versions: Sequence[str]) -> Document:
    """`GET v2/models/{m}`: also the labels, where the model has them, as a member of our own."""
    contract = package.contract
    document: dict[str, object] = {
        "name": name,
        "versions": list(versions),
        "platform": package.platform,
        "inputs": [_tensor(spec) for spec in contract.inputs],
        "outputs": [_tensor(spec) for spec in contract.outputs],
    }
    if contract.labels:
        document["labels"] = list(contract.labels)
    return document


def model_config(name: str, package: ServingPackage, *, batching: Batching) -> Document:
    """`GET v2/models/{m}/config` (Triton, model configuration extension): dims without the batch axis."""
    contract = package.contract
    batched = contract.max_batch_size > 0
    document: dict[str, object] = {
        "name": name,
        "platform": package.platform,
        "backend": package.runtime,
        "max_batch_size": min(contract.max_batch_size, batching.max_size),
        "input": [_config_tensor(spec, batched=batched) for spec in contract.inputs],
        "output": [_config_tensor(spec, batched=batched) for spec in contract.outputs],
    }
    if batched:
        document["dynamic_batching"] = {"max_queue_delay_microseconds": int(batching.max_wait_ms * 1000)}
    return document


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _config_tensor(spec: TensorSpec, *, batched: bool) -> Document:
    kind = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype.value}"
    return {"name": spec.name, "data_type": kind, "dims": list(spec.shape[1:] if batched else spec.shape)}
