"""The route of scikit-learn estimators: describe, convert, prove equal answers; else keep the original, for review."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from modelyard.domain.contract import Labelling, LabelSource, ModelContract
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ProbeFailed
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec
from modelyard.inspection.children import equal, graph_edit, rows
from modelyard.inspection.children.described import CLASS_INDEX, PROBABILITIES, Described, Reads, describe
from modelyard.inspection.children.facts import Array
from modelyard.inspection.children.packaging import ONNX_FILE, Work, copy_file, timed
from modelyard.inspection.children.session import Session
from modelyard.inspection.children.steps import failing_step
from modelyard.inspection.children.to_onnx import NotConvertible, decides_by_threshold, to_onnx
from modelyard.inspection.children.unpickle import Unpickled
from modelyard.inspection.children.v2_values import FROM_NUMPY

PROBED_ROWS: Final = 64
_REVIEW_HINT: Final = (
    "approve the version to serve the original in a worker of its own, or change the named step to one that converts"
)


@dataclass(slots=True)
class Asked:
    """Rows, the original's answers to them, and where they came from."""

    arrays: dict[str, Array]
    answers: dict[str, Array]
    sample_rows: int


@dataclass(frozen=True, slots=True)
class Tried:
    """One try at converting: the graph and how equal it is, or why there is none."""

    floats: DataType
    model: onnx.ModelProto | None = None
    comparison: equal.Comparison | None = None
    answers: Mapping[str, Array] | None = None
    reason: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether the graph may be served in the original's place."""
        return self.comparison is not None and self.comparison.is_equal


def convert_estimator(work: Work, read: Unpickled, *, types: Mapping[str, DataType] | None = None) -> None:
    """Package the estimator as ONNX, or as its original for review. `types` are declared datatypes of named columns."""
    _report_versions(work, read)
    with timed(work.channel, "model.inputs") as found:
        described = describe(read.model)
        _take_declared_name(work, described)
        for column in described.columns:
            if column.datatype is None and isinstance(column.key, str) and types:
                column.datatype = _declared(types.get(column.key))
        work.require_labels(len(described.classes) or len(work.labels))
        unused = [str(column.key) for column in described.columns if not column.used]
        found.summary = f"{type(described.estimator).__name__}: {len(described.inputs())} inputs, " + (
            f"answers {', '.join(described.answers)}"
        )
        found.evidence = {"reads": described.reads.value, "columns": described.width, "unused_columns": unused[:50]}
    asked = _ask(work, described)
    tried = _convert(work, described, asked)
    if tried.model is not None and tried.is_equal:
        _package_graph(work, described, asked, tried)
    else:
        _package_original(work, described, asked)


def _take_declared_name(work: Work, described: Described) -> None:
    """The one tensor goes by the name that the configuration gives it; its width must be the estimator's."""
    declared = work.config.get("input")
    listed = work.config.get("inputs")
    if declared is None and isinstance(listed, list) and len(listed) == 1:
        declared = listed[0]
    if not isinstance(declared, Mapping) or described.reads is not Reads.ARRAY:
        return
    shape = declared.get("shape")
    if isinstance(shape, list) and shape and shape[-1] not in {VARIABLE, described.width}:
        raise BundleMismatch(
            f"the configuration says the input is {shape[-1]} wide, the model was fitted on {described.width} columns",
            hint=f'"shape": [-1, {described.width}], or leave the input out: it is read from the model',
        )
    described.tensor_name = str(declared.get("name") or described.tensor_name)


def _declared(kind: DataType | None) -> DataType | None:
    return kind if kind in {DataType.BYTES, DataType.BOOL} else None


def _report_versions(work: Work, read: Unpickled) -> None:
    if not read.version_warnings:
        return
    with timed(work.channel, "model.versions") as found:
        found.outcome = Outcome.NEEDS_REVIEW
        found.summary = f"saved by another version of scikit-learn: {read.version_warnings[0]}"
        found.evidence = {"parts": list(read.version_warnings[:20])}
        found.hint = "save it with the version that is installed here, or run `modelyard pack` where it was trained"


def _ask(work: Work, described: Described) -> Asked:
    with timed(work.channel, "model.answers") as found:
        try:
            arrays, answers = rows.usable(described)
            rows.learn_missing(described)
        except MemoryError:
            raise
        except Exception as error:
            raise ProbeFailed(
                "the model answers none of the rows made for it: "
                + quote(f"{type(error).__name__}: {error}", limit=200),
                hint="add a sample of rows it answers (sample.csv or sample.json), and check that it is fitted",
            ) from error
        found.summary = f"the original answers {len(next(iter(arrays.values())))} generated rows"
        found.evidence = {"columns_that_may_be_missing": len(described.allows_nan)}
    sample = work.read_sample(described.inputs())
    if sample is None:
        return Asked(arrays, answers, 0)
    joined = {name: np.concatenate([sample[name], array]) for name, array in arrays.items()}
    try:
        joined_answers = described.ask(joined)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (the library says in its own ways that it does not take these rows)
        with timed(work.channel, "sample.answers") as found:
            found.outcome = Outcome.WARNING
            found.summary = f"the model does not take the sample's rows: {type(error).__name__}: {str(error)[:200]}"
            found.hint = "give rows as the model was trained on; generated rows were asked in their place"
        return Asked(arrays, answers, 0)
    return Asked(joined, joined_answers, len(next(iter(sample.values()))))


