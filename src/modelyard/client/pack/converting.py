"""Turn a fitted estimator into ONNX in the author's environment, and only call it done when the answers are equal."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from modelyard.client.pack.loading import Sample

    Array = np.ndarray[Any, Any]

RTOL: Final = 1e-4
ATOL: Final = 1e-5
LABELS_AGREE: Final = 0.999
_RANK: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The graph, and its inputs and answers on the sample by name."""

    model: bytes
    inputs: "dict[str, Array]"
    outputs: "dict[str, Array]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotConverted:
    """Why there is no graph."""

    reason: str


def convert(estimator: Any, sample: "Sample") -> Converted | NotConverted:  # noqa: ANN401 (any estimator)
    """ONNX with answers equal to the estimator's on `sample`; float64 is tried where float32 differs."""
    reason = "skl2onnx is not installed here"
    for kind in (np.float32, np.float64):
        rows = _typed(sample, kind)
        try:
            model = _graph(estimator, rows)
            outcome = _compare(estimator, model, sample, rows)
        except ImportError:
            break
        except Exception as error:  # noqa: BLE001 (converters of any library, raising anything: the plugin edge)
            reason = f"it does not convert: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            continue
        if isinstance(outcome, Converted):
            return outcome
        reason = outcome.reason
    return NotConverted(reason=reason)


def _typed(sample: "Sample", kind: type) -> "Sample":
    """The sample with its floats as `kind`."""
    if isinstance(sample, np.ndarray):
        return sample.astype(kind)
    floats = [column for column in sample.columns if sample[column].dtype.kind == "f"]
    return sample.astype(dict.fromkeys(floats, kind))


def _graph(estimator: Any, rows: "Sample") -> bytes:  # noqa: ANN401
    from skl2onnx import to_onnx

    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    graph = to_onnx(estimator, rows[:1], options=options)
    data: bytes = graph.SerializeToString()
    return data


def _compare(estimator: Any, model: bytes, sample: "Sample", rows: "Sample") -> Converted | NotConverted:  # noqa: ANN401
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    if isinstance(rows, np.ndarray):
        inputs: dict[str, Array] = {names[0]: rows}
    else:
        inputs = {name: _column(rows[name].to_numpy()) for name in names}
    answers = session.run(None, inputs)
    outputs = {one.name: answer for one, answer in zip(session.get_outputs(), answers, strict=True)}
    expected = estimator.predict(sample) if hasattr(estimator, "predict") else estimator.transform(sample)
    different = _difference(np.asarray(expected), answers[0])
    if not different and hasattr(estimator, "predict_proba") and len(answers) > 1:
        different = _difference(np.asarray(estimator.predict_proba(sample)), answers[1])
    if different:
        return NotConverted(reason=f"the converted model answers differently: {different}")
    return Converted(model=model, inputs=inputs, outputs=outputs)


def _column(values: "Array") -> "Array":
    column = values.reshape(-1, 1)
    return column if column.dtype.kind in "biuf" else column.astype(str).astype(object)


def _difference(expected: "Array", got: "Array") -> str:
    """What differs, in words; empty when nothing does."""
    if expected.size != got.size:
        return f"{got.size} values instead of {expected.size}"
    got = got.reshape(expected.shape)
    if expected.dtype.kind == "f":
        wrong = ~np.isclose(got, expected, rtol=RTOL, atol=ATOL, equal_nan=True)
        return f"{wrong.sum()} of {wrong.size} values" if wrong.any() else ""
    agree = (got.astype(str) == expected.astype(str)).mean()
    return "" if agree >= LABELS_AGREE else f"{1 - agree:.2%} of the labels"
