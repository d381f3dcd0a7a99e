"""Real boosters of many settings: our graph answers what the library's own predict does, row by row."""

import warnings

import lightgbm as lgb
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import xgboost as xgb

from modelyard.domain.contract import Task
from modelyard.inspection.children.builders import lightgbm_trees, xgboost_trees

ROWS = 10_000


def data(seed=0, *, rows=2_000, width=6, missing=0.1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)).astype(np.float32)
    x[:, 2] = np.round(x[:, 2], 1)
    x[:, 3] = rng.integers(0, 3, rows)
    signal = x[:, 0] + np.sin(3 * x[:, 1]) + 0.5 * x[:, 2] * x[:, 3] + 0.3 * rng.normal(size=rows)
    x[rng.random(x.shape) < missing] = np.nan
    return x, signal


def rows_to_ask(x, thresholds, seed=1):
    """10,000 rows: resampled, disturbed, with missing values, zeros and values exactly at and next to thresholds."""
    rng = np.random.default_rng(seed)
    rows = x[rng.integers(0, len(x), ROWS)].astype(thresholds.dtype)
    for column in range(x.shape[1]):
        rows[: ROWS // 2, column] = rng.permutation(rows[: ROWS // 2, column])
    pool = np.concatenate([thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf), [0.0]])
    spots = rng.random(rows.shape) < 0.15
    rows[spots] = rng.choice(pool, spots.sum())
    rows[rng.random(rows.shape) < 0.05] = np.nan
    rows[0] = np.nan
    return rows.astype(thresholds.dtype)


def answers(built, rows):
    onnx.checker.check_model(built.model, full_check=True)
    session = ort.InferenceSession(built.model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert built.allows_nan
    whole = session.run(None, {"x": rows})[0]
    single = np.concatenate([session.run(None, {"x": rows[i : i + 1]})[0] for i in range(20)])
    np.testing.assert_allclose(single, whole[:20], rtol=1e-5, atol=1e-6)
    return whole


def expect_equal(built, got, expected):
    expected = np.asarray(expected).reshape(len(got), -1)
    if built.task is Task.CLASSIFICATION and expected.shape[1] == 1:
        got = got[:, 1:]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


# --- XGBoost -----------------------------------------------------------------------------------------------------

BASE = {"max_depth": 5, "eta": 0.3, "verbosity": 0, "nthread": 1, "seed": 3}
XGB_CASES = {
    "squared error": {"objective": "reg:squarederror"},
    "given base score": {"objective": "reg:squarederror", "base_score": 7.5},
    "absolute error": {"objective": "reg:absoluteerror"},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]},
    "pseudo huber": {"objective": "reg:pseudohubererror"},
    "squared log": {"objective": "reg:squaredlogerror", "y": "positive"},
    "logistic": {"objective": "binary:logistic", "y": "binary"},
    "logistic with base score": {"objective": "binary:logistic", "base_score": 0.2, "y": "binary"},
    "raw logistic": {"objective": "binary:logitraw", "y": "binary"},
    "hinge": {"objective": "binary:hinge", "y": "binary"},
    "logistic regression": {"objective": "reg:logistic", "y": "binary"},
    "softprob": {"objective": "multi:softprob", "num_class": 4, "y": "classes"},
    "forest of softprob": {
        "objective": "multi:softprob", "num_class": 4, "y": "classes", "num_parallel_tree": 3, "subsample": 0.7,
    },
    "poisson": {"objective": "count:poisson", "y": "count"},
    "gamma": {"objective": "reg:gamma", "y": "positive"},
    "tweedie": {"objective": "reg:tweedie", "y": "positive", "tweedie_variance_power": 1.3},
    "cox": {"objective": "survival:cox", "y": "positive"},
    "ranking": {"objective": "rank:ndcg", "y": "classes", "group": True},
    "pairwise ranking": {"objective": "rank:pairwise", "y": "classes", "group": True},
    "dart": {"booster": "dart", "objective": "binary:logistic", "rate_drop": 0.4, "y": "binary"},
    "dart of classes": {
        "booster": "dart", "objective": "multi:softprob", "num_class": 4, "rate_drop": 0.4, "y": "classes",
    },
    "linear": {"booster": "gblinear", "objective": "reg:squarederror"},
    "linear classes": {
        "booster": "gblinear", "objective": "multi:softprob", "num_class": 4, "base_score": 0.5, "y": "classes",
    },
    "lossguide": {"objective": "reg:squarederror", "grow_policy": "lossguide", "max_leaves": 60, "max_depth": 0},
    "pruned": {"objective": "reg:squarederror", "tree_method": "exact", "gamma": 5.0},
    "two targets": {"objective": "reg:squarederror", "y": "two"},
    "two labels": {"objective": "binary:logistic", "y": "two labels"},
}  # fmt: skip


