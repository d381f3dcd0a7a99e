"""The estimators and feature steps that a recipe may name, each with the parameters that it takes. Data, no code.

Names of parameters are scikit-learn's, whose classes stand behind; every one of these has an ONNX form.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from modelyard.domain.job_kinds.fields import Choice, Flag, Items, Number, Parameter

CLASSIFICATION, REGRESSION = "classification", "regression"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorForm:
    """`classes` gives the class by task, as `module:name`; `scaled`: it wants columns of one spread.

    `goes_on`: it learns from further rows (`partial_fit`); `grows` names the parameter by which it is continued
    with more trees or rounds.
    """

    classes: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    scaled: bool = False
    goes_on: bool = False
    grows: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepForm:
    """A feature step: its class, as `module:name`, and its parameters; `takes` is what goes in: numbers or texts."""

    kind: str
    takes: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def _whole(text: str, low: float, high: float) -> Number:
    return Number(text=text, low=low, high=high, whole=True)


def _part(text: str, low: float = 0.0, high: float = 1.0) -> Number:
    return Number(text=text, low=low, high=high)


_PENALTY: Final[dict[str, Parameter]] = {
    "alpha": _part("The strength of the penalty on weights.", 0, 1e6),
    "l1_ratio": _part("The part of the penalty that sets weights to zero."),
}
_ROUNDS: Final = _whole("Passes over the rows at most.", 1, 100_000)
_STOPS: Final = Flag(text="End when a part that is kept back gets no better.")
_TREE: Final[dict[str, Parameter]] = {
    "max_depth": _whole("The depth at most.", 1, 64),
    "min_samples_leaf": _whole("Rows in a leaf at least.", 1, 100_000),
    "min_samples_split": _whole("Rows that are split at least.", 2, 100_000),
    "max_features": _part("The part of the columns that a split looks at.", 0.001),
    "ccp_alpha": _part("Cuts back branches that gain less than this.", 0, 1e6),
}
_FOREST: Final[dict[str, Parameter]] = {
    "n_estimators": _whole("Trees.", 1, 5000),
    **_TREE,
}


def _both(module: str, classifier: str, regressor: str) -> dict[str, str]:
    return {CLASSIFICATION: f"sklearn.{module}:{classifier}", REGRESSION: f"sklearn.{module}:{regressor}"}


ESTIMATORS: Final[Mapping[str, EstimatorForm]] = {
    "logistic": EstimatorForm(
        classes={CLASSIFICATION: "sklearn.linear_model:LogisticRegression"},
        parameters={"C": _part("The inverse of the penalty's strength.", 1e-9, 1e9), "max_iter": _ROUNDS},
        scaled=True,
    ),
    "ridge": EstimatorForm(
        classes={REGRESSION: "sklearn.linear_model:Ridge"}, parameters={"alpha": _PENALTY["alpha"]}, scaled=True
    ),
    "elastic-net": EstimatorForm(
        classes={REGRESSION: "sklearn.linear_model:ElasticNet"},
        parameters={**_PENALTY, "max_iter": _ROUNDS},
        scaled=True,
    ),
    "sgd": EstimatorForm(
        classes=_both("linear_model", "SGDClassifier", "SGDRegressor"),
        parameters={
            **_PENALTY,
            "penalty": Choice(text="Which penalty.", choices=("l2", "l1", "elasticnet")),
            "eta0": _part("The rate of learning at the start.", 1e-9, 100),
            "learning_rate": Choice(
                text="How the rate falls.", choices=("optimal", "constant", "invscaling", "adaptive")
            ),
            "max_iter": _ROUNDS,
            "early_stopping": _STOPS,
            "average": Flag(text="Average the weights of all steps."),
        },
        scaled=True,
        goes_on=True,
    ),
    "naive-bayes": EstimatorForm(
        classes={CLASSIFICATION: "sklearn.naive_bayes:GaussianNB"},
        parameters={"var_smoothing": _part("Added to every variance, in parts of the largest.", 0, 1)},
        goes_on=True,
    ),
    "neighbours": EstimatorForm(
        classes=_both("neighbors", "KNeighborsClassifier", "KNeighborsRegressor"),
        parameters={
            "n_neighbors": _whole("Neighbours that are asked.", 1, 1000),
            "weights": Choice(text="How they count.", choices=("uniform", "distance")),
        },
        scaled=True,
    ),
    "svm": EstimatorForm(
        classes=_both("svm", "SVC", "SVR"),
        parameters={
            "C": _part("The inverse of the penalty's strength.", 1e-9, 1e9),
            "kernel": Choice(text="The kernel.", choices=("rbf", "linear", "poly", "sigmoid")),
            "gamma": _part("How near rows have to be.", 1e-9, 1e6),
            "degree": _whole("Of the kernel poly.", 1, 10),
        },
        scaled=True,
    ),
    "tree": EstimatorForm(classes=_both("tree", "DecisionTreeClassifier", "DecisionTreeRegressor"), parameters=_TREE),
    "forest": EstimatorForm(
        classes=_both("ensemble", "RandomForestClassifier", "RandomForestRegressor"),
        parameters={**_FOREST, "max_samples": _part("The part of the rows that a tree is grown from.", 0.001)},
        grows="n_estimators",
    ),
    "extra-trees": EstimatorForm(
        classes=_both("ensemble", "ExtraTreesClassifier", "ExtraTreesRegressor"),
        parameters=_FOREST,
        grows="n_estimators",
    ),
    "boosted": EstimatorForm(
        classes=_both("ensemble", "HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
        parameters={
            "learning_rate": _part("What a round counts.", 1e-4, 10),
            "max_iter": _whole("Rounds.", 1, 10_000),
            "max_leaf_nodes": _whole("Leaves of a tree at most.", 2, 1000),
            "max_depth": _TREE["max_depth"],
            "min_samples_leaf": _TREE["min_samples_leaf"],
            "max_features": _TREE["max_features"],
            "l2_regularization": _part("The strength of the penalty on leaves.", 0, 1e6),
            "early_stopping": _STOPS,
        },
        grows="max_iter",
    ),
    "network": EstimatorForm(
        classes=_both("neural_network", "MLPClassifier", "MLPRegressor"),
        parameters={
            "hidden_layer_sizes": Items(
                text="The width of each hidden layer.", each=_whole("Its width.", 1, 4096), most=10
            ),
            "activation": Choice(text="Between layers.", choices=("relu", "tanh", "logistic")),
            "alpha": _part("The strength of the penalty on weights.", 0, 1e3),
            "learning_rate_init": _part("The rate of learning at the start.", 1e-7, 10),
            "batch_size": _whole("Rows of a step.", 1, 100_000),
            "max_iter": _ROUNDS,
            "early_stopping": _STOPS,
        },
        scaled=True,
        goes_on=True,
    ),
}

NUMBERS, TEXTS = "numbers", "texts"
STEPS: Final[Mapping[str, StepForm]] = {
    "impute": StepForm(
        kind="sklearn.impute:SimpleImputer",
        takes=NUMBERS,
        parameters={
            "strategy": Choice(text="What stands for a missing value.", choices=("mean", "median", "most_frequent")),
            "add_indicator": Flag(text="Say in columns of their own what was missing."),
        },
    ),
    "scale": StepForm(kind="sklearn.preprocessing:StandardScaler", takes=NUMBERS),
    "min-max": StepForm(kind="sklearn.preprocessing:MinMaxScaler", takes=NUMBERS),
    "robust-scale": StepForm(kind="sklearn.preprocessing:RobustScaler", takes=NUMBERS),
    "normalise": StepForm(
        kind="sklearn.preprocessing:Normalizer",
        takes=NUMBERS,
        parameters={"norm": Choice(text="Which length of a row becomes 1.", choices=("l2", "l1", "max"))},
    ),
    "power": StepForm(kind="sklearn.preprocessing:PowerTransformer", takes=NUMBERS),
    "bins": StepForm(
        kind="sklearn.preprocessing:KBinsDiscretizer",
        takes=NUMBERS,
        parameters={
            "n_bins": _whole("Bins of a column.", 2, 256),
            "strategy": Choice(text="How they are cut.", choices=("uniform", "quantile")),
        },
    ),
    "polynomial": StepForm(
        kind="sklearn.preprocessing:PolynomialFeatures",
        takes=NUMBERS,
        parameters={
            "degree": _whole("The degree.", 1, 4),
            "interaction_only": Flag(text="Products of different columns only."),
        },
    ),
    "select": StepForm(
        kind="sklearn.feature_selection:SelectKBest",
        takes=NUMBERS,
        parameters={"k": _whole("Columns that are kept: those that say most of the target.", 1, 100_000)},
    ),
    "pca": StepForm(
        kind="sklearn.decomposition:PCA",
        takes=NUMBERS,
        parameters={"n_components": _whole("Directions that are kept.", 1, 10_000)},
    ),
    "one-hot": StepForm(
        kind="sklearn.preprocessing:OneHotEncoder",
        takes=TEXTS,
        parameters={"min_frequency": _whole("Rarer values than this many rows share a column.", 1, 1_000_000)},
    ),
    "ordinal": StepForm(kind="sklearn.preprocessing:OrdinalEncoder", takes=TEXTS),
    "words": StepForm(
        kind="sklearn.feature_extraction.text:TfidfVectorizer",
        takes=TEXTS,
        parameters={
            "max_features": _whole("Words that are known at most.", 1, 1_000_000),
            "min_df": _whole("Texts that hold a word at least.", 1, 1_000_000),
        },
    ),
}
"""`takes` is what the first step of a group reads; what texts become is numbers."""
