"""What the probe asks a package: does it load, are its answers finite and of the contract, may rows travel together?"""

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import Golden, LabelSource, ModelContract, ServingPackage
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ProbeFailed, WeightsFormat, WeightsUnsafe, WeightsValues
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec
from modelyard.inspection.children.facts import Array
from modelyard.inspection.children.packaging import timed
from modelyard.inspection.children.program import Channel
from modelyard.inspection.children.session import Session
from modelyard.inspection.children.v2_values import FROM_NUMPY, document, tensor

RTOL: Final = 1e-4
ATOL: Final = 1e-6
MAX_GOLDEN_ELEMENTS: Final = 262_144
MAX_PROVED: Final = 64
_SINGLES: Final = 16

Ask = Callable[[Mapping[str, Array]], dict[str, Array]]


class Probe:
    """One package under question."""

    def __init__(self, directory: Path, package: ServingPackage, channel: Channel) -> None:
        self._directory = directory
        self._package = package
        self._channel = channel

    def run(self, rows: Mapping[str, Array], *, source: str) -> tuple[ModelContract, Golden | None]:
        """Everything in order; the contract with what was proved, and the golden answer."""
        ask = self._load()
        contract = self._answer(ask, rows, source)
        contract = self._batch(ask, rows, contract)
        return contract, self._golden(ask, rows, contract)

    def _load(self) -> Ask:
        with timed(self._channel, "probe.load") as found:
            try:
                ask = open_package(self._directory, self._package)
            except MemoryError:
                raise
            except Exception as error:
                raise _load_refusal(error) from error
            found.summary = f"loaded by {self._package.runtime}"
            found.evidence = {"memory_peak_bytes": _peak_bytes()}
        return ask

    def _answer(self, ask: Ask, rows: Mapping[str, Array], source: str) -> ModelContract:
        """All rows at once: finite answers, with the shapes and datatypes of the contract."""
        with timed(self._channel, "probe.answers") as found:
            contract = self._package.contract
            count = _rows(rows, contract)
            first = rows if contract.max_batch_size == 0 else _part(rows, slice(0, 1))
            answers = ask(first)
            _require_finite(answers)
            contract = _with_outputs(contract, answers)
            found.summary = f"finite answers of the contract's shapes to {source} rows"
            found.evidence = {
                "rows": count,
                "source": source,
                "outputs": {name: list(value.shape) for name, value in answers.items()},
            }
            return contract

    def _batch(self, ask: Ask, rows: Mapping[str, Array], contract: ModelContract) -> ModelContract:
        """A batch of n must answer like n single rows; then n rows may travel together, else one."""
        if contract.max_batch_size == 0:
            return contract
        with timed(self._channel, "probe.batching") as found:
            count = min(_rows(rows, contract), MAX_PROVED)
            fixed = any(item.shape[0] != VARIABLE for item in contract.inputs)
            trouble = "the batch axis is fixed at 1" if fixed else _difference(ask, rows, count)
            found.evidence = {"rows": count}
            if trouble or count < 2:  # noqa: PLR2004  (two rows make a batch)
                found.outcome = Outcome.WARNING
                found.summary = f"rows are run one by one: {trouble or 'there is only one row to try'}"
                found.hint = "export the model with a dynamic first axis that does not mix rows"
                return replace(contract, max_batch_size=1)
            found.summary = f"a batch of {count} answers like {count} single rows"
            return replace(contract, max_batch_size=count)

    def _golden(self, ask: Ask, rows: Mapping[str, Array], contract: ModelContract) -> Golden | None:
        with timed(self._channel, "probe.golden") as found:
            one = rows if contract.max_batch_size == 0 else _part(rows, _finite_row(rows))
            if sum(array.size for array in one.values()) > MAX_GOLDEN_ELEMENTS:
                found.outcome, found.summary = Outcome.SKIPPED, "one row is too large to keep as an example"
                return None
            began = time.perf_counter()
            answers = ask(one)
            took_ms = (time.perf_counter() - began) * 1000
            _require_finite(answers)
            outputs = public_outputs(contract, answers)
            found.summary = f"one row answered in {took_ms:.2f} ms"
            found.evidence = {"duration_ms": round(took_ms, 3), "memory_peak_bytes": _peak_bytes()}
            return Golden(request={"inputs": document(one, contract.inputs)}, outputs=tuple(outputs))


def open_package(directory: Path, package: ServingPackage) -> Ask:
    """A function that asks the package's model."""
    if package.runtime == "sklearn_original":
        from modelyard.inspection.children.original import open_original

        return open_original(directory, package).ask
    if package.runtime == "openvino":
        from modelyard.inspection.children.openvino_session import OpenVinoSession

        return OpenVinoSession(directory / package.entry, package.contract).run
    if package.runtime == "torch_export":
        from modelyard.inspection.children.torch_export_session import TorchExportSession

        return TorchExportSession(directory / package.entry, package.contract).run
    return Session(directory / package.entry).run


