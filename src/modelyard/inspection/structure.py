"""The structure check of weights: one parser for each format, and the facts that its report shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.inspection.bundle import Bundle
from modelyard.inspection.kinds import WeightsKind
from modelyard.inspection.octets import Octets, mapped
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.foreign import refuse_foreign
from modelyard.inspection.weights.lightgbm_file import read_lightgbm
from modelyard.inspection.weights.onnx import OnnxFacts, read_onnx
from modelyard.inspection.weights.openvino import read_openvino
from modelyard.inspection.weights.packed import unpack_pickle
from modelyard.inspection.weights.pickles import read_pickle
from modelyard.inspection.weights.safetensors import Tensor, read_safetensors
from modelyard.inspection.weights.skops_file import read_skops
from modelyard.inspection.weights.torch_export import read_torch_export
from modelyard.inspection.weights.xgboost_file import read_xgboost

_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Structure:
    """One line for people, evidence for the report, and tensors whose values a later check looks at.

    `tensors` lie in the file `values`; None: in the weights themselves.
    """

    summary: str
    evidence: Mapping[str, object]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    external: frozenset[str] = frozenset()
    values: Path | None = None


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
            case WeightsKind.OPENVINO | WeightsKind.TORCH_EXPORT:
                return (_openvino if bundle.kind is WeightsKind.OPENVINO else _torch_export)(bundle, data, policy)
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


def _openvino(bundle: Bundle, data: Octets, policy: InspectionPolicy) -> Structure:
    beside = bundle.files.get(f"{Path(bundle.weights.name).stem}.bin")
    facts = read_openvino(data, constants_size=None if beside is None else beside.size, policy=policy)
    evidence = {
        "layers": facts.layers,
        "operators": sorted(facts.operators)[:_SHOWN],
        "constants": len(facts.constants),
        "constant_bytes": sum(one.end - one.begin for one in facts.constants),
    }
    return Structure(
        f"OpenVINO model, {facts.layers} layers, {len(facts.constants)} constants",
        evidence,
        tensors={
            f"{index} {one.name}": Tensor(one.name, one.element.upper(), one.shape, one.begin, one.end)
            for index, one in enumerate(facts.constants)
        },
        external=frozenset() if beside is None or not facts.constants else frozenset({beside.name}),
        values=None if beside is None else beside.path,
    )


def _torch_export(bundle: Bundle, data: Octets, policy: InspectionPolicy) -> Structure:
    del bundle  # a file of its own
    facts = read_torch_export(data, policy)
    evidence = {
        "nodes": facts.nodes,
        "operators": sorted(facts.operators)[:_SHOWN],
        "tensors": len(facts.tensors),
        "tensor_bytes": facts.tensor_bytes,
        "left_out": list(facts.left_out),
    }
    summary = f"torch.export archive, {facts.nodes} nodes, {len(facts.tensors)} tensors"
    return Structure(summary, evidence, tensors=facts.tensors)
