"""What an accepted model is said to lack."""

import pytest

from modelyard.domain.contract import ModelContract, Task
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inspection.advice import advise
from modelyard.inspection.kinds import Role

X = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 4))
SCORES = TensorSpec(name="scores", datatype=DataType.FP32, shape=(-1, 3))
VALUE = TensorSpec(name="value", datatype=DataType.FP32, shape=(-1, 1))


def names(contract: ModelContract, *roles: Role) -> list[str]:
    return [advice.name for advice in advise(contract, roles)]


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.OTHER])
def test_scores_without_labels_ask_for_a_label_map(task: Task) -> None:
    contract = ModelContract(inputs=(X,), outputs=(SCORES,), task=task)
    assert names(contract, Role.SAMPLE) == ["advice.labels"]


def test_nothing_is_asked_of_a_model_that_has_it_all() -> None:
    contract = ModelContract(inputs=(X,), outputs=(SCORES,), task=Task.CLASSIFICATION, labels=("a", "b", "c"))
    assert names(contract, Role.SAMPLE) == []


def test_a_regressor_is_not_asked_for_labels_but_for_a_sample() -> None:
    contract = ModelContract(inputs=(X,), outputs=(VALUE,), task=Task.REGRESSION)
    assert names(contract) == ["advice.sample"]
