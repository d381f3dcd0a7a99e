"""Estimators of every kind come out as packages that answer like the estimator itself, or say why not."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conversion import convert_estimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from modelyard.domain.contract import Isolation, LabelSource, Task
from modelyard.domain.errors.uploads import BundleMismatch, ProbeFailed
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import DataType
from modelyard.inspection.children.probing import Probe, public_outputs
from modelyard.inspection.children.v2_values import NUMPY

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
R, RY = load_diabetes(return_X_y=True)
FLOWERS = load_iris(as_frame=True).data
RECORDS = [{"colour": "red", "size": 1}, {"colour": "blue", "size": 3}] * 10
TEXTS = ["red apple", "green pear", "red car", "blue sky"] * 5


@cache
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, 200),
            "city": rng.choice(["Oslo", "Paris", "Rome"], 200),
            "income": rng.normal(50, 10, 200),
            "unused": rng.normal(0, 1, 200),
        }
    )


def over_40() -> Any:
    return (table().age > 40).astype(int).to_numpy()


def columns(unknown: str = "error") -> ColumnTransformer:
    return ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "income"]), ("texts", OneHotEncoder(handle_unknown=unknown), ["city"])]
    )


def imputed_columns() -> ColumnTransformer:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer([("numbers", numbers, ["age", "income"]), ("texts", texts, ["city"])])


CONVERTS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(max_iter=300).fit(X, Y),
    "text classes": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, NAMES),
    "boolean classes": lambda: LogisticRegression(max_iter=300).fit(X, Y > 0),
    "odd classes": lambda: LogisticRegression(max_iter=300).fit(X, Y * 5 - 3),
    "forest": lambda: RandomForestClassifier(10, random_state=0, n_jobs=2).fit(X, Y),
    "forest that ties": lambda: RandomForestClassifier(4, random_state=0).fit(X, Y > 0),
    "forest that ties, in a pipeline": lambda: make_pipeline(
        StandardScaler(), ExtraTreesClassifier(6, random_state=0, max_depth=2)
    ).fit(X, NAMES),
    "threshold on the first class": lambda: FixedThresholdClassifier(
        make_pipeline(StandardScaler(), LogisticRegression()), threshold=0.9, pos_label=0
    ).fit(X, np.minimum(Y, 1)),
    "threshold on the second class": lambda: FixedThresholdClassifier(
        RandomForestClassifier(10, random_state=0), threshold=0.15, pos_label="virginica"
    ).fit(X[50:], NAMES[50:]),
    "threshold that says nothing": lambda: FixedThresholdClassifier(GaussianNB()).fit(X, np.minimum(Y, 1)),
    "extra trees": lambda: ExtraTreesClassifier(10, random_state=0).fit(X, Y),
    "tree": lambda: DecisionTreeClassifier(random_state=0).fit(X, Y),
    "svc without probabilities": lambda: SVC().fit(X, Y),
    "linear svc": lambda: LinearSVC().fit(X, NAMES),
    "neighbours": lambda: KNeighborsClassifier().fit(X, Y),
    "gaussian bayes": lambda: GaussianNB().fit(X, Y),
    "multinomial bayes": lambda: MultinomialNB().fit(X, Y),
    "perceptron": lambda: MLPClassifier((8,), max_iter=20, random_state=0).fit(X, Y),
    "discriminant": lambda: LinearDiscriminantAnalysis().fit(X, Y),
    "boosted histogram": lambda: HistGradientBoostingClassifier(max_iter=5).fit(X, Y),
    "boosted histogram regression": lambda: HistGradientBoostingRegressor(max_iter=5).fit(R, RY),
    "ada": lambda: AdaBoostClassifier(n_estimators=3).fit(X, Y),
    "sgd": lambda: SGDClassifier(random_state=0).fit(X, Y),
    "calibrated": lambda: CalibratedClassifierCV(GaussianNB()).fit(X, Y),
    "voting": lambda: VotingClassifier(
        [("a", LogisticRegression(max_iter=300)), ("b", GaussianNB())], voting="soft"
    ).fit(X, Y),
    "stacking": lambda: StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(random_state=0))]).fit(
        X, Y
    ),
    "search": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 2]}
    ).fit(X, NAMES),
    "ridge": lambda: Ridge().fit(R, RY),
    "svr": lambda: make_pipeline(StandardScaler(), SVR()).fit(R, RY),
    "forest regression": lambda: RandomForestRegressor(5, random_state=0).fit(R, RY),
    "boosted regression": lambda: GradientBoostingRegressor(n_estimators=5).fit(R, RY),
    "two targets": lambda: LinearRegression().fit(R, np.c_[RY, -RY]),
    "polynomial": lambda: make_pipeline(PolynomialFeatures(2), Ridge()).fit(R, RY),
    "clusters": lambda: KMeans(3, n_init=1, random_state=0).fit(X),
    "outliers": lambda: IsolationForest(n_estimators=5, random_state=0).fit(X),
    "components": lambda: PCA(2).fit(X),
    "columns by name": lambda: make_pipeline(columns(), LogisticRegression()).fit(table(), over_40()),
    "columns with imputers": lambda: Pipeline(
        [("prepare", imputed_columns()), ("model", RandomForestClassifier(5, random_state=0))]
    ).fit(table(), over_40()),
    "numbers by name": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(
        table()[["age", "income"]], over_40()
    ),
    "columns by position": lambda: make_pipeline(
        ColumnTransformer([("n", StandardScaler(), [0, 2]), ("t", OneHotEncoder(handle_unknown="ignore"), [1])]),
        LogisticRegression(),
    ).fit(table()[["age", "city", "income"]].to_numpy(), over_40()),
    "ordinal columns": lambda: make_pipeline(
        ColumnTransformer([("o", OrdinalEncoder(), ["city"])], remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=3),
    ).fit(table(), over_40()),
    "columns of odd names": lambda: make_pipeline(
        ColumnTransformer([("n", StandardScaler(), list(FLOWERS.columns))]), LogisticRegression()
    ).fit(FLOWERS, Y),
    "columns by kind": lambda: make_pipeline(
        make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include=np.number)),
            (OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ),
        LogisticRegression(),
    ).fit(table()[["age", "city"]], over_40()),
    "texts": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [0, 1, 0, 1] * 5),
}

KEEPS: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(X, Y), "Function"),
    "threshold on decisions": (
        lambda: FixedThresholdClassifier(LinearSVC(), threshold=0.2).fit(X, np.minimum(Y, 1)),
        "FixedThresholdClassifier",
    ),
    "spline": (lambda: make_pipeline(SplineTransformer(), Ridge()).fit(R, RY), "SplineTransformer"),
    "hasher": (
        lambda: make_pipeline(FeatureHasher(8), LogisticRegression()).fit(RECORDS, [0, 1] * 10),
        "FeatureHasher",
    ),
    "vectorizer": (lambda: make_pipeline(DictVectorizer(), Ridge()).fit(RECORDS, [0, 1] * 10), "DictVectorizer"),
    "kernel bins": (
        lambda: make_pipeline(
            KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"), SplineTransformer(), Ridge()
        ).fit(R, RY),
        "SplineTransformer",
    ),
    "factors": (
        lambda: HistGradientBoostingClassifier(max_iter=3).fit(
            table()[["age", "city"]].astype({"city": "category"}), over_40()
        ),
        "HistGradientBoostingClassifier",
    ),
    "neighbour imputer": (lambda: make_pipeline(KNNImputer(), LogisticRegression(max_iter=300)).fit(X, Y), "step"),
}


def rows_of(model: Any) -> tuple[Any, int]:
    """Training rows in the estimator's own terms."""
    if hasattr(model, "feature_names_in_"):
        source = table() if "age" in model.feature_names_in_ else FLOWERS
        return source[list(model.feature_names_in_)], len(source)
    width = getattr(model, "n_features_in_", None)
    if width is None:
        return TEXTS, len(TEXTS)
    return {4: X, 10: R, 3: table()[["age", "city", "income"]].to_numpy()}[width], 150