def public_outputs(contract: ModelContract, answers: Mapping[str, Array]) -> list[dict[str, Any]]:
    """The contract's outputs as V2 tensors, the label output among them."""
    made = dict(answers)
    labelling = contract.labelling
    if labelling is not None:
        source = np.asarray(answers[labelling.source])
        chosen = source.argmax(axis=-1) if labelling.rule is LabelSource.ARGMAX else source
        positions = chosen.ravel().astype(int)
        if positions.size and not 0 <= positions.min() <= positions.max() < len(contract.labels):
            raise ProbeFailed(
                f"the model answered class {int(positions.max())}, but there are {len(contract.labels)} labels",
                hint="give one label for each class index",
            )
        made[labelling.output] = np.array([contract.labels[index].encode() for index in positions], dtype=object)
    return [tensor(item.name, made[item.name], item.datatype) for item in contract.outputs]


def _rows(rows: Mapping[str, Array], contract: ModelContract) -> int:
    return 1 if contract.max_batch_size == 0 else len(next(iter(rows.values())))


def _part(rows: Mapping[str, Array], which: slice) -> dict[str, Array]:
    return {name: array[which] for name, array in rows.items()}


def _finite_row(rows: Mapping[str, Array]) -> slice:
    """The first row without missing values: an example that JSON can carry."""
    count = len(next(iter(rows.values())))
    whole = np.ones(count, dtype=bool)
    for array in rows.values():
        if array.dtype.kind == "f":
            whole &= np.isfinite(array.reshape(count, -1)).all(axis=1)
    index = int(whole.argmax())
    return slice(index, index + 1)


def _require_finite(answers: Mapping[str, Array]) -> None:
    for name, answer in answers.items():
        if answer.dtype.kind == "f" and not np.isfinite(answer).all():
            raise WeightsValues(
                f"the output {quote(name)} holds NaN or infinity for an ordinary row",
                hint="look for NaN in the weights, or add a sample of rows that the model was made for",
            )


def _with_outputs(contract: ModelContract, answers: Mapping[str, Array]) -> ModelContract:
    """Outputs as they came, where the graph left its shapes open; `ProbeFailed` where they contradict the contract."""
    label = contract.labelling.output if contract.labelling else None
    outputs = []
    for item in contract.outputs:
        if item.name == label:
            outputs.append(item)
            continue
        answer = answers[item.name]
        kind = FROM_NUMPY.get(answer.dtype, DataType.BYTES)
        if kind is not item.datatype:
            raise ProbeFailed(f"the output {quote(item.name)} is {kind.value}, the graph says {item.datatype.value}")
        outputs.append(replace(item, shape=_seen_shape(item, answer, contract)))
    return replace(contract, outputs=tuple(outputs))


def _seen_shape(item: TensorSpec, answer: Array, contract: ModelContract) -> tuple[int, ...]:
    if len(item.shape) != answer.ndim:
        if item.shape != (VARIABLE,):
            raise ProbeFailed(
                f"the output {quote(item.name)} has shape {list(answer.shape)}, the graph says {list(item.shape)}"
            )
        first = answer.shape[:1] if contract.max_batch_size == 0 else (VARIABLE,)
        return (*first, *(VARIABLE for _ in answer.shape[1:])) if answer.ndim else ()
    for said, seen in zip(item.shape, answer.shape, strict=True):
        if said not in {VARIABLE, seen}:
            raise ProbeFailed(
                f"the output {quote(item.name)} has shape {list(answer.shape)}, the graph says {list(item.shape)}"
            )
    return item.shape


def _difference(ask: Ask, rows: Mapping[str, Array], count: int) -> str:
    """Why a batch is not its rows; empty when it is."""
    try:
        together = ask(_part(rows, slice(0, count)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (a runtime refuses a batch with errors of its own)
        return f"a batch of {count} fails ({type(error).__name__})"
    _require_finite(together)
    places = np.unique(np.linspace(0, count - 1, min(count, _SINGLES)).astype(int))
    for row in places:
        alone = ask(_part(rows, slice(row, row + 1)))
        for name, answer in together.items():
            if answer.shape[:1] != (count,) or alone[name].shape[:1] != (1,):
                return f"the output {quote(name)} has no axis of rows"
            if not _same(answer[row], alone[name][0]):
                return f"the output {quote(name)} of row {row} depends on the rows beside it"
    return ""


def _same(together: Any, alone: Any) -> bool:  # noqa: ANN401  (an array or one of its elements)
    first, second = np.asarray(together), np.asarray(alone)
    if first.shape != second.shape:
        return False
    if first.dtype.kind == "f":
        return bool(np.allclose(first, second, rtol=RTOL, atol=ATOL, equal_nan=True))
    return bool((first == second).all())


def _load_refusal(error: Exception) -> Exception:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if any(word in lowered for word in ("bad_alloc", "failed to allocate", "bad allocation")):
        return MemoryError(text)
    if "is not a registered function/op" in lowered or "no op registered" in lowered or "custom op" in lowered:
        return WeightsUnsafe(
            f"the graph needs an operator that the runtime does not bring: {quote(text, limit=200)}",
            hint="export it with standard ONNX operators",
        )
    if "opset" in lowered or "ir version" in lowered:
        return WeightsFormat(
            f"the graph is of a version that the runtime does not know: {quote(text, limit=200)}",
            hint="export it with opset_version=21",
        )
    return WeightsFormat(
        f"the runtime cannot load the model: {quote(text, limit=240)}",
        hint="check it with onnx.checker, then export it again",
    )


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
