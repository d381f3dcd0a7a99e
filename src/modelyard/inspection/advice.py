"""What an accepted model lacks: not a fault, but something that its users would be glad of.

Pure: looks at the finished package and at what the bundle held, and says what to add and what it would bring.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from modelyard.domain.contract import ModelContract, Task
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inspection.kinds import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to add. `name` is the check under which it is shown."""

    name: str
    summary: str
    hint: str


def advise(contract: ModelContract, roles: Collection[Role]) -> Iterator[Advice]:
    """What would make this model easier to use, the most useful first."""
    wide = next((spec for spec in contract.outputs if _is_scores(spec)), None)
    if not contract.labels and wide is not None and contract.task in (Task.CLASSIFICATION, Task.OTHER):
        yield Advice(
            name="advice.labels",
            summary=f"answers are numbers: nothing says what the {wide.shape[-1]} places of '{wide.name}' mean",
            hint="add labels.json (class index to label), or --labels FILE, and answers carry the label's name",
        )
    if Role.SAMPLE not in roles:
        yield Advice(
            name="advice.sample",
            summary="no sample of real rows: answers were tried on rows made up from the model",
            hint="add sample.csv with some real rows; the audit and the working example then use them",
        )


def _is_scores(spec: TensorSpec) -> bool:
    """Whether an output looks like one score a class."""
    return spec.datatype in (DataType.FP32, DataType.FP64) and len(spec.shape) == 2 and spec.shape[-1] > 1  # noqa: PLR2004
