"""Pickle and joblib files, walked opcode by opcode and never loaded: which names do they use?

The walk follows the stack and the memo with values that stand for what loading would make, so that a name is known also
where it is put together from parts. Every name must be in `pickle_types`; whatever the walk cannot follow is refused.
joblib writes an array's bytes after the object that describes it (`NumpyArrayWrapper`), outside the pickle: the walk
computes their number from that description and goes on behind them, as joblib's reader does.

What passes is still opened only in the limited convert child, by an unpickler that asks the same table.
"""

from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets
from modelyard.inspection.pickle_types import MODEL_ROOTS
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.pickle_machine import Machine
from modelyard.inspection.weights.pickle_values import Global, Made

_SHOWN: Final = 8
_HINT: Final = (
    "save it with skops, or export it to ONNX (`modelyard pack` does it in your own environment); "
    "own classes and functions cannot come along in a pickle"
)


@dataclass(frozen=True, slots=True)
class PickleFacts:
    """What a pickle names, the type at its top, and how many opcodes were followed."""

    names: tuple[str, ...]
    top: str
    opcodes: int
    arrays: int


def read_pickle(data: Octets, policy: InspectionPolicy) -> PickleFacts:
    """Follow the whole file.

    Raises:
        WeightsUnsafe: it names something outside the table (also when it is damaged after that), uses persistent ids or
            the extension registry, or holds a bare class instead of a model.
        WeightsFormat: damaged, cut short, bytes after its end, or no model at its top.
    """
    machine = Machine(data, max_opcodes=policy.pickle_opcodes)
    try:
        top = machine.run()
        if machine.pos != len(data):
            raise WeightsFormat(f"{len(data) - machine.pos} bytes follow the end of the pickle")  # noqa: TRY301
    except WeightsFormat:
        _require_known(machine)
        raise
    _require_known(machine)
    return PickleFacts(tuple(sorted(machine.names)), _require_model(top), machine.opcodes, machine.arrays)


def _require_known(machine: Machine) -> None:
    if machine.foreign:
        names = ", ".join(quote(name) for name in sorted(machine.foreign)[:_SHOWN])
        raise WeightsUnsafe(
            f"the pickle names {names}, which can run code or is not known here",
            hint=_HINT,
            details=[{"field": quote(name)} for name in sorted(machine.foreign)[:_SHOWN]],
        )


def _require_model(top: object) -> str:
    """The full name of the type at the top, which must be a model's."""
    if isinstance(top, Global):
        raise WeightsUnsafe(f"the pickle holds the bare name {quote(top)}, not a model", hint=_HINT)
    kind = top.type if isinstance(top, Made) else None
    if kind is None or kind.module.partition(".")[0] not in MODEL_ROOTS:
        raise WeightsFormat(
            f"the pickle holds {quote(kind or 'plain data')}, not a model",
            hint="save the fitted estimator or pipeline itself: joblib.dump(model, 'model.joblib')",
        )
    return str(kind)
