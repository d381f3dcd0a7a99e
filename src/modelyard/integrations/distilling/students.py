"""Students: small scikit-learn models fitted to what a teacher answers, as a body that `graphs` writes as ONNX.

All learn several numbers a row by squared error: shares of classes, or numbers brought to one spread.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_EPOCHS: Final = 80
_BATCH: Final = 128


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of a network: `relu(x @ weight + bias)`, the last without `relu`."""

    weights: "tuple[tuple[Array, Array], ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree by columns, one entry a node: `left` is taken where the value is at most `limit`; below 0: a leaf.

    `value` has a row a node; its numbers count from `output` on.
    """

    feature: "Array"
    limit: "Array"
    left: "Array"
    right: "Array"
    value: "Array"
    output: int = 0


@dataclass(frozen=True, slots=True)
class Trees:
    """Trees whose answers add up, from `base` on."""

    trees: tuple[Tree, ...]
    base: "Array"


Body = Layers | Trees
Fit = Callable[["Array", "Array", int], Body]


def linear(rows: "Array", answers: "Array", seed: int) -> Body:
    """Ridge regression."""
    from sklearn.linear_model import Ridge

    del seed
    means, spreads = _scale(rows)
    model = Ridge(alpha=1.0).fit((rows - means) / spreads, answers)
    return _folded([(model.coef_.reshape(answers.shape[1], -1).T, model.intercept_)], means, spreads)


def network(hidden: Sequence[int]) -> Fit:
    """A network with these hidden layers."""

    def fit(rows: "Array", answers: "Array", seed: int) -> Body:
        from sklearn.neural_network import MLPRegressor

        means, spreads = _scale(rows)
        model = MLPRegressor(
            hidden_layer_sizes=tuple(hidden),
            alpha=1e-6,
            batch_size=min(_BATCH, len(rows)),
            max_iter=_EPOCHS,
            early_stopping=True,
            n_iter_no_change=8,
            tol=1e-6,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says so when the epochs are over; the judge decides
            model.fit((rows - means) / spreads, answers if answers.shape[1] > 1 else answers[:, 0])
        return _folded(list(zip(model.coefs_, model.intercepts_, strict=True)), means, spreads)

    return fit


def tree(rows: "Array", answers: "Array", seed: int) -> Body:
    """One tree."""
    return forest(1)(rows, answers, seed)


def forest(count: int) -> Fit:
    """A forest of so many trees; one tree learns from all rows."""

    def fit(rows: "Array", answers: "Array", seed: int) -> Body:
        import numpy as np
        from sklearn.ensemble import RandomForestRegressor

        model = RandomForestRegressor(
            count, bootstrap=count > 1, max_features=None if count == 1 else 0.5, random_state=seed
        )
        model.fit(rows, answers if answers.shape[1] > 1 else answers[:, 0])
        made = []
        for each in model.estimators_:
            nodes = each.tree_
            value = nodes.value.reshape(nodes.node_count, -1) / count
            made.append(
                Tree(
                    feature=nodes.feature,
                    limit=nodes.threshold,
                    left=nodes.children_left,
                    right=nodes.children_right,
                    value=value,
                )
            )
        return Trees(tuple(made), np.zeros(answers.shape[1]))

    return fit


def boosted(rounds: int) -> Fit:
    """Boosted trees of so many rounds, a model for each number."""

    def fit(rows: "Array", answers: "Array", seed: int) -> Body:
        import numpy as np
        from sklearn.ensemble import HistGradientBoostingRegressor

        made, base = [], []
        for output in range(answers.shape[1]):
            model = HistGradientBoostingRegressor(max_iter=rounds, learning_rate=0.15, random_state=seed)
            model.fit(rows, answers[:, output])
            base.append(float(np.asarray(model._baseline_prediction).reshape(-1)[0]))  # noqa: SLF001  (no public way)
            for [predictor] in model._predictors:  # noqa: SLF001
                nodes = predictor.nodes
                is_leaf = nodes["is_leaf"].astype(bool)
                made.append(
                    Tree(
                        feature=nodes["feature_idx"],
                        limit=nodes["num_threshold"],
                        left=np.where(is_leaf, -1, nodes["left"].astype(int)),
                        right=np.where(is_leaf, -1, nodes["right"].astype(int)),
                        value=nodes["value"][:, None],
                        output=output,
                    )
                )
        return Trees(tuple(made), np.asarray(base))

    return fit


FITS: Final[dict[str, tuple[tuple[str, Fit], ...]]] = {
    "linear": (("linear", linear),),
    "tree": (("one tree", tree),),
    "forest": (("forest of 10", forest(10)), ("forest of 30", forest(30))),
    "boosted": (("boosted, 50 rounds", boosted(50)), ("boosted, 200 rounds", boosted(200))),
    "network": (
        ("network of 32", network((32,))),
        ("network of 128 and 64", network((128, 64))),
        ("network of 256 and 128", network((256, 128))),
    ),
}
"""What is tried for each student, smallest first."""


def _scale(rows: "Array") -> "tuple[Array, Array]":
    spreads = rows.std(axis=0)
    spreads[spreads == 0] = 1.0
    return rows.mean(axis=0), spreads


def _folded(layers: "list[tuple[Array, Array]]", means: "Array", spreads: "Array") -> Layers:
    """The layers for rows as they are: the first takes over the scaling."""
    weight, bias = layers[0]
    first = weight / spreads[:, None]
    return Layers(((first, bias - means @ first), *layers[1:]))
