"""python -m benchmarks.training: what each technique of training does on real data, held out alike, as a table.

Sets that ship with scikit-learn; imbalanced ones are cut from them by rule: all rows of one class and the first few of
the other. Each line is trained five times on other splits, and says the mean and the spread of the metric.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from modelyard.domain.job_kinds.recipe import changed, read_recipe, wrong_in
from modelyard.integrations.training.continuing import go_on, with_replay
from modelyard.integrations.training.figures import Answers
from modelyard.integrations.training.fitting import fit
from modelyard.integrations.training.splitting import split
from modelyard.integrations.training.tables import Table, read_table
from modelyard.integrations.training.trials import run_trial

_SEEDS = range(5)
_DIGITS: dict[str, Any] = {
    "target": "target",
    "estimator": "network",
    "parameters": {"hidden_layer_sizes": [64], "max_iter": 100},
    "validation": {"held_out": 0.9},
}
_RARE: dict[str, Any] = {
    "target": "target",
    "estimator": "forest",
    "parameters": {"n_estimators": 100, "max_depth": 3},
    "validation": {"held_out": 0.5},
}
_NUMBERS: dict[str, Any] = {"target": "target", "estimator": "ridge", "validation": {"held_out": 0.3}}
_WIDE: dict[str, Any] = {**_DIGITS, "estimator": "logistic", "parameters": {"C": 1e6, "max_iter": 2000}}
_TRIED: list[tuple[str, str, dict[str, Any], dict[str, dict[str, Any]]]] = [
    (
        "augmentation: digits, 180 rows",
        "digits",
        _DIGITS,
        {
            "noise": {"augment.copies": 4, "augment.noise": 0.1},
            "mixup": {"augment.copies": 4, "augment.mixup": 0.2},
            "shifted by a pixel": {"augment.copies": 4, "augment.image": [8, 8], "augment.shift": 1},
            "a square blanked": {"augment.copies": 4, "augment.image": [8, 8], "augment.erase": 0.25},
        },
    ),
    *(
        (
            "rare class: breast cancer, 357 and 20",
            "rare",
            {**_RARE, "metric": metric},
            {
                **{each: {"imbalance.method": each} for each in ("weights", "oversample", "undersample", "smote")},
                "threshold": {"imbalance.threshold": metric},
            },
        )
        for metric in ("balanced_accuracy", "f1")
    ),
    (
        "regularisation: digits, 180 rows, linear",
        "digits",
        _WIDE,
        {"penalty 1": {"parameters.C": 1.0}, "penalty 100": {"parameters.C": 0.01}},
    ),
    (
        "features: diabetes",
        "diabetes",
        _NUMBERS,
        {
            "products of columns": {
                "features": [{"columns": "numbers", "steps": [{"polynomial": {"degree": 2}}, "scale"]}],
                "parameters.alpha": 30.0,
            },
            "tenths": {
                "features": [{"columns": "numbers", "steps": [{"bins": {"n_bins": 10}}]}],
                "parameters.alpha": 30.0,
            },
            "the best five": {"then": [{"select": {"k": 5}}]},
        },
    ),
]


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = _tables(Path(place))
        print("| data | technique | metric | without | with | won |")
        print("|---|---|---|---|---|---|")
        for name, data, recipe, techniques in _TRIED:
            before = _values(recipe, tables[data])
            for technique, change in techniques.items():
                after = _values(changed(recipe, change), tables[data])
                metric = recipe.get("metric") or ("r2" if data == "diabetes" else "accuracy")
                won = sum(new > old for new, old in zip(after, before, strict=True))
                print(
                    f"| {name} | {technique} | {metric} | {_said(before)} | {_said(after)} | {won} of 5 |", flush=True
                )
        _going_on(tables["digits"])


def _values(document: dict[str, Any], table: Table) -> list[float]:
    assert not wrong_in(document), wrong_in(document)
    recipe = read_recipe(document)
    found = []
    for seed in _SEEDS:
        trial = run_trial(recipe, table, seed, report=lambda *_: None)
        found.append(Answers(trial.model, trial.held, trial.task).figures()[trial.metric])
    return found


def _going_on(table: Table) -> None:
    """A network that knows five digits is taught the others' rows as well, with earlier rows again and without."""
    recipe = read_recipe({**_DIGITS, "validation": {"held_out": 0.3}})
    print("\n| going on: digits, first 0 to 4, then 5 to 9 | earlier rows | new rows |\n|---|---|---|")
    lines: dict[str, list[tuple[float, float]]] = {}
    for seed in _SEEDS:
        known, held = split(table, 0.3, seed, is_choice=True)
        few = known.picked(np.flatnonzero((known.target < 5) | (np.arange(len(known)) % 20 == 0)))
        later, earlier = (known.picked(np.flatnonzero(each)) for each in (known.target >= 5, known.target < 5))
        for name, replay in (
            ("before", None),
            ("no replay", 0.0),
            ("replay of half as many", 0.5),
            ("of as many", 1.0),
        ):
            model = fit(recipe, few, "classification", seed).model
            if replay is not None:
                rows, _ = with_replay(later, earlier, replay, seed)
                go_on(model, "network", rows, rounds=20, seed=seed)
            chosen = model.predict(held.features())
            right = chosen == held.target
            lines.setdefault(name, []).append(
                (float(right[held.target < 5].mean()), float(right[held.target >= 5].mean()))
            )
    for name, values in lines.items():
        old, new = (list(each) for each in zip(*values, strict=True))
        print(f"| {name} | {_said(old)} | {_said(new)} |")


def _said(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _tables(place: Path) -> dict[str, Table]:
    digits = load_digits()
    np.savez(place / "digits.npz", rows=digits.data.astype("f4"), target=digits.target)
    cancer: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    rare = np.r_[np.flatnonzero(cancer.target == 1), np.flatnonzero(cancer.target == 0)[:20]]
    cancer.iloc[rare].to_csv(place / "rare.csv", index=False)
    load_diabetes(as_frame=True).frame.to_csv(place / "diabetes.csv", index=False)
    files = {"digits": "digits.npz", "rare": "rare.csv", "diabetes": "diabetes.csv"}
    return {name: read_table(place / file, "target") for name, file in files.items()}


if __name__ == "__main__":
    main()
