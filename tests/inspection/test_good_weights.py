"""Files that real libraries write pass the structure checks; none of them is loaded here."""

import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
from sklearn.svm import SVC

from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.lightgbm_file import read_lightgbm
from modelyard.inspection.weights.onnx import read_onnx
from modelyard.inspection.weights.packed import unpack_pickle
from modelyard.inspection.weights.pickles import read_pickle
from modelyard.inspection.weights.skops_file import read_skops
from modelyard.inspection.weights.xgboost_file import read_xgboost

POLICY = InspectionPolicy()
X, Y = load_iris(return_X_y=True)
FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": np.where(X[:, 2] > 3, "x", "y")})
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
COLUMNS = ColumnTransformer([("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(), ["c"])], remainder="drop")

MODELS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(max_iter=500).fit(X, Y),
    "forest on columns": lambda: make_pipeline(COLUMNS, RandomForestClassifier(5)).fit(FRAME, NAMES),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=3, categorical_features=[0]).fit(
        X.round(), Y
    ),
    "stacking": lambda: StackingClassifier([("a", SVC()), ("b", SGDClassifier())]).fit(X, Y),
    "text": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["aa bb", "cc dd"] * 4, [0, 1] * 4),
    "grid search": lambda: GridSearchCV(SVC(), {"C": [1, 2]}, scoring="f1_macro").fit(X, Y),
    "numpy function": lambda: make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(X, Y),
    "splines": lambda: make_pipeline(SplineTransformer(), LogisticRegression(max_iter=900)).fit(X, Y),
    "ball tree": lambda: KNeighborsClassifier(algorithm="ball_tree").fit(X, Y),
    "gaussian process": lambda: GaussianProcessClassifier(RBF() + WhiteKernel()).fit(X[::5], Y[::5]),
    "random state": lambda: RandomForestClassifier(2, random_state=np.random.RandomState(1)).fit(X, Y),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield MODELS[request.param]()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_of_a_fitted_model_passes_the_walk(model: Any, protocol: int) -> None:
    facts = read_pickle(pickle.dumps(model, protocol=protocol), POLICY)
    assert facts.top == f"{type(model).__module__}.{type(model).__name__}"


def test_a_joblib_file_passes_the_walk_with_its_arrays_outside_the_pickle(model: Any) -> None:
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    facts = read_pickle(buffer.getvalue(), POLICY)
    assert facts.arrays > 0


@pytest.mark.parametrize("packing", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_a_packed_joblib_file_passes_the_walk(packing: str, tmp_path: Path) -> None:
    joblib.dump(MODELS["forest on columns"](), tmp_path / "m.joblib", compress=(packing, 3))
    assert unpack_pickle(tmp_path / "m.joblib", tmp_path / "unpacked", POLICY) == packing
    assert read_pickle((tmp_path / "unpacked").read_bytes(), POLICY).arrays > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda wrapper, dtype: None, "not a model"),  # the control: measured, and only then refused
        (
            lambda wrapper, dtype: wrapper.update(dtype=dtype("V1000", (3, "|", None, None, None, 1, 1, 0))),
            "plain element type",
        ),
        (
            lambda wrapper, dtype: wrapper.update(dtype=dtype("f8", (3, "<", None, None, None, -1, -1, 63))),
            "plain element type",
        ),
        (lambda wrapper, dtype: wrapper.update(shape=(2**63, 2)), "asks for"),
        (lambda wrapper, dtype: wrapper.update({f"k{i}": i for i in range(80)}), "plain way"),
        (lambda wrapper, dtype: wrapper.update(numpy_array_alignment_bytes=1.5), "padding"),
    ],
    ids=[
        "as it should be",
        "a size in the state",
        "objects in the flags",
        "an overflowing shape",
        "too many fields",
        "odd padding",
    ],
)
def test_an_array_that_two_readers_could_measure_differently_is_refused(
    change: Callable[..., None], reason: str
) -> None:
    from modelyard.domain.errors.uploads import WeightsFormat

    class Pair:
        def __init__(self, made: tuple[Any, ...]) -> None:
            self.made = made

        def __reduce__(self) -> tuple[Any, ...]:
            return self.made

    def dtype(name: str, state: tuple[Any, ...]) -> Pair:
        return Pair((np.dtype, (name, False, True), state))

    fields: dict[str, Any] = {"shape": (1,), "order": "C", "allow_mmap": False, "numpy_array_alignment_bytes": None}
    fields["dtype"] = dtype("f8", (3, "<", None, None, None, -1, -1, 0))
    change(fields, dtype)
    from joblib.numpy_pickle import NumpyArrayWrapper

    # a stand-in for the wrapper: made without arguments, then given its state, as joblib writes it
    data = pickle.dumps(Pair((NumpyArrayWrapper, (), fields)), protocol=2)
    with pytest.raises(WeightsFormat, match=reason):
        read_pickle(data[:-1] + bytes(8) + b".", POLICY)