def _convert(work: Work, described: Described, asked: Asked) -> Tried:
    with timed(work.channel, "convert.equal_answers") as found:
        tries = []
        for floats in (DataType.FP32, DataType.FP64):
            described.floats = floats
            tries.append(_try(described, asked))
            if tries[-1].is_equal:
                break
        best = next((item for item in tries if item.is_equal), None) or next(
            (item for item in tries if item.comparison is not None), tries[0]
        )
        described.floats = best.floats
        _say(found, described, asked, best)
        return best


def _say(found: Any, described: Described, asked: Asked, best: Tried) -> None:  # noqa: ANN401  (a Finding)
    total = len(next(iter(asked.arrays.values())))
    found.evidence = {"rows": total, "sample_rows": asked.sample_rows, "floats": best.floats.value}
    if best.comparison is not None:
        found.evidence |= best.comparison.evidence()
    if best.is_equal:
        found.summary = f"the ONNX form answers like the original on {total} rows"
        return
    found.outcome, found.hint = Outcome.NEEDS_REVIEW, _REVIEW_HINT
    step = failing_step(described, asked.arrays)
    found.evidence["step"] = step
    if best.comparison is None or best.answers is None:
        found.summary = f"cannot be converted to ONNX: {step}"
        found.evidence["reason"] = best.reason
        return
    found.evidence["differing"] = equal.shown(best.comparison, asked.answers, best.answers)
    found.summary = (
        "the ONNX form differs from the original on "
        f"{len(best.comparison.rows_differ)} of {best.comparison.rows} rows, "
        f"by up to {best.comparison.worst:.3g}: {step}"
    )


def _try(described: Described, asked: Asked) -> Tried:
    try:
        model = to_onnx(described)
        session = Session(model.SerializeToString())
        answers = session.run(rows.as_sent(described, asked.arrays))
        comparison = equal.compare(asked.answers, answers)
        if comparison.is_equal and described.allows_nan:
            comparison = _with_missing(described, asked, session) or comparison
    except NotConvertible as error:
        return Tried(described.floats, reason=str(error))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (the runtime refuses a graph with errors of its own)
        return Tried(described.floats, reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Tried(described.floats, model, comparison, answers)


def _with_missing(described: Described, asked: Asked, session: Session) -> equal.Comparison | None:
    """The comparison on rows with missing values when it is not equal there.

    A model without a step for missing values then merely does not take them: None, and none are allowed.
    """
    arrays = rows.with_missing(
        described, {name: array[-256:] for name, array in asked.arrays.items()}, sorted(described.allows_nan)
    )
    comparison = equal.compare(described.ask(arrays), session.run(rows.as_sent(described, arrays)))
    if comparison.is_equal:
        return None
    if rows.is_made_for_missing(described):
        return comparison
    described.allows_nan = frozenset()
    return None


def _package_graph(work: Work, described: Described, asked: Asked, tried: Tried) -> None:
    model, answers = tried.model, tried.answers or {}
    if model is None:
        raise ProbeFailed("there is no graph to package")
    labelling = described.labelling()
    if labelling and PROBABILITIES in answers and not decides_by_threshold(described.estimator):
        chosen = answers[PROBABILITIES].argmax(axis=1)
        if (chosen == asked.answers[CLASS_INDEX]).mean() >= equal.AGREEMENT:
            labelling = Labelling(source=PROBABILITIES, rule=LabelSource.ARGMAX)
            graph_edit.drop_output(model, CLASS_INDEX)
    onnx.save(model, work.out / ONNX_FILE)
    contract = _contract(work, described, labelling, answers)
    _write_rows(work, described, asked)
    work.finish(work.package(contract))


def _package_original(work: Work, described: Described, asked: Asked) -> None:
    described.floats = DataType.FP64
    for column in described.columns:
        if column.datatype is DataType.FP32:
            column.datatype = None
    copy_file(work.weights_path, work.out / work.weights_path.name)
    contract = _contract(work, described, described.labelling(), asked.answers)
    _write_rows(work, described, asked)
    work.finish(work.package(contract, entry=work.weights_path.name, runtime="sklearn_original"))


def _contract(
    work: Work, described: Described, labelling: Labelling | None, answers: Mapping[str, Array]
) -> ModelContract:
    outputs = []
    if labelling is not None:
        outputs.append(TensorSpec(name=labelling.output, datatype=DataType.BYTES, shape=(VARIABLE,)))
    outputs += [
        TensorSpec(name=name, datatype=FROM_NUMPY[answers[name].dtype], shape=(VARIABLE, *answers[name].shape[1:]))
        for name in described.answers
        if name != CLASS_INDEX
    ]
    return ModelContract(
        inputs=described.inputs(),
        outputs=tuple(outputs),
        task=described.task,
        labels=described.labels(work.labels) if described.classes else (),
        labelling=labelling,
    )


def _write_rows(work: Work, described: Described, asked: Asked) -> None:
    count = min(asked.sample_rows, PROBED_ROWS) or PROBED_ROWS
    chosen = {name: array[:count] for name, array in asked.arrays.items()}
    if not asked.sample_rows:
        chosen = {name: np.round(array, 3) if array.dtype.kind == "f" else array for name, array in chosen.items()}
    source = "sample" if asked.sample_rows else "generated"
    work.write_rows(rows.as_sent(described, chosen), described.inputs(), source=source)
