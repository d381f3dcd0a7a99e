"""The protocol's documents about servers and models, from plain values.

Sections: V2 "Server Metadata", "Model Metadata"; Triton's extensions model_configuration, statistics, model_repository.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.domain.contract import ModelContract
from modelyard.domain.tensors import DataType, TensorSpec

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """What the statistics extension reports of one version. `batches` has (batch size, runs, their time) in all."""

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Spent = field(default_factory=Spent)
    fail: Spent = field(default_factory=Spent)
    queue: Spent = field(default_factory=Spent)
    compute_input: Spent = field(default_factory=Spent)
    compute_infer: Spent = field(default_factory=Spent)
    compute_output: Spent = field(default_factory=Spent)
    cache_hit: Spent = field(default_factory=Spent)
    cache_miss: Spent = field(default_factory=Spent)
    batches: Sequence[tuple[int, Spent]] = ()
    memory_bytes: int | None = None


_STAGES: Final = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def server_metadata(name: str, version: str, extensions: Iterable[str]) -> Document:
    """`GET /v2`. List an extension only where it works."""
    return {"name": name, "version": version, "extensions": list(extensions)}


def model_metadata(name: str, versions: Iterable[str], platform: str, contract: ModelContract) -> Document:
    """`GET /v2/models/{m}`. Dimensions that vary are -1."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor(spec) for spec in contract.inputs],
        "outputs": [_tensor(spec) for spec in contract.outputs],
    }


def model_configuration(name: str, platform: str, contract: ModelContract, *, max_queue_delay_us: int = 0) -> Document:
    """`GET /v2/models/{m}/config` in Triton's form: where `max_batch_size` is above 0, `dims` leave the batch out.

    A model whose batches are not proved (`max_batch_size` 1 or 0) has 0 and whole `dims`.
    """
    size = contract.max_batch_size if contract.max_batch_size > 1 else 0
    document: Document = {
        "name": name,
        "platform": platform,
        "backend": platform.partition("_")[0],
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": size,
        "input": [_configured(spec, skip=bool(size)) for spec in contract.inputs],
        "output": [
            _configured(spec, skip=bool(size))
            | ({"label_filename": "labels.txt"} if _is_labelled(spec, contract) else {})
            for spec in contract.outputs
        ],
    }
    if size:
        document["dynamic_batching"] = {"max_queue_delay_microseconds": max_queue_delay_us}
    return document


def statistics(models: Iterable[ModelStatistics]) -> Document:
    """`GET /v2/models/stats`. Without a response cache its counts are 0."""
    return {"model_stats": [_statistics(model) for model in models]}


def repository_index(models: Iterable[tuple[str, str, str, str]]) -> list[Document]:
    """`POST /v2/repository/index` from (name, version, state, reason)."""
    return [
        {"name": name, "version": version, "state": state, "reason": reason} for name, version, state, reason in models
    ]


def _statistics(model: ModelStatistics) -> Document:
    stages = {stage: _spent(getattr(model, stage)) for stage in _STAGES}
    document: Document = {
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": stages | {"cache_hit": _spent(model.cache_hit), "cache_miss": _spent(model.cache_miss)},
        "batch_stats": [{"batch_size": size, "compute_infer": _spent(spent)} for size, spent in model.batches],
        "memory_usage": [],
        "response_stats": {},
    }
    if model.memory_bytes is not None:
        document["memory_usage"] = [{"type": "CPU", "id": 0, "byte_size": model.memory_bytes}]
    return document


def _spent(spent: Spent) -> Mapping[str, int]:
    return {"count": spent.count, "ns": spent.ns}


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype.value, "shape": list(spec.shape)}


def _configured(spec: TensorSpec, *, skip: bool) -> Document:
    kind = "STRING" if spec.datatype is DataType.BYTES else spec.datatype.value
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape[1:] if skip else spec.shape)}


def _is_labelled(spec: TensorSpec, contract: ModelContract) -> bool:
    return bool(contract.labels) and spec.shape[-1:] == (len(contract.labels),)
