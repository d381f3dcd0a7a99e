"""A recipe: how a model is trained, as a plain document that can be kept, compared and searched over.

It says what is predicted, how columns become features, what learns, and what is done about rare classes, few
rows and overfitting. `wrong_in` finds mistakes before anything runs; paths such as `parameters.max_depth` name what
a search may change.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.domain.errors.base import Detail, quote
from modelyard.domain.job_kinds.estimators import CLASSIFICATION, ESTIMATORS, NUMBERS, REGRESSION, STEPS, TEXTS
from modelyard.domain.job_kinds.fields import Choice, Flag, Items, Number, Parameter, Text

AUTO: Final = "auto"
NONE: Final = "none"
RESAMPLING: Final = ("oversample", "undersample", "smote")
CLASSIFICATION_METRICS: Final = (
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "f1",
    "average_precision",
    "roc_auc",
    "log_loss",
)
REGRESSION_METRICS: Final = ("r2", "mean_absolute_error", "root_mean_squared_error")
LOWER_IS_BETTER: Final = frozenset({"log_loss", "mean_absolute_error", "root_mean_squared_error"})
BINARY_METRICS: Final = frozenset({"f1", "average_precision"})
_MOST_GROUPS, _MOST_STEPS = 50, 20
_PART: Final = "parameters.recipe"

IMBALANCE: Final[Mapping[str, Parameter]] = {
    "method": Choice(
        text="Weights by class, or rows repeated, left out or made up until classes are even.",
        choices=(NONE, "weights", *RESAMPLING),
        default=NONE,
    ),
    "threshold": Choice(
        text="Of two classes, choose the rarer from the probability on that does best by this measure on folds.",
        choices=(NONE, "f1", "balanced_accuracy"),
        default=NONE,
    ),
}
AUGMENT: Final[Mapping[str, Parameter]] = {
    "copies": Number(text="Changed copies of each row to learn from.", low=0, high=20, whole=True, default=0),
    "noise": Number(text="Noise on numbers, in parts of a column's spread.", low=0, high=2, default=0.0),
    "swap": Number(text="The part of values taken from a row of the same class.", low=0, high=1, default=0.0),
    "mixup": Number(text="How far copies are mixed with another row, its answer too.", low=0, high=1, default=0.0),
    "image": Items(
        text="Height and width, of rows that are images; further channels are last.",
        each=Number(text="Pixels.", low=1, high=4096, whole=True),
        most=3,
    ),
    "shift": Number(text="Pixels that copies of images are moved by at most.", low=0, high=512, whole=True, default=0),
    "flip": Flag(text="Mirror half of the copies of images.", default=False),
    "erase": Number(text="The side of a square that is blanked, in parts of an image's.", low=0, high=0.9, default=0.0),
    "drop_words": Number(text="The part of the words left out in copies of texts.", low=0, high=0.9, default=0.0),
}
VALIDATION: Final[Mapping[str, Parameter]] = {
    "held_out": Number(
        text="The part of the rows kept back to judge by, never learned from.", low=0.05, high=0.9, default=0.25
    ),
    "folds": Number(
        text="Folds of the others that are tried besides, for the spread.", low=0, high=20, whole=True, default=0
    ),
}
_TOP: Final[Mapping[str, Parameter]] = {
    "target": Text(text="The column that is to be predicted.", required=True, longest=200),
    "task": Choice(text="What it is.", choices=(AUTO, CLASSIFICATION, REGRESSION), default=AUTO),
    "estimator": Choice(text="What learns.", choices=tuple(ESTIMATORS), required=True),
    "metric": Choice(
        text="What is to be best; without it, accuracy or r2.", choices=(*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
    ),
}
_TABLES: Final[Mapping[str, Mapping[str, Parameter]]] = {
    "imbalance": IMBALANCE,
    "augment": AUGMENT,
    "validation": VALIDATION,
}
_LISTS: Final = ("features", "then")


@dataclass(frozen=True, slots=True)
class Step:
    """A feature step, by its name in `STEPS`."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that go through the same steps: names, or all of a kind that no other group names."""

    columns: tuple[str, ...] | str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """See the module. Without `groups` columns are prepared as the estimator wants them."""

    target: str
    task: str
    estimator: str
    parameters: Mapping[str, Any]
    groups: tuple[Group, ...]
    then: tuple[Step, ...]
    imbalance: Mapping[str, Any]
    augment: Mapping[str, Any]
    validation: Mapping[str, Any]
    metric: str | None


