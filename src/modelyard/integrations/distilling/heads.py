"""What a student has to give so that it can stand in for its teacher: one output, by the teacher's name and shape."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.contract import Labelling, LabelSource, ModelContract
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.tensors import DataType, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_TABLE: Final = 2
_SUM_ERROR: Final = 1e-3


class HeadKind(StrEnum):
    """What the output says: shares that add up to one, numbers, or the position of a label."""

    SHARES = "shares"
    NUMBERS = "numbers"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The student's output; `width` is how many numbers a row of what it learns has."""

    kind: HeadKind
    output: TensorSpec
    width: int

    def contract(self, teacher: ModelContract) -> ModelContract:
        """The teacher's contract, with labels read from this output."""
        if teacher.labelling is None:
            return teacher
        rule = LabelSource.INDEX if self.kind is HeadKind.LABEL else LabelSource.ARGMAX
        labelling = Labelling(source=self.output.name, rule=rule, output=teacher.labelling.output)
        return replace(teacher, labelling=labelling)


def head_of(contract: ModelContract) -> Head:
    """The head that a student of this contract needs; whether scores are shares, their values say (`settled`).

    Raises:
        NotSupported: text or inputs of no fixed width go in, or more than one output comes out.
    """
    for spec in contract.inputs:
        if spec.datatype in (DataType.BYTES, DataType.BF16) or any(size < 0 for size in spec.shape[1:]):
            raise NotSupported(
                f"a student takes numbers in rows of a fixed width, and {spec.name} is {spec.datatype.value}"
                f" {list(spec.shape)}"
            )
        if not spec.shape or spec.shape[0] >= 0:
            raise NotSupported(f"a student takes rows, and {spec.name} has the shape {list(spec.shape)}")
    label = contract.labelling.output if contract.labelling is not None else None
    rest = [spec for spec in contract.outputs if spec.name != label]
    if label is not None and not rest:
        spec = TensorSpec(name=label, datatype=DataType.INT64, shape=(-1,))
        return Head(kind=HeadKind.LABEL, output=spec, width=len(contract.labels))
    if len(rest) != 1:
        names = ", ".join(spec.name for spec in rest)
        raise NotSupported(
            f"a student gives one output, and this model gives {len(rest)}: {names}", hint="compress may help"
        )
    [spec] = rest
    wide = spec.shape[1] if len(spec.shape) == _TABLE else 1
    if not spec.datatype.is_float or len(spec.shape) not in (1, _TABLE) or wide < 1:
        raise NotSupported(
            f"a student gives numbers in rows of a fixed width, and {spec.name} is {spec.datatype.value}"
            f" {list(spec.shape)}",
            hint="give the model labels, so that its answers are known to be classes",
        )
    if label is not None and wide != len(contract.labels):
        raise NotSupported(f"{spec.name} has {wide} numbers a row, and there are {len(contract.labels)} labels")
    return Head(kind=HeadKind.NUMBERS, output=spec, width=wide)


def settled(head: Head, answers: "Array") -> Head:
    """The head, of shares where every row of several answers adds up to one."""
    if head.kind is not HeadKind.NUMBERS or head.width < _TABLE:
        return head
    shares = bool((answers >= -_SUM_ERROR).all() and (abs(answers.sum(axis=1) - 1) < _SUM_ERROR).all())
    return replace(head, kind=HeadKind.SHARES) if shares else head