def target(kind, signal):
    match kind:
        case "binary":
            return (signal > 0).astype(int)
        case "classes":
            return np.digitize(signal, [-1, 0, 1])
        case "count":
            return np.random.default_rng(0).poisson(np.exp(np.clip(signal, -3, 2)))
        case "positive":
            return np.exp(np.clip(signal, -3, 3)) + 0.01
        case "two":
            return np.stack([signal, -2 * signal + 3], axis=1)
        case "two labels":
            return np.stack([signal > 0, signal > 1], axis=1).astype(int)
        case _:
            return signal


def xgb_thresholds(booster):
    return np.unique(booster.trees_to_dataframe()["Split"].dropna().to_numpy(np.float32))


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("case", XGB_CASES)
def test_xgboost_is_answered_exactly(tmp_path, case, suffix):
    params = BASE | XGB_CASES[case]
    kind, grouped = params.pop("y", ""), params.pop("group", False)
    linear = params.get("booster") == "gblinear"
    if linear:
        params.pop("max_depth")
    x, signal = data()
    train = xgb.DMatrix(x, target(kind, signal), group=[20] * 100 if grouped else None)
    booster = xgb.train(params, train, 12)
    booster.save_model(tmp_path / f"m.{suffix}")
    built = xgboost_trees.build(tmp_path, f"m.{suffix}", {})
    rows = rows_to_ask(x, np.zeros(1, np.float32) if linear else xgb_thresholds(booster))
    expect_equal(built, answers(built, rows), booster.predict(xgb.DMatrix(rows)))


def test_xgboost_softmax_gives_the_probabilities_whose_largest_is_its_class(tmp_path):
    x, signal = data()
    params = BASE | {"objective": "multi:softmax", "num_class": 4}
    booster = xgb.train(params, xgb.DMatrix(x, target("classes", signal)), 8)
    booster.save_model(tmp_path / "m.ubj")
    built = xgboost_trees.build(tmp_path, "m.ubj", {"num_labels": 4})
    rows = rows_to_ask(x, xgb_thresholds(booster))
    agree = answers(built, rows).argmax(1) == booster.predict(xgb.DMatrix(rows))
    assert agree.mean() > 0.999


def test_xgboost_categories_are_answered_exactly(tmp_path):
    rng = np.random.default_rng(5)
    x = np.stack([rng.integers(0, 60, 3_000), rng.integers(0, 3, 3_000), rng.normal(size=3_000)], 1).astype(np.float32)
    y = np.sin(x[:, 0] * 7) + (x[:, 1] == 1) + 0.2 * x[:, 2]
    x[rng.random(x.shape) < 0.1] = np.nan
    train = xgb.DMatrix(x, y, feature_types=["c", "c", "q"], enable_categorical=True)
    for one_hot in (1, 5, 100):
        booster = xgb.train(BASE | {"max_cat_to_onehot": one_hot, "tree_method": "hist"}, train, 10)
        booster.save_model(tmp_path / "m.json")
        built = xgboost_trees.build(tmp_path, "m.json", {})
        rows = x[rng.integers(0, len(x), ROWS)]
        rows[:200, 0] = rng.integers(0, 100, 200)
        got = answers(built, rows)
        expect_equal(built, got, booster.predict(xgb.DMatrix(rows, feature_types=["c", "c", "q"])))
        assert "categories" in " ".join(built.notes)


def test_a_scikit_learn_booster_that_stopped_early_answers_at_its_best_iteration(tmp_path):
    x, signal = data()
    model = xgb.XGBClassifier(n_estimators=200, early_stopping_rounds=3, learning_rate=0.8, n_jobs=1)
    model.fit(x[:300], signal[:300] > 0, eval_set=[(x[300:], signal[300:] > 0)], verbose=False)
    model.save_model(tmp_path / "m.json")
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    built = xgboost_trees.build(tmp_path, "m.json", {})
    np.testing.assert_allclose(answers(built, x), model.predict_proba(x), rtol=1e-4, atol=1e-5)
    assert "stopped early" in built.notes[0]


def test_feature_names_travel_with_the_graph(tmp_path):
    x, signal = data(width=6)
    names = [f"column {index}" for index in range(6)]
    booster = xgb.train(BASE, xgb.DMatrix(x, signal, feature_names=names), 2)
    booster.save_model(tmp_path / "m.json")
    assert xgboost_trees.build(tmp_path, "m.json", {}).feature_names == tuple(names)


# --- LightGBM ----------------------------------------------------------------------------------------------------

