"""Pruning as methods of `compress`: as much is taken as is allowed, and what is left is taught again each time."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.job_kinds.compress import MAGNITUDE, UNITS
from modelyard.foundation.samples import Sample
from modelyard.integrations.distilling.heads import Head, HeadKind, head_of, settled
from modelyard.integrations.distilling.lessons import matrix, picked, split
from modelyard.integrations.judging import Drop, Judge, Model
from modelyard.integrations.networks.graph import Network
from modelyard.integrations.networks.pruning import smallest, without_units
from modelyard.integrations.networks.targets import numbers_of, shares_of
from modelyard.integrations.networks.teaching import Lessons, layer_rates, teach
from modelyard.ports.job_runner import JobContext

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PARTS: Final[Mapping[str, tuple[float, ...]]] = {
    MAGNITUDE: (0.95, 0.9, 0.8, 0.7, 0.5, 0.3),
    UNITS: (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
}
"""What is tried, most first."""
_HELD: Final = 0.4
_RATE, _EPOCHS = 1e-3, 40


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was taken. `held` are the rows that it was judged by, which nothing was taught."""

    drop: Drop
    held: Sample
    details: Mapping[str, Any]


def prune(  # noqa: PLR0913  (what pruning is made of)
    job: JobContext, method: str, source: Path, made: Path, *, contract: ModelContract, sample: Sample, most: float
) -> Pruned:
    """Write the network `source` to `made` with as much taken away as costs at most `most` points.

    Raises:
        NotSupported: it is no network that can be pruned so, or the least that is tried costs more.
        MissingExtra: PyTorch is not installed.
    """
    known, places = split(matrix(sample, contract.inputs), _HELD, job.seed)
    given, held = picked(sample, known), picked(sample, places)
    head = _head(contract)
    target, is_choice = _target(source, head, given, contract)
    judge = Judge(contract, source, held)
    parts = _PARTS[method]
    drop: Drop | None = None
    for number, part in enumerate(parts):
        job.report(done=0.1 + 0.65 * number / len(parts), text=f"without {part:.0%} of the {_WHAT[method]}")
        network = Network(source, head.output.name)
        masks = smallest(network, part) if method == MAGNITUDE else {}
        if method == UNITS:
            network.weights = without_units(network, part)
        lessons = Lessons(
            rates=layer_rates(network, _RATE), masks=masks, epochs=_EPOCHS, is_choice=is_choice, seed=job.seed
        )
        taught = teach(network, given.inputs, target, lessons)
        network.write(made, {**network.weights, **taught.weights})
        drop = judge.drop(made)
        if drop.points <= most:
            return Pruned(drop, held, _details(network, part, taught.losses, source, made, learned=len(known)))
    assert drop is not None
    raise NotSupported(
        f"{method} loses {drop.points:g} points of {drop.measure} on {drop.rows} held-out rows with {parts[-1]:.0%} of"
        f" the {_WHAT[method]} gone, and {most:g} are allowed",
        hint="allow more with max_drop, give a larger sample, or take another method",
    )


_WHAT: Final = {MAGNITUDE: "weights", UNITS: "hidden units"}


def _head(contract: ModelContract) -> Head:
    head = head_of(contract)
    if head.kind is HeadKind.LABEL:
        raise NotSupported(
            "this model gives labels and no numbers, so a pruned one cannot be taught", hint="int8 may help"
        )
    return head


def _target(source: Path, head: Head, given: Sample, contract: ModelContract) -> "tuple[Array, bool]":
    """What the rest is taught: what is right, where that is known, else what the whole network answers."""
    answers = Model(source).answers(given, lambda outputs: outputs[head.output.name].reshape(-1, head.width))
    is_choice = settled(head, answers.astype(float)).kind is HeadKind.SHARES
    if given.target is None:
        return answers, is_choice
    right = shares_of(given.target, contract.labels) if is_choice else numbers_of(given.target, head.width)
    return (right + answers) / 2 if is_choice else right, is_choice


def _details(
    network: Network,
    part: float,
    losses: Sequence[float],
    source: Path,
    made: Path,
    *,
    learned: int,
) -> dict[str, Any]:
    packed = [len(zlib.compress(path.read_bytes(), 6)) for path in (source, made)]
    return {
        "part": part,
        "weights": sum(network.weights[layer.weight].size for layer in network.layers),
        "packed": {
            "before_bytes": packed[0],
            "after_bytes": packed[1],
            "ratio": round(packed[1] / packed[0], 4),
        },
        "losses": list(losses),
        "rows_learned": learned,
    }