def test_a_skops_file_passes_the_walk(model: Any) -> None:
    import skops.io

    facts = read_skops(skops.io.dumps(model), POLICY)
    assert facts.top.startswith("sklearn.")


def test_an_own_function_in_a_pipeline_is_named() -> None:
    from modelyard.domain.errors.uploads import WeightsUnsafe

    data = pickle.dumps(FunctionTransformer(own_function).fit(X))
    with pytest.raises(WeightsUnsafe, match="own_function"):
        read_pickle(data, POLICY)


def own_function(rows: Any) -> Any:
    return rows


def test_boosters_in_their_own_formats_pass() -> None:
    import lightgbm
    import xgboost

    booster = xgboost.XGBClassifier(n_estimators=3).fit(X, Y).get_booster()
    assert read_xgboost(bytes(booster.save_raw("json")), POLICY).encoding == "json"
    assert read_xgboost(bytes(booster.save_raw("ubj")), POLICY).encoding == "ubj"
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, Y).booster_.model_to_string()
    facts = read_lightgbm(model.encode(), POLICY)
    assert (facts.trees, facts.features, facts.classes) == (9, 4, 3)


def test_a_booster_inside_a_pickled_pipeline_passes() -> None:
    import xgboost

    pipeline = make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=2)).fit(X, Y)
    assert "xgboost.core.Booster" in read_pickle(pickle.dumps(pipeline), POLICY).names


def test_an_onnx_model_with_subgraphs_and_functions_passes() -> None:
    import onnx
    from onnx import TensorProto, helper, parser

    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        agraph (float[N, 2] x, bool flag) => (float[N, 2] y) {
            z = local.twice (x)
            y = If (flag) <then_branch = g1 () => (float[N, 2] a) { a = Relu (z) },
                           else_branch = g2 () => (float[N, 2] b) { b = Neg (z) }>
        }
        <domain: "local", opset_import: ["" : 17]>
        twice (p) => (q) { q = Add (p, p) }
    """)
    model.graph.initializer.append(helper.make_tensor("unused", TensorProto.FLOAT, [2], [1.0, 2.0]))
    onnx.checker.check_model(model)
    facts = read_onnx(model.SerializeToString(), {}, POLICY)
    assert facts.nodes == 5
    assert {"local.twice", "If", "Relu", "Add"} <= set(facts.operators)


def test_external_data_beside_the_model_passes(tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((64, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 64])],
        [helper.make_tensor_value_info("y", 1, ["n", 4])],
        [weights],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.bin",
        size_threshold=0,
    )
    facts = read_onnx((tmp_path / "m.onnx").read_bytes(), {"m.bin": (tmp_path / "m.bin").stat().st_size}, POLICY)
    assert facts.external == {"m.bin"}
    assert facts.tensor_bytes == 64 * 4 * 4


def test_a_pickle_of_every_estimator_names_known_types_only() -> None:
    from sklearn.utils import all_estimators

    from modelyard.inspection.pickle_types import is_allowed

    missing = [name for name, kind in all_estimators() if not is_allowed(kind.__module__, kind.__name__)]
    assert missing == []


def test_the_table_holds_nothing_that_acts() -> None:
    from modelyard.inspection.pickle_types import ALLOWED

    roots = {module.partition(".")[0] for module in ALLOWED}
    assert roots == {
        "_codecs", "builtins", "collections", "copyreg", "datetime", "decimal", "fractions", "functools", "numpy",
        "scipy", "sklearn", "joblib", "lightgbm", "xgboost",
    }  # fmt: skip
    assert not ALLOWED["builtins"] & {
        "eval",
        "exec",
        "open",
        "getattr",
        "setattr",
        "compile",
        "__import__",
        "map",
        "apply",
    }
    assert not any("." in name for names in ALLOWED.values() for name in names)
    assert not ALLOWED["numpy"] & {
        "load",
        "fromfile",
        "memmap",
        "save",
        "savetxt",
        "loadtxt",
        "genfromtxt",
        "vectorize",
    }


def test_a_large_joblib_array_is_passed_over_without_being_read() -> None:
    from sklearn.neighbors import NearestNeighbors

    buffer = io.BytesIO()
    joblib.dump(NearestNeighbors().fit(np.zeros((100_000, 20))), buffer)
    facts = read_pickle(buffer.getvalue(), POLICY)
    assert facts.opcodes < 2_000


def test_a_pickle_that_piles_up_values_is_refused_while_memory_is_flat() -> None:
    import resource

    from modelyard.domain.errors.uploads import WeightsFormat

    data = b"\x80\x04" + b"\x8c\x04abcd\x94" * 1_000_000 + b"."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsFormat, match="stack"):
        read_pickle(data, POLICY)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
