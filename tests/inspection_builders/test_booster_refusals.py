"""Broken and hostile booster files are refused with our own errors: no crash, no hang, no wrong answer."""

import contextlib
import copy
import json
import re
import struct

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.domain.errors.uploads import UploadRefused, WeightsFormat, WeightsValues
from modelyard.inspection.children.builders import lightgbm_trees, ubjson, xgboost_trees


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 4)), rng.random(300)
    booster = xgb.train({"max_depth": 3, "nthread": 1}, xgb.DMatrix(x, y), 3)
    light = lgb.train({"verbose": -1, "num_leaves": 6, "num_threads": 1}, lgb.Dataset(x, y), 3)
    return json.loads(booster.save_raw("json")), bytes(booster.save_raw("ubj")), light.model_to_string()


def xgb_build(directory, data):
    (directory / "m").write_bytes(data)
    return xgboost_trees.build(directory, "m", {})


def changed(model, **tree):
    model = copy.deepcopy(model)
    model["learner"]["gradient_booster"]["model"]["trees"][1] |= tree
    return json.dumps(model).encode()


def a_tree(model):
    return model["learner"]["gradient_booster"]["model"]["trees"][1]


def test_children_that_loop_or_leave_the_tree_are_refused(tmp_path, trained):
    model = trained[0]
    left = a_tree(model)["left_children"]
    for children in ([0, *left[1:]], [10**6, *left[1:]], [-7, *left[1:]], [left[0]] * len(left), [1, 1, *left[2:]]):
        with pytest.raises(WeightsFormat):
            xgb_build(tmp_path, changed(model, left_children=children))


def test_a_chain_too_deep_is_refused_and_not_walked_by_recursion(tmp_path, trained):
    depth = 5_000
    left = [2 * i + 1 for i in range(depth) for _ in (0,)]
    chain_left, chain_right = [-1] * (2 * depth + 1), [-1] * (2 * depth + 1)
    for level in range(depth):
        node = 2 * level
        chain_left[node], chain_right[node] = left[level], 2 * level + 2
    size = len(chain_left)
    tree = {
        "left_children": chain_left,
        "right_children": chain_right,
        "split_conditions": [0.5] * size,
        "split_indices": [0] * size,
        "default_left": [0] * size,
        "split_type": [0] * size,
    }
    with pytest.raises(WeightsFormat, match="deeper"):
        xgb_build(tmp_path, changed(trained[0], **tree))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"split_indices": [99] * 15}, WeightsFormat),
        ({"split_indices": [0.5]}, WeightsFormat),
        ({"left_children": "no"}, WeightsFormat),
        ({"left_children": []}, WeightsFormat),
        ({"left_children": [[1], [2, 3]]}, WeightsFormat),
        ({"tree_param": {"size_leaf_vector": "3"}}, WeightsFormat),
        ({"tree_param": []}, WeightsFormat),
        ({"default_left": [2**70] * 15}, WeightsFormat),
    ],
)
def test_wrong_lists_in_a_tree_are_refused(tmp_path, trained, change, kind):
    with pytest.raises(kind):
        xgb_build(tmp_path, changed(trained[0], **change))


def test_values_that_are_not_finite_are_refused(tmp_path, trained):
    count = len(a_tree(trained[0])["split_conditions"])
    for value in (float("nan"), float("inf"), 1e300):
        with pytest.raises(WeightsValues):
            xgb_build(tmp_path, changed(trained[0], split_conditions=[value] * count))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"learner": 3}',
        b'{"a":' * 100_000,
        b"{L" + b"\xff" * 8,
        b'{"x": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_model_is_refused(tmp_path, data):
    with pytest.raises(WeightsFormat):
        xgb_build(tmp_path, data)


def test_an_unknown_objective_is_named(tmp_path, trained):
    model = copy.deepcopy(trained[0])
    model["learner"]["objective"]["name"] = "my:own"
    with pytest.raises(WeightsFormat, match="my:own"):
        xgb_build(tmp_path, json.dumps(model).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"[$d#L" + struct.pack(">q", 1 << 60),
        b"[#L" + struct.pack(">q", 1 << 60),
        b"[$Z#L" + struct.pack(">q", 1 << 60),
        b"[$[#l" + struct.pack(">i", 5),
        b"[" * 100,
        b"SL" + struct.pack(">q", -1),
        b"Si\x02\xff\xfe",
        b"{i\x01ai\x01i\x01ai\x02}",
        b"H",
        b"i\x01i\x01",
    ],
)
def test_ubjson_that_lies_is_refused(data):
    with pytest.raises(WeightsFormat):
        ubjson.loads(data)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_as_ubjson_end_in_a_value_or_a_refusal(data):
    with contextlib.suppress(WeightsFormat):
        ubjson.loads(data)


@settings(max_examples=80, deadline=None)
@given(cut=st.integers(0, 10_000), flip=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_ubjson_model_is_built_or_refused(tmp_path_factory, trained, cut, flip, byte):
    raw = trained[1]
    damaged = bytearray(raw[: len(raw) - cut % len(raw)] if flip % 2 else raw)
    damaged[flip % len(damaged)] = byte
    with contextlib.suppress(UploadRefused):
        xgb_build(tmp_path_factory.mktemp("x"), bytes(damaged))


# --- LightGBM ----------------------------------------------------------------------------------------------------


def light_build(directory, text):
    (directory / "m.txt").write_text(text)
    return lightgbm_trees.build(directory, "m.txt", {})


@pytest.mark.parametrize(
    ("pattern", "into"),
    [
        (r"left_child=-?\d+", "left_child=0"),
        (r"left_child=-?\d+", "left_child=99"),
        (r"left_child=-?\d+", "left_child=x"),
        (r"num_leaves=\d+", "num_leaves=99999999999"),
        (r"num_leaves=\d+", "num_leaves=0"),
        (r"split_feature=\d+", "split_feature=77"),
        (r"decision_type=\d+", "decision_type=1"),
        (r"decision_type=\d+", "decision_type=4444"),
        (r"leaf_value=\S+", "leaf_value=nan"),
        (r"threshold=\S+", "threshold=nan"),
        (r"is_linear=0", "is_linear=1"),
        (r"objective=\w+", "objective=mine"),
        (r"max_feature_idx=\d+", "max_feature_idx=-5"),
        (r"num_tree_per_iteration=\d+", "num_tree_per_iteration=2"),
        (r"end of trees", ""),
        (r"^tree\n", ""),
    ],
)
def test_a_wrong_line_is_refused(tmp_path, trained, pattern, into):
    text = trained[2]
    assert re.search(pattern, text)
    with pytest.raises(UploadRefused):
        light_build(tmp_path, re.sub(pattern, into, text))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_text_model_is_built_or_refused(tmp_path_factory, trained, data):
    text = trained[2]
    start = data.draw(st.integers(0, len(text) - 1))
    piece = data.draw(st.text(max_size=8))
    with contextlib.suppress(UploadRefused):
        light_build(tmp_path_factory.mktemp("l"), text[:start] + piece + text[start + data.draw(st.integers(0, 30)) :])
