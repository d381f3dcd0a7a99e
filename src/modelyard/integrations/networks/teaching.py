"""Teach a network rows: gradient descent by Adam, with a part of the rows kept back to know when to end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from modelyard.integrations.networks.graph import Network, as_tensors

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LEAST: Final = 1e-7
_KEPT_BACK: Final = 0.15
_FEWEST_KEPT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """How it is taught. `rates` by weight: those that are not named stay as they are; `masks` hold zeros in place."""

    rates: Mapping[str, float]
    masks: "Mapping[str, Array]" = field(default_factory=dict)
    epochs: int = 30
    batch: int = 64
    dropout: float = 0.0
    mixup: float = 0.0
    penalty: float = 0.0
    patience: int = 5
    is_choice: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Taught:
    """The weights that did best on the rows kept back, and how the loss went there, epoch by epoch; first: before."""

    weights: "dict[str, Array]"
    losses: Sequence[float]


def teach(
    network: Network,
    inputs: "Mapping[str, Array]",
    target: "Array",
    lessons: Lessons,
    *,
    report: Callable[[int, float], None] = lambda *_: None,
) -> Taught:
    """Teach the rows `inputs`; `target` is shares of classes or numbers, [rows, width].

    `report` hears after each epoch its number and its loss on the rows that are kept back.
    """
    course = _Course(network, inputs, target, lessons)
    losses = [course.judged()]
    best = course.numbers()
    for epoch in range(lessons.epochs):
        course.epoch()
        losses.append(course.judged())
        report(epoch + 1, losses[-1])
        if losses[-1] <= min(losses):
            best = course.numbers()
        elif len(losses) - 1 - losses.index(min(losses)) >= lessons.patience:
            break
    return Taught(best, [round(each, 6) for each in losses])


class _Course:
    """The rows, the weights that are taught, and how a step is made."""

    def __init__(self, network: Network, inputs: "Mapping[str, Array]", target: "Array", lessons: Lessons) -> None:
        import numpy as np

        self._network, self._lessons = network, lessons
        self._rows, self._masks = as_tensors(inputs), as_tensors(lessons.masks)
        import torch  # which `as_tensors` has found

        self._right = torch.from_numpy(np.asarray(target, dtype=np.float32))
        torch.manual_seed(lessons.seed)
        count = len(self._right)
        order = torch.randperm(count)
        kept = min(max(_FEWEST_KEPT, round(_KEPT_BACK * count)), count // 2)
        self._back, self._known = order[:kept], order[kept:]
        names = {*lessons.rates, *lessons.masks}
        self._weights = {name: torch.tensor(network.weights[name], dtype=torch.float32) for name in sorted(names)}
        self._hold()
        for name in lessons.rates:
            self._weights[name].requires_grad_()
        groups = [{"params": [self._weights[name]], "lr": rate} for name, rate in lessons.rates.items()]
        self._optimiser = torch.optim.Adam(groups, weight_decay=lessons.penalty)

    def numbers(self) -> "dict[str, Array]":
        """The weights as they are now."""
        return {name: each.detach().clone().numpy() for name, each in self._weights.items()}

    def epoch(self) -> None:
        """Once through the rows."""
        import torch

        for places in self._known[torch.randperm(len(self._known))].split(self._lessons.batch):
            self._optimiser.zero_grad()
            self._loss(places, learn=True).backward()
            self._optimiser.step()
            self._hold()

    def judged(self) -> float:
        """The loss on the rows that are kept back."""
        import torch

        with torch.no_grad():
            return float(self._loss(self._back, learn=False))

    def _loss(self, places: Any, *, learn: bool) -> Any:  # noqa: ANN401  (tensors)
        given, wanted = {name: each[places] for name, each in self._rows.items()}, self._right[places]
        if learn and self._lessons.mixup:
            given, wanted = _mixed(given, wanted, self._lessons.mixup)
        answer = self._network.run(given, self._weights, dropout=self._lessons.dropout if learn else 0.0)
        return _loss(answer.reshape(len(wanted), -1), wanted, is_choice=self._lessons.is_choice)

    def _hold(self) -> None:
        """Zeros stay zeros."""
        import torch

        with torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].mul_(mask)


def layer_rates(network: Network, rate: float, *, frozen: int = 0, decay: float = 1.0) -> dict[str, float]:
    """A rate for each weight: none for the first `frozen` layers, `decay` times less a layer before the last."""
    rates: dict[str, float] = {}
    for place, layer in enumerate(network.layers):
        if place >= frozen:
            here = rate * decay ** (len(network.layers) - 1 - place)
            rates |= {name: here for name in (layer.weight, layer.bias) if name}
    return rates


def _loss(answer: Any, wanted: Any, *, is_choice: bool) -> Any:  # noqa: ANN401
    """Cross entropy of shares, or the mean squared error."""
    if is_choice:
        return -(wanted * answer.clamp(min=_LEAST).log()).sum(dim=1).mean()
    return ((answer - wanted) ** 2).mean()


def _mixed(given: Mapping[str, Any], wanted: Any, strength: float) -> tuple[dict[str, Any], Any]:  # noqa: ANN401
    """Rows mixed with others, and their answers alike (arXiv:1710.09412)."""
    import torch

    partner = torch.randperm(len(wanted))
    share = torch.distributions.Beta(strength, strength).sample((len(wanted),))

    def mix(values: Any) -> Any:  # noqa: ANN401
        part = share.reshape(-1, *[1] * (values.dim() - 1)).to(values.dtype)
        return values * part + values[partner] * (1 - part)

    return {name: mix(values) if values.is_floating_point() else values for name, values in given.items()}, mix(wanted)