def read_recipe(document: Mapping[str, Any]) -> Recipe:
    """The recipe in a document that `wrong_in` finds nothing wrong in."""
    return Recipe(
        target=document["target"],
        task=document.get("task", AUTO),
        estimator=document["estimator"],
        parameters=document.get("parameters", {}),
        groups=tuple(
            Group(
                each["columns"] if isinstance(each["columns"], str) else tuple(each["columns"]), _steps(each["steps"])
            )
            for each in document.get("features", ())
        ),
        then=_steps(document.get("then", ())),
        metric=document.get("metric"),
        **{name: _filled(document.get(name, {}), known) for name, known in _TABLES.items()},
    )


def digest(document: Mapping[str, Any]) -> str:
    """The version of a recipe: equal documents have equal ones, in whatever order they are written."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def changed(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The document with other values at dotted paths."""
    made = json.loads(json.dumps(document))
    for path, value in values.items():
        *way, last = path.split(".")
        place = made
        for name in way:
            place = place.setdefault(name, {})
        place[last] = value
    return dict(made)


def searchable(document: Mapping[str, Any]) -> dict[str, Parameter]:
    """What a search may change in it, by path."""
    form = ESTIMATORS.get(str(document.get("estimator")))
    found = {f"parameters.{name}": each for name, each in form.parameters.items()} if form else {}
    for table, known in _TABLES.items():
        if table != "validation":
            found |= {f"{table}.{name}": each for name, each in known.items() if name != "image"}
    return {**found, "estimator": _TOP["estimator"]}


def wrong_in(document: Mapping[str, Any]) -> list[Detail]:
    """What is wrong, each with its path and what was expected."""
    known = {*_TOP, *_TABLES, *_LISTS, "parameters"}
    wrong = [
        _detail(f"{_PART}.{name[:60]}", f"one of {', '.join(sorted(known))}") for name in document if name not in known
    ]
    top = {name: value for name, value in document.items() if name in _TOP}
    wrong += _wrong_values(_PART, top, _TOP)
    for name, parameters in _TABLES.items():
        wrong += _wrong_table(f"{_PART}.{name}", document.get(name, {}), parameters)
    form = ESTIMATORS.get(str(document.get("estimator")))
    if form is not None:
        wrong += _wrong_table(f"{_PART}.parameters", document.get("parameters", {}), form.parameters)
    wrong += _wrong_groups(document.get("features", []))
    wrong += _wrong_steps(f"{_PART}.then", document.get("then", []), takes=NUMBERS)
    return wrong or list(_contradictions(document))


def _contradictions(document: Mapping[str, Any]) -> Iterator[Detail]:
    """What fits by itself and not together."""
    task, estimator = document.get("task", AUTO), document["estimator"]
    classes, metric = ESTIMATORS[estimator].classes, document.get("metric")
    if task != AUTO and task not in classes:
        names = [name for name, form in ESTIMATORS.items() if task in form.classes]
        yield _detail(f"{_PART}.estimator", f"one for {task}: {', '.join(names)}", estimator)
    fitting = {CLASSIFICATION: CLASSIFICATION_METRICS, REGRESSION: REGRESSION_METRICS}
    if metric and task != AUTO and metric not in fitting[task]:
        yield _detail(f"{_PART}.metric", f"one for {task}: {', '.join(fitting[task])}", metric)
    imbalance, augment = document.get("imbalance", {}), document.get("augment", {})
    rare = {name: value for name, value in imbalance.items() if value != NONE}
    if rare and task == REGRESSION:
        yield _detail(f"{_PART}.imbalance", "nothing: numbers have no rare classes")
    image = augment.get("image")
    if image is not None and len(image) < 2:  # noqa: PLR2004  (height and width)
        yield _detail(f"{_PART}.augment.image", "height, width and, where there are, channels", image)
    if image is None and any(augment.get(name) for name in ("shift", "flip", "erase")):
        yield _detail(f"{_PART}.augment.image", "the height and width of the images that are shifted, flipped, erased")
    if augment.get("copies", 0) == 0 and any(value for name, value in augment.items() if name != "image"):
        yield _detail(f"{_PART}.augment.copies", "1 or more: without copies nothing is augmented")


