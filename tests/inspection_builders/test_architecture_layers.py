"""Bare weights with a list of layers: right answers, and refusals that name the layer and the tensor."""

import itertools
import json
import struct

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.domain.contract import Task
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid, UploadRefused, WeightsFormat, WeightsValues
from modelyard.inspection.children.builders import architecture

DTYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64"}
GOOD = {
    "format": "safetensors",
    "task": "classification",
    "num_labels": 2,
    "architecture": [{"linear": {"weight": "w", "bias": "b"}}],
    "input": {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
    "output": {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
}


def save(directory, tensors):
    header, data = {}, b""
    for name, value in tensors.items():
        dtype, raw = value if isinstance(value, tuple) else (DTYPES[value.dtype.name], value)
        blob = raw.tobytes()
        header[name] = {"dtype": dtype, "shape": list(raw.shape), "data_offsets": [len(data), len(data) + len(blob)]}
        data += blob
    text = json.dumps(header).encode()
    (directory / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def build(directory, tensors, config):
    save(directory, tensors)
    built = architecture.build(directory, "weights.safetensors", config)
    onnx.checker.check_model(built.model, full_check=True)
    return built


def run(built, x):
    session = ort.InferenceSession(built.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def config_of(layers, shape, datatype="FP32", **more):
    return {"architecture": layers, "input": {"name": "x", "datatype": datatype, "shape": shape}, **more}


def floats(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_the_linear_model_of_two_by_three_answers_w_x_plus_b(tmp_path):
    w, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([6, 7], np.float32)
    built = build(tmp_path, {"w": w, "b": b}, GOOD)
    x = floats(0, 5, 3)
    np.testing.assert_allclose(run(built, x), x @ w.T + b, rtol=1e-5, atol=1e-5)
    assert built.task is Task.CLASSIFICATION
    assert built.labelling.source == "y"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_float_type_of_weights_is_read(tmp_path, dtype):
    w = floats(1, 4, 3, dtype=dtype)
    built = build(tmp_path, {"w": w}, config_of([{"linear": {"weight": "w"}}], [-1, 3]))
    x = floats(2, 7, 3)
    np.testing.assert_allclose(run(built, x), x @ w.astype(np.float64).T, rtol=1e-5, atol=1e-5)


def test_bfloat16_weights_are_widened_exactly(tmp_path):
    w = (floats(3, 2, 3).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    halves = (w.view(np.uint32) >> 16).astype("<u2")
    built = build(tmp_path, {"w": ("BF16", halves)}, config_of([{"linear": {"weight": "w"}}], [-1, 3]))
    x = np.eye(3, dtype=np.float32)
    assert (run(built, x) == w.T).all()


def test_float64_weights_and_input_keep_their_precision(tmp_path):
    w = floats(4, 2, 3, dtype=np.float64)
    built = build(tmp_path, {"w": w}, config_of([{"linear": {"weight": "w"}}], [-1, 3], "FP64"))
    x = floats(5, 6, 3, dtype=np.float64)
    answer = run(built, x)
    assert answer.dtype == np.float64
    np.testing.assert_allclose(answer, x @ w.T, rtol=1e-13, atol=1e-13)


def test_float64_weights_under_a_float32_layer_are_rounded_and_said_so(tmp_path):
    layers = [{"linear": {"weight": "w"}}, {"elu": {}}]
    built = build(tmp_path, {"w": floats(4, 2, 3, dtype=np.float64)}, config_of(layers, [-1, 3]))
    assert "rounded" in built.notes[0]


# --- against numpy -----------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "relu": ({}, lambda x: np.maximum(x, 0)),
    "sigmoid": ({}, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": ({}, np.tanh),
    "leaky_relu": ({"negative_slope": 0.2}, lambda x: np.where(x > 0, x, 0.2 * x)),
    "elu": ({"alpha": 0.7}, lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
    "gelu": ({"approximate": "tanh"}, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    "softmax": ({}, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    "log_softmax": ({}, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
    "dropout": ({"p": 0.3}, lambda x: x),
}


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    kinds=st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=5, max_size=5),
    seed=st.integers(0, 2**31),
    residual=st.booleans(),
)
def test_any_dense_stack_equals_numpy(tmp_path_factory, widths, kinds, seed, residual):
    layers, tensors, steps = [], {}, []
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        w, b = floats(seed + index, after, before) / before**0.5, floats(seed + index + 99, after)
        tensors |= {f"w{index}": w, f"b{index}": b}
        options, function = ACTIVATIONS[kinds[index]]
        inner = [{"linear": {"weight": f"w{index}", "bias": f"b{index}"}}, {kinds[index]: options}]
        add = residual and before == after
        layers += [{"residual": {"layers": inner}}] if add else inner
        steps.append((w.astype(float), b.astype(float), function, add))
    built = build(tmp_path_factory.mktemp("dense"), tensors, config_of(layers, [-1, widths[0]]))
    x = floats(seed, 4, widths[0])
    expected = x.astype(float)
    for w, b, function, add in steps:
        after = function(expected @ w.T + b)
        expected = after + expected if add else after
    np.testing.assert_allclose(run(built, x), expected, rtol=2e-4, atol=2e-5)


def windows(x, kernel, stride, padding, dilation, fill):
    x = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]], constant_values=fill)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axes)
    step = tuple(slice(None, None, s) for s in stride)
    hole = tuple(slice(None, None, d) for d in dilation)
    return view[(slice(None), slice(None), *step, *hole)]


@settings(max_examples=60, deadline=None)
@given(
    dims=st.integers(1, 2),
    window=st.tuples(st.integers(1, 2), *[st.integers(1, 3)] * 2, st.integers(0, 1), st.integers(1, 2)),
    kind=st.sampled_from(["max", "avg"]),
    seed=st.integers(0, 2**31),
)
def test_any_convolution_with_norm_and_pools_equals_numpy(tmp_path_factory, dims, window, kind, seed):
    groups, kernel, stride, padding, dilation = window
    channels, filters, size = 4, 6, 11
    w = floats(seed, filters, channels // groups, *([kernel] * dims))
    b = floats(seed + 1, filters)
    norm = [np.abs(floats(seed + n, filters)) + 0.1 for n in range(4)]
    tensors = {"w": w, "b": b, "g": norm[0], "s": norm[1], "m": norm[2], "v": norm[3]}
    options = {"groups": groups, "stride": stride, "padding": padding, "dilation": [dilation] * dims}
    layers = [
        {f"conv{dims}d": {"weight": "w", "bias": "b", **options}},
        {"batch_norm": {"weight": "g", "bias": "s", "running_mean": "m", "running_var": "v"}},
        {f"{kind}_pool{dims}d": {"kernel_size": 2, "stride": 1, "padding": 1}},
        {f"global_{kind}_pool": {}},
    ]
    built = build(tmp_path_factory.mktemp("conv"), tensors, config_of(layers, [-1, channels, *([size] * dims)]))
    x = floats(seed + 7, 2, channels, *([size] * dims))
    view = windows(x.astype(float), [kernel] * dims, [stride] * dims, [padding] * dims, [dilation] * dims, 0)
    parts = []
    for group in range(groups):
        ins = slice(group * channels // groups, (group + 1) * channels // groups)
        outs = slice(group * filters // groups, (group + 1) * filters // groups)
        letters = "ij"[:dims], "kl"[:dims]
        parts.append(np.einsum(f"nc{letters[0]}{letters[1]},oc{letters[1]}->no{letters[0]}", view[:, ins], w[outs]))
    tail = (slice(None), *([None] * dims))
    y = np.concatenate(parts, 1) + b[tail]
    y = (y - norm[2][tail]) / np.sqrt(norm[3][tail] + 1e-5) * norm[0][tail] + norm[1][tail]
    fill = -np.inf if kind == "max" else 0
    pooled = windows(y, [2] * dims, [1] * dims, [1] * dims, [1] * dims, fill)
    reduce = np.max if kind == "max" else np.mean
    inner, outer = tuple(range(2 + dims, 2 + 2 * dims)), tuple(range(2, 2 + dims))
    expected = reduce(reduce(pooled, axis=inner), axis=outer)
    np.testing.assert_allclose(run(built, x), expected, rtol=3e-4, atol=3e-4)


def test_an_embedding_text_model_with_layer_norm_answers_like_numpy(tmp_path):
    table, gain, shift, w = floats(1, 20, 6), floats(2, 6), floats(3, 6), floats(4, 2, 30)
    layers = [
        {"embedding": {"weight": "e"}},
        {"layer_norm": {"weight": "g", "bias": "s"}},
        {"flatten": {}},
        {"linear": {"weight": "w"}},
    ]
    built = build(tmp_path, {"e": table, "g": gain, "s": shift, "w": w}, config_of(layers, [-1, 5], "INT64"))
    ids = np.random.default_rng(0).integers(0, 20, (3, 5))
    x = table[ids].astype(float)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + shift
    np.testing.assert_allclose(run(built, ids), x.reshape(3, -1) @ w.T, rtol=1e-4, atol=1e-4)


def test_reshape_and_a_shortcut_branch_keep_their_order(tmp_path):
    a, b = floats(1, 8, 6), floats(2, 8, 6)
    layers = [
        {"residual": {"layers": [{"linear": {"weight": "a"}}], "shortcut": [{"linear": {"weight": "b"}}]}},
        {"reshape": {"shape": [2, 4]}},
    ]
    built = build(tmp_path, {"a": a, "b": b}, config_of(layers, [-1, 6]))
    x = floats(3, 5, 6)
    np.testing.assert_allclose(run(built, x), (x @ (a + b).T).reshape(5, 2, 4), rtol=1e-4, atol=1e-4)


# --- refusals ----------------------------------------------------------------------------------------------------

W, B = floats(1, 2, 3), floats(2, 2)


@pytest.mark.parametrize(
    ("tensors", "change", "kind", "words"),
    [
        ({"w": floats(1, 2, 4), "b": np.zeros(0, np.float32)}, {}, BundleMismatch, ["[0].linear", "'w'", "[2, 4]"]),
        ({"w": W}, {}, BundleMismatch, ["architecture[0].linear", "no tensor 'b'"]),
        ({"w": W, "b": B, "extra": B}, {}, BundleMismatch, ["'extra'"]),
        ({"w": floats(1, 3, 2), "b": B}, {}, BundleMismatch, ["'w'"]),
        ({"w": W, "b": B}, {"architecture": [{"magic": {}}]}, ConfigInvalid, ["'magic'"]),
        ({"w": W, "b": B}, {"architecture": [{"linear": {"weight": "w", "b": "b"}}]}, ConfigInvalid, ["'b'"]),
        ({"w": W, "b": B}, {"architecture": []}, ConfigInvalid, ["list of layers"]),
        ({"w": W, "b": B}, {"architecture": [{"linear": 3}]}, ConfigInvalid, ["options"]),
        ({"w": W, "b": B}, {"architecture": [{"linear": {"weight": ["w"]}}]}, ConfigInvalid, ["weight"]),
        ({"w": W, "b": B}, {"architecture": [{"gelu": {"approximate": []}}]}, ConfigInvalid, ["approximate"]),
        ({"w": W, "b": B}, {"num_labels": 5}, BundleMismatch, ["num_labels"]),
        ({"w": W, "b": B}, {"output": {"name": "y", "shape": [-1, 9]}}, BundleMismatch, ["output"]),
        ({"w": W, "b": B}, {"input": {"name": "x", "shape": [-1, 4]}}, BundleMismatch, ["4"]),
        ({"w": W, "b": B}, {"input": {"name": "x", "shape": [0]}}, ConfigInvalid, ["shape"]),
        ({"w": W, "b": B}, {"input": {"name": "x", "datatype": "BYTES", "shape": [3]}}, ConfigInvalid, ["BYTES"]),
        ({"w": W * np.nan, "b": B}, {}, WeightsValues, ["'w'"]),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_by_name(tmp_path, tensors, change, kind, words):
    with pytest.raises(kind) as caught:
        build(tmp_path, tensors, GOOD | change)
    assert all(word in caught.value.detail for word in words), caught.value.detail


def test_a_weight_kept_in_by_out_gets_the_hint_and_is_then_accepted(tmp_path):
    w = floats(1, 3, 2)
    layers = [{"linear": {"weight": "w"}}]
    with pytest.raises(BundleMismatch) as caught:
        build(tmp_path, {"w": w}, config_of(layers, [-1, 3]))
    assert "transposed" in caught.value.hint
    layers[0]["linear"]["transposed"] = True
    x = floats(3, 4, 3)
    np.testing.assert_allclose(run(build(tmp_path, {"w": w}, config_of(layers, [-1, 3])), x), x @ w, rtol=1e-5)


def test_layers_nested_without_end_are_refused(tmp_path):
    layers = [{"relu": {}}]
    for _ in range(200):
        layers = [{"residual": {"layers": layers}}]
    with pytest.raises(ConfigInvalid, match="nested"):
        build(tmp_path, {"w": W}, config_of(layers, [-1, 3]))


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), length=st.integers(0, 2**64 - 1))
def test_any_bytes_as_safetensors_are_refused_and_never_crash(tmp_path_factory, data, length):
    directory = tmp_path_factory.mktemp("junk")
    (directory / "weights.safetensors").write_bytes(struct.pack("<Q", length) + data)
    with pytest.raises(UploadRefused):
        architecture.build(directory, "weights.safetensors", GOOD)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2, 3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
        {"dtype": "F32", "shape": "23", "data_offsets": [0, 24]},
        [],
    ],
)
def test_offsets_that_lie_are_refused(tmp_path, entry):
    text = json.dumps({"w": entry}).encode()
    (tmp_path / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    config = config_of([{"linear": {"weight": "w"}}], [-1, 3])
    with pytest.raises((WeightsFormat, BundleMismatch)):
        architecture.build(tmp_path, "weights.safetensors", config)
