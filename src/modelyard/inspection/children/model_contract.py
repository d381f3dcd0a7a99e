"""The contract that a model's tensors, a label map and a configuration make together, whatever the format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import Labelling, LabelSource, ModelContract, ServingPackage, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec
from modelyard.inspection.children import synthetic
from modelyard.inspection.children.packaging import Finding, Work

_TABLE: Final = 2
_SCORE_OUTPUTS: Final = ("probabilities", "output_probability", "probs", "scores", "logits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What is known of a graph beside what it says itself (from a builder, a signature or the configuration)."""

    task: Task | None = None
    labels: tuple[str, ...] = ()
    labelling: Labelling | None = None
    allows_nan: bool = False


@dataclass(frozen=True, slots=True)
class Agreed:
    """The contract, and the model's output whose name the label output took (None: none); it is not asked for."""

    contract: ModelContract
    taken: str | None


def agree(
    work: Work, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], known: Knowledge, found: Finding
) -> Agreed:
    """What the model says of itself, agreed with the configuration and the labels.

    Raises:
        BundleMismatch: the configuration or the label map contradicts the model.
    """
    _require_declared(work, inputs, "inputs")
    _require_declared(work, outputs, "outputs")
    named = work.labels or known.labels
    task = _task(work, named, known)
    labels = named or _positions(task, outputs)
    labelling = known.labelling or (_labelling(work, outputs, labels) if labels else None)
    taken = None
    if labelling is not None:
        _require_label_count(work, outputs, labelling, labels)
        kept = tuple(item for item in outputs if item.name != labelling.output)
        taken = labelling.output if len(kept) < len(outputs) and labelling.source != labelling.output else None
        outputs = kept
        label = TensorSpec(name=labelling.output, datatype=DataType.BYTES, shape=(VARIABLE,))
        outputs = (label, *outputs) if labels else outputs
    contract = ModelContract(
        inputs=inputs,
        outputs=outputs,
        task=task,
        labels=labels,
        labelling=labelling if labels else None,
        max_batch_size=_batching(inputs, outputs),
    )
    found.summary = ", ".join(f"{item.name} {item.datatype.value} {list(item.shape)}" for item in inputs[:4])
    if contract.task is Task.CLASSIFICATION and not named:
        found.outcome, found.hint = Outcome.WARNING, "add labels.json so that answers carry names instead of positions"
    return Agreed(contract, taken)


def finish(work: Work, package: ServingPackage) -> None:
    """Leave rows for the probe and say that the package is whole."""
    contract = package.contract
    arrays = work.read_sample(contract.inputs)
    source = "sample"
    if arrays is None or not _fits(arrays, contract):
        arrays, source = synthetic.arrays_for(contract), "generated"
    arrays = synthetic.as_sent(arrays, contract, limit=64)
    work.write_rows(arrays, contract.inputs, source=source)
    work.finish(package)


def _fits(arrays: Mapping[str, np.ndarray[Any, Any]], contract: ModelContract) -> bool:
    return all(
        arrays[item.name].ndim == len(item.shape)
        and all(want in {VARIABLE, have} for want, have in zip(item.shape, arrays[item.name].shape, strict=True))
        for item in contract.inputs
    )


def _positions(task: Task, outputs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """The classes of a classifier whose names nobody knows: their positions, so that an answer still says which."""
    scores = [item for item in outputs if item.datatype.is_float and len(item.shape) == _TABLE]
    if task is not Task.CLASSIFICATION or len(scores) != 1 or scores[0].shape[1] < _TABLE:
        return ()
    return tuple(str(index) for index in range(scores[0].shape[1]))


def _require_declared(work: Work, specs: tuple[TensorSpec, ...], which: str) -> None:
    declared = work.config.get(which) or (
        [work.config[which[:-1]]] if isinstance(work.config.get(which[:-1]), Mapping) else []
    )
    by_name = {item.name: item for item in specs}
    for item in declared if isinstance(declared, list) else []:
        if not isinstance(item, Mapping) or "name" not in item:
            continue
        spec = by_name.get(str(item["name"]))
        if spec is None:
            raise BundleMismatch(
                f"the configuration declares the {which[:-1]} {quote(item['name'])}, which the graph does not have",
                hint=f"the graph has {', '.join(quote(name) for name in list(by_name)[:8])}",
            )
        kind, shape = item.get("datatype"), item.get("shape")
        if kind not in {None, spec.datatype.value} or not _same_shape(shape, spec.shape):
            raise BundleMismatch(
                f"the configuration says {quote(spec.name)} is {quote(kind)} {quote(shape)}, "
                f"the graph says {spec.datatype.value} {list(spec.shape)}",
                hint="leave inputs and outputs out of the configuration: they are read from the graph",
            )


def _same_shape(declared: object, shape: tuple[int, ...]) -> bool:
    if not isinstance(declared, list):
        return True
    return len(declared) == len(shape) and all(
        VARIABLE in {want, have} or want == have for want, have in zip(declared, shape, strict=True)
    )


def _labelling(work: Work, outputs: tuple[TensorSpec, ...], labels: tuple[str, ...]) -> Labelling | None:
    """Which output decides: scores of one value a class, else whole numbers that are positions."""
    scores = [item for item in outputs if item.datatype.is_float and len(item.shape) == _TABLE]
    named = [item for item in scores if item.name in _SCORE_OUTPUTS]
    fitting = [item for item in scores if item.shape[1] in {len(labels), VARIABLE}]
    for candidates in ([item for item in named if item in fitting], fitting):
        if candidates:
            return Labelling(source=candidates[0].name, rule=LabelSource.ARGMAX)
    positions = [item for item in outputs if item.datatype in {DataType.INT64, DataType.INT32} and len(item.shape) == 1]
    if positions:
        return Labelling(source=positions[0].name, rule=LabelSource.INDEX)
    if scores and work.labels:
        work.require_labels(scores[0].shape[1])
    return None


def _require_label_count(
    work: Work, outputs: tuple[TensorSpec, ...], labelling: Labelling, labels: tuple[str, ...]
) -> None:
    source = next((item for item in outputs if item.name == labelling.source), None)
    if source and labels and labelling.rule is LabelSource.ARGMAX and source.shape[-1] not in {VARIABLE, len(labels)}:
        work.require_labels(source.shape[-1])


def _task(work: Work, labels: tuple[str, ...], known: Knowledge) -> Task:
    declared = work.config.get("task")
    if isinstance(declared, str) and declared in {item.value for item in Task}:
        return Task(declared)
    if known.task is not None:
        return known.task
    return Task.CLASSIFICATION if labels or work.config.get("num_labels") else Task.OTHER


def _batching(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> int:
    """1 where rows can stand on a first axis (the probe proves more), 0 where there is no such axis."""
    firsts = {item.shape[0] if item.shape else 0 for item in (*inputs, *outputs)}
    return 1 if firsts <= {VARIABLE} or firsts == {1} else 0