def _wrong_table(path: str, given: object, known: Mapping[str, Parameter]) -> list[Detail]:
    if not isinstance(given, Mapping):
        return [_detail(path, "an object", given)]
    return [
        *(
            _detail(f"{path}.{str(name)[:60]}", f"one of {', '.join(known)}" if known else "nothing")
            for name in given
            if name not in known
        ),
        *_wrong_values(path, {name: value for name, value in given.items() if name in known}, known),
    ]


def _wrong_values(path: str, given: Mapping[str, Any], known: Mapping[str, Parameter]) -> list[Detail]:
    wrong = [
        _detail(f"{path}.{name}", known[name].expects(), value)
        for name, value in given.items()
        if not known[name].fits(value)
    ]
    missing = [name for name, each in known.items() if each.required and name not in given]
    return wrong + [_detail(f"{path}.{name}", known[name].expects(), "nothing") for name in missing]


def _wrong_groups(groups: object) -> list[Detail]:
    path = f"{_PART}.features"
    if not isinstance(groups, list | tuple) or len(groups) > _MOST_GROUPS:
        return [_detail(path, f"a list of at most {_MOST_GROUPS} groups of columns", groups)]
    wrong: list[Detail] = []
    seen: set[str] = set()
    for place, group in enumerate(groups):
        here = f"{path}.{place}"
        if not isinstance(group, Mapping) or set(group) != {"columns", "steps"}:
            wrong.append(_detail(here, 'an object with "columns" and "steps"', group))
            continue
        columns = group["columns"]
        names = [columns] if isinstance(columns, str) else columns
        if not isinstance(names, list | tuple) or not names or not all(isinstance(each, str) for each in names):
            wrong.append(_detail(f"{here}.columns", f"names of columns, or {NUMBERS} or {TEXTS} for all others", names))
            continue
        if isinstance(columns, str) and columns not in (NUMBERS, TEXTS):
            wrong.append(_detail(f"{here}.columns", f"a list of names, or {NUMBERS} or {TEXTS}", columns))
        twice = sorted(seen & set(names))
        if twice:
            wrong.append(_detail(f"{here}.columns", "columns that no other group names", twice[0]))
        seen |= set(names)
        wrong += _wrong_steps(f"{here}.steps", group["steps"], takes=columns if isinstance(columns, str) else None)
    return wrong


def _wrong_steps(path: str, steps: object, *, takes: str | None) -> list[Detail]:
    if not isinstance(steps, list | tuple) or len(steps) > _MOST_STEPS:
        return [_detail(path, f"a list of at most {_MOST_STEPS} steps", steps)]
    wrong: list[Detail] = []
    for place, step in enumerate(steps):
        here = f"{path}.{place}"
        named = _parted(step)
        if named is None or named[0] not in STEPS:
            wrong.append(_detail(here, f"the name of a step, or {{name: parameters}}: {', '.join(STEPS)}", step))
            continue
        name, parameters = named
        wrong += _wrong_table(f"{here}.{name}", parameters, STEPS[name].parameters)
        expected = takes if place == 0 else NUMBERS
        if expected is not None and STEPS[name].takes != expected:
            wrong.append(_detail(here, f"a step that takes {expected}", name))
    return wrong


def _parted(step: object) -> tuple[str, Any] | None:
    if isinstance(step, str):
        return step, {}
    if isinstance(step, Mapping) and len(step) == 1:
        return next((str(name), value) for name, value in step.items())
    return None


def _steps(steps: Sequence[Any]) -> tuple[Step, ...]:
    return tuple(Step(*each) for each in map(_parted, steps) if each is not None)


def _filled(given: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    return {name: each.default for name, each in known.items()} | dict(given)


_NOTHING: Final = object()


def _detail(field_: str, expected: str, received: object = _NOTHING) -> Detail:
    if received is _NOTHING:
        return {"field": field_, "expected": expected}
    return {"field": field_, "expected": expected, "received": quote(received, limit=60)}
