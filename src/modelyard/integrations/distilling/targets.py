"""What students learn: shares of classes, softened, or numbers brought to one spread; and the way back."""

from typing import TYPE_CHECKING, Any

from modelyard.integrations.distilling.heads import Head, HeadKind
from modelyard.integrations.distilling.students import Body, Layers, Tree, Trees

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Targets:
    """`values` is what is learned, [rows, width]; `temperature` is what the graph has to take back."""

    def __init__(self, head: Head, answers: "Array", temperature: float) -> None:
        import numpy as np

        self.temperature = temperature if head.kind is HeadKind.SHARES else 1.0
        self._shift, self._factor = np.zeros(head.width), np.ones(head.width)
        if head.kind is HeadKind.NUMBERS:
            self._shift, self._factor = answers.mean(axis=0), answers.std(axis=0)
            self._factor[self._factor == 0] = 1.0
            self.values = (answers - self._shift) / self._factor
        elif self.temperature != 1:
            soft = np.clip(answers, 0, 1) ** (1 / self.temperature)
            self.values = soft / soft.sum(axis=1, keepdims=True)
        else:
            self.values = answers

    def restored(self, body: Body) -> Body:
        """The body with answers in their own spread."""
        if isinstance(body, Layers):
            weight, bias = body.weights[-1]
            return Layers((*body.weights[:-1], (weight * self._factor, bias * self._factor + self._shift)))
        trees = []
        for each in body.trees:
            width = each.value.shape[1]
            value = each.value * self._factor[each.output : each.output + width]
            trees.append(
                Tree(
                    feature=each.feature,
                    limit=each.limit,
                    left=each.left,
                    right=each.right,
                    value=value,
                    output=each.output,
                )
            )
        return Trees(tuple(trees), body.base * self._factor + self._shift)