LGB_CASES = {
    "regression": {"objective": "regression"},
    "l1": {"objective": "l1"},
    "square root": {"objective": "regression", "reg_sqrt": True},
    "huber": {"objective": "huber"},
    "quantile": {"objective": "quantile", "alpha": 0.8},
    "poisson": {"objective": "poisson", "y": "count"},
    "gamma": {"objective": "gamma", "y": "positive"},
    "tweedie": {"objective": "tweedie", "y": "positive"},
    "binary": {"objective": "binary", "y": "binary"},
    "binary with a steep sigmoid": {"objective": "binary", "sigmoid": 2.5, "y": "binary"},
    "multiclass": {"objective": "multiclass", "num_class": 4, "y": "classes"},
    "one against all": {"objective": "multiclassova", "num_class": 4, "y": "classes"},
    "cross entropy": {"objective": "cross_entropy", "y": "binary"},
    "cross entropy lambda": {"objective": "cross_entropy_lambda", "y": "binary"},
    "ranking": {"objective": "lambdarank", "y": "classes", "group": True},
    "forest": {"boosting": "rf", "objective": "binary", "bagging_freq": 1, "bagging_fraction": 0.6, "y": "binary"},
    "dart": {"boosting": "dart", "objective": "regression"},
    "zero is missing": {"objective": "regression", "zero_as_missing": True},
    "missing is not used": {"objective": "regression", "use_missing": False},
    "extra trees": {"objective": "regression", "extra_trees": True},
    "no tree to grow": {"objective": "regression", "min_data_in_leaf": 5_000},
}


def lgb_train(params, x, y, *, rounds=12, **more):
    params = {"verbose": -1, "num_threads": 1, "num_leaves": 25, "seed": 2, "min_data_in_leaf": 5} | params
    return lgb.train(params, lgb.Dataset(x, y, **more), rounds)


def lgb_thresholds(booster):
    table = booster.trees_to_dataframe()["threshold"].dropna()
    numbers = [float(value) for value in table if "||" not in str(value)]
    return np.unique(np.array([value for value in numbers if abs(value) < 1e30] or [0.0], np.float64))


@pytest.mark.parametrize("case", LGB_CASES)
def test_lightgbm_is_answered_exactly(tmp_path, case):
    params = dict(LGB_CASES[case])
    kind, grouped = params.pop("y", ""), params.pop("group", False)
    x, signal = data(missing=0.0 if case == "huber" else 0.1)
    x = x.astype(np.float64) + (np.random.default_rng(3).random(x.shape) * 1e-9 if case != "zero is missing" else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        booster = lgb_train(params, x, target(kind, signal), **({"group": [20] * 100} if grouped else {}))
    booster.save_model(tmp_path / "m.txt")
    built = lightgbm_trees.build(tmp_path, "m.txt", {})
    rows = rows_to_ask(x, lgb_thresholds(booster))
    rows[1:40:3, 0] = 1e-36
    expect_equal(built, answers(built, rows), booster.predict(rows))


def test_lightgbm_categories_are_answered_exactly(tmp_path):
    rng = np.random.default_rng(5)
    x = np.stack([rng.integers(0, 90, 4_000), rng.integers(0, 3, 4_000), rng.normal(size=4_000)], 1)
    y = np.sin(x[:, 0] * 7) + (x[:, 1] == 1) + 0.2 * x[:, 2]
    x[rng.random(x.shape) < 0.1] = np.nan
    booster = lgb_train({"objective": "regression", "min_data_per_group": 5}, x, y, categorical_feature=[0, 1])
    booster.save_model(tmp_path / "m.txt")
    built = lightgbm_trees.build(tmp_path, "m.txt", {})
    rows = x[rng.integers(0, len(x), ROWS)]
    rows[:300, 0] = rng.integers(-3, 150, 300)
    rows[300:400, 0] += 0.4
    rows[400:410, 0] = -0.5
    expect_equal(built, answers(built, rows), booster.predict(rows))
    assert "categories" in " ".join(built.notes)


def test_a_config_may_name_the_tensors_and_ask_for_float32(tmp_path):
    x, signal = data(missing=0)
    booster = lgb_train({"objective": "binary"}, x, target("binary", signal))
    booster.save_model(tmp_path / "m.txt")
    config = {
        "input": {"name": "rows", "datatype": "FP32", "shape": [-1, 6]},
        "output": {"name": "chance", "datatype": "FP32", "shape": [-1, 2]},
    }
    built = lightgbm_trees.build(tmp_path, "m.txt", config)
    session = ort.InferenceSession(built.model.SerializeToString())
    got = session.run(["chance"], {"rows": x})[0]
    np.testing.assert_allclose(got[:, 1], booster.predict(x.astype(np.float64)), rtol=1e-4, atol=1e-5)
    assert built.labelling.source == "chance"
