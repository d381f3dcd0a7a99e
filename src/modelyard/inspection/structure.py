"""The structure check of weights: one parser for each format, and the facts that its report shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.inspection.bundle import Bundle
from modelyard.inspection.kinds import WeightsKind
from modelyard.inspection.octets import mapped
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.foreign import refuse_foreign
from modelyard.inspection.weights.lightgbm_file import read_lightgbm
from modelyard.inspection.weights.onnx import OnnxFacts, read_onnx
from modelyard.inspection.weights.packed import unpack_pickle
from modelyard.inspection.weights.pickles import read_pickle
from modelyard.inspection.weights.safetensors import Tensor, read_safetensors
from modelyard.inspection.weights.skops_file import read_skops
from modelyard.inspection.weights.xgboost_file import read_xgboost

_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Structure:
    """One line for people, evidence for the report, and the tensors of a safetensors file for later checks."""

    summary: str
    evidence: Mapping[str, object]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    external: frozenset[str] = frozenset()


def read_structure(bundle: Bundle, workdir: Path, policy: InspectionPolicy) -> Structure:
    """Read the weights by their own parser; a format that is not accepted is refused with the way out."""
    path = bundle.weights.path
    if bundle.kind is WeightsKind.PYTHON:
        return _code(bundle)
    if bundle.kind is WeightsKind.PICKLE:
        return _pickle(path, workdir, policy)
    with mapped(path) as data:
        match bundle.kind:
            case WeightsKind.SAFETENSORS:
                tensors = read_safetensors(data, policy)
                counts = {"tensors": len(tensors), "limit_tensors": policy.tensors, "bytes": len(data)}
                return Structure(f"safetensors, {len(tensors)} tensors", counts, tensors)
            case WeightsKind.ONNX:
                return _onnx(read_onnx(data, {name: file.size for name, file in bundle.files.items()}, policy))
            case WeightsKind.SKOPS:
                skops = read_skops(data, policy)
                facts = {
                    "type": skops.top,
                    "nodes": skops.nodes,
                    "members": skops.members,
                    "names": skops.names[:_SHOWN],
                }
                return Structure(f"skops file with {skops.top}", facts)
            case WeightsKind.XGBOOST:
                xgboost = read_xgboost(data, policy)
                return Structure(
                    f"XGBoost model ({xgboost.encoding})", {"encoding": xgboost.encoding, "keys": xgboost.keys}
                )
            case WeightsKind.LIGHTGBM:
                trees = read_lightgbm(data, policy)
                counts = {"trees": trees.trees, "features": trees.features, "classes": trees.classes}
                return Structure(f"LightGBM model, {trees.trees} trees", counts)
            case _:
                raise refuse_foreign(bundle.kind, data, policy)


def _code(bundle: Bundle) -> Structure:
    """Sizes only: the sources are read behind the walls of the audit's child, the rest by nobody but the code."""
    sizes = {name: file.size for name, file in bundle.files.items()}
    return Structure(
        f"program code with {len(sizes) - 1} files beside it", {"files": sizes}, external=frozenset(bundle.external)
    )


def _pickle(path: Path, workdir: Path, policy: InspectionPolicy) -> Structure:
    place = workdir / "unpacked.pickle"
    packing = unpack_pickle(path, place, policy)
    try:
        with mapped(path if packing is None else place) as data:
            facts = read_pickle(data, policy)
    finally:
        place.unlink(missing_ok=True)
    evidence = {
        "type": facts.top,
        "opcodes": facts.opcodes,
        "limit_opcodes": policy.pickle_opcodes,
        "arrays": facts.arrays,
        "packing": packing or "none",
        "names": facts.names[:_SHOWN],
    }
    return Structure(f"pickle of {facts.top}; all {len(facts.names)} names in it are known types", evidence)


def _onnx(facts: OnnxFacts) -> Structure:
    evidence = {
        "nodes": facts.nodes,
        "tensors": facts.tensors,
        "tensor_bytes": facts.tensor_bytes,
        "operators": facts.operators[:_SHOWN],
        "external_data": sorted(facts.external),
    }
    return Structure(f"ONNX, {facts.nodes} nodes, {facts.tensors} tensors", evidence, external=facts.external)