def as_request(contract: Any, rows: Any) -> dict[str, Any]:
    inputs = {}
    for index, item in enumerate(contract.inputs):
        if isinstance(rows, pd.DataFrame):
            values = rows[item.name].to_numpy().reshape(-1, 1)
        elif len(contract.inputs) > 1:
            values = np.asarray(rows)[:, [index]]
        else:
            values = np.asarray(rows, dtype=object if item.datatype is DataType.BYTES else None)
            values = values.reshape(len(values), -1)
        if item.datatype is DataType.BYTES:
            inputs[item.name] = np.array([[str(cell).encode() for cell in row] for row in values], dtype=object)
        else:
            inputs[item.name] = values.astype(NUMPY[item.datatype])
    return inputs


def answers_of(made: Any, inputs: Any) -> dict[str, Any]:
    from modelyard.inspection.children.probing import open_package

    answers = open_package(made.directory, made.package)(inputs)
    return {item["name"]: item["data"] for item in public_outputs(made.package.contract, answers)}


@pytest.mark.parametrize("name", CONVERTS)
def test_an_estimator_converts_and_answers_like_itself(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CONVERTS[name]()
        made = convert_estimator(model, tmp_path)
        rows, _ = rows_of(model)
        contract = made.package.contract
        assert made.package.runtime == "onnxruntime", made.said.checks[-1].evidence
        assert made.package.isolation is Isolation.SHARED
        assert made.said.outcomes() == {Outcome.PASSED}
        assert made.said.named("convert.equal_answers").evidence["rows"] >= 1000
        answers = answers_of(made, as_request(contract, rows))
        if contract.labelling:
            expected = [str(item) for item in model.predict(rows)]
            assert np.mean(np.array(answers["label"]) == np.array(expected)) >= 0.99
            assert contract.task is Task.CLASSIFICATION
        else:
            expected = model.predict(rows) if hasattr(model, "predict") else model.transform(rows)
            got = answers[contract.outputs[0].name]
            np.testing.assert_allclose(got, np.ravel(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", KEEPS)
def test_what_does_not_convert_is_kept_for_review_with_its_step(name: str, tmp_path: Path) -> None:
    make, step = KEEPS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = convert_estimator(make(), tmp_path)
    check = made.said.named("convert.equal_answers")
    assert check.outcome is Outcome.NEEDS_REVIEW
    assert step in check.evidence["step"]
    assert step in check.summary
    assert made.package.runtime == "sklearn_original"
    assert made.package.isolation is Isolation.PROCESS
    assert (made.directory / made.package.entry).is_file()


def test_a_difference_is_shown_with_rows_and_figures(tmp_path: Path) -> None:
    made = convert_estimator(KEEPS["neighbour imputer"][0](), tmp_path)
    check = made.said.named("convert.equal_answers")
    assert check.evidence["rows_differ"] > 0
    assert check.evidence["worst_difference"] > 1e-5


def test_known_categories_and_missing_values_stand_in_the_contract(tmp_path: Path) -> None:
    made = convert_estimator(make_pipeline(columns(), LogisticRegression()).fit(table(), over_40()), tmp_path)
    by_name = {item.name: item for item in made.package.contract.inputs}
    assert list(by_name) == ["age", "city", "income"]
    assert by_name["city"].categories == ("Oslo", "Paris", "Rome")
    assert by_name["city"].shape == (-1, 1)
    assert not by_name["age"].allows_nan
    assert made.said.named("model.inputs").evidence["unused_columns"] == ["unused"]


def test_an_imputer_lets_values_be_missing(tmp_path: Path) -> None:
    made = convert_estimator(make_pipeline(SimpleImputer(), Ridge()).fit(R, RY), tmp_path)
    assert made.package.contract.inputs[0].allows_nan


def test_the_users_labels_win_when_they_fit(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=300).fit(X, Y)
    made = convert_estimator(model, tmp_path, labels=["a", "b", "c"])
    assert made.package.contract.labels == ("a", "b", "c")
    assert made.package.contract.labelling is not None
    assert made.package.contract.labelling.rule is LabelSource.ARGMAX


def test_labels_that_do_not_fit_are_a_mismatch(tmp_path: Path) -> None:
    with pytest.raises(BundleMismatch, match="3 classes"):
        convert_estimator(LogisticRegression(max_iter=300).fit(X, Y), tmp_path, labels=["a", "b"])


@pytest.mark.parametrize("model", [DBSCAN().fit(X), LogisticRegression()])
def test_an_estimator_that_cannot_answer_is_refused_with_what_to_do(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed) as caught:
        convert_estimator(model, tmp_path)
    assert caught.value.hint


def test_the_samples_rows_are_asked_too(tmp_path: Path) -> None:
    table().head(20).assign(answer=1).to_csv(tmp_path / "sample.csv", index=False)
    model = make_pipeline(columns(), LogisticRegression()).fit(table(), over_40())
    made = convert_estimator(model, tmp_path, sample="sample.csv")
    assert made.said.named("sample.rows").evidence["rows"] == 20
    assert made.said.named("convert.equal_answers").evidence["sample_rows"] == 20


def test_a_sample_that_does_not_fit_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("a,b\n1,2\n")
    made = convert_estimator(LogisticRegression(max_iter=300).fit(X, Y), tmp_path, sample="sample.csv")
    assert made.said.named("sample.rows").outcome is Outcome.WARNING


def test_a_sample_that_the_model_refuses_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("age,city,income\n30,Atlantis,50\n")
    model = make_pipeline(columns(), LogisticRegression()).fit(table(), over_40())
    made = convert_estimator(model, tmp_path, sample="sample.csv")
    assert "Atlantis" in made.said.named("sample.answers").summary
    assert made.package.runtime == "onnxruntime"


def test_the_probe_proves_a_batch_and_keeps_a_golden_answer_with_its_label(tmp_path: Path) -> None:
    import json

    from modelyard.inspection.child import PROBE_ROWS
    from modelyard.inspection.children.v2_values import array_of

    made = convert_estimator(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, NAMES), tmp_path)
    document = json.loads((made.directory / PROBE_ROWS).read_text())
    rows = {item["name"]: array_of(item) for item in document["inputs"]}
    contract, golden = Probe(made.directory, made.package, made.said).run(rows, source="generated")  # type: ignore[arg-type]
    assert contract.max_batch_size == 64
    assert golden is not None
    assert golden.request["inputs"][0]["shape"] == [1, 4]
    assert golden.outputs[0]["name"] == "label"
    assert golden.outputs[0]["data"][0] in contract.labels
    assert made.said.named("probe.golden").evidence["duration_ms"] >= 0


def test_the_one_tensor_goes_by_its_declared_name(tmp_path: Path) -> None:
    config = {"input": {"name": "x", "datatype": "FP32", "shape": [-1, 4]}}
    made = convert_estimator(LogisticRegression(max_iter=300).fit(X, Y), tmp_path, config=config)
    assert [item.name for item in made.package.contract.inputs] == ["x"]
    assert len(answers_of(made, as_request(made.package.contract, X))["label"]) == len(X)
    spline = make_pipeline(SplineTransformer(), Ridge()).fit(X, Y)
    kept = convert_estimator(spline, tmp_path / "other", config=config)
    assert kept.package.runtime == "sklearn_original"
    np.testing.assert_allclose(
        answers_of(kept, as_request(kept.package.contract, X))["prediction"], spline.predict(X), rtol=1e-6
    )


def test_a_declared_width_that_is_not_the_models_is_a_mismatch(tmp_path: Path) -> None:
    config = {"input": {"name": "x", "datatype": "FP32", "shape": [-1, 5]}}
    with pytest.raises(BundleMismatch, match="5 wide"):
        convert_estimator(LogisticRegression(max_iter=300).fit(X, Y), tmp_path, config=config)


def test_declared_text_columns_are_taken_where_the_model_does_not_say(tmp_path: Path) -> None:
    model = make_pipeline(columns("ignore"), LogisticRegression()).fit(table(), over_40())
    signature = {"inputs": [{"name": "city", "datatype": "BYTES", "shape": [-1]}]}
    made = convert_estimator(model, tmp_path, config={"signature": signature})
    assert {item.name: item.datatype for item in made.package.contract.inputs}["city"] is DataType.BYTES
