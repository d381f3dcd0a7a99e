"""What is read together is what the ordinary reader says of each by itself, and so is what is written together."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_models import M1, M_BOOL, M_BYTES, M_COLUMNS, M_INT8, M_TWO, signature, spec

from modelyard.domain.errors import ModelyardError
from modelyard.inference.protocol import Forms, Signature, forms_of, read_infer, write_infer, write_together

FP64 = signature(spec("x", "FP64", (-1, 2)))
INT64 = signature(spec("x", "INT64", (-1, 2)), outputs=(spec("y", "INT64", (-1, 3)), spec("z", "FP32", (-1, 2, 2))))
MODELS = [M1, M_INT8, FP64, INT64]


def body(model: Signature, data: Any, *, rows: int = 1, separators: Any = None, **more: Any) -> bytes:
    one = model.single
    assert one is not None
    shape = [rows, *one.shape[1:]]
    tensor = {"name": one.name, "shape": shape, "datatype": one.datatype, "data": data}
    return json.dumps({**more, "inputs": [tensor]}, separators=separators).encode()


def binary(model: Signature, raw: bytes, *, rows: int = 1, **more: Any) -> tuple[bytes, int]:
    one = model.single
    assert one is not None
    tensor = {"name": one.name, "shape": [rows, *one.shape[1:]], "datatype": one.datatype}
    text = json.dumps({**more, "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    return text + raw, len(text)


def learned(model: Signature, *bodies: bytes, json_size: int | None = None) -> Forms:
    forms = forms_of(model)
    assert forms is not None
    for one in bodies:
        for _ in range(2):
            forms.learn(one, json_size)
    return forms


def alone(model: Signature, one: bytes, json_size: int | None = None) -> Any:
    try:
        return read_infer(one, json_size=json_size, signature=model)
    except ModelyardError:
        return None


def agree(model: Signature, forms: Forms, bodies: list[bytes], json_size: int | None = None) -> list[int]:
    """Hold what was read together against what is read alone; the numbers of what was read together."""
    lots, rest = forms.read(bodies, json_size)
    picked = [index for lot in lots for index in lot.picked]
    assert sorted(picked + rest) == list(range(len(bodies)))
    for lot in lots:
        rows = lot.form.rows
        for position, index in enumerate(lot.picked):
            single = alone(model, bodies[index], json_size)
            assert single is not None, bodies[index]
            (array,) = single.inputs.values()
            part = lot.inputs[position * rows : (position + 1) * rows]
            assert (part.dtype, part.shape, part.tobytes()) == (array.dtype, array.shape, array.tobytes())
            asked = ("rows", "id", "wanted", "priority", "timeout_us", "binary_default")
            assert [getattr(single, name) for name in asked] == [getattr(lot.form.request, name) for name in asked]
    return picked


PIECES = [
    b"", b",", b"]", b"[", b'"', b"1", b"-", b"\\", b"NaN", b" ", b"\n", b"\xff", b"9" * 40, b"e9", b"e400", b"0",
    b".5", b"null", b"true", b"{}", b'"a"', b"],[", b"1,2", b'],"id":"a","data":[', b"1e39", b"3.5e38", b"-0", b"0x1",
]  # fmt: skip


@st.composite
def turns(draw: st.DrawFn) -> tuple[Signature, list[bytes], list[bytes]]:
    """A model, bodies to learn from, and bodies of one turn, some of them damaged."""
    model = draw(st.sampled_from(MODELS))
    assert model.single is not None
    rows = draw(st.integers(1, 2))
    width = int(np.prod(model.single.shape[1:]))
    values = st.floats(-100, 100, width=16) if model.single.kind.is_float else st.integers(0, 120)
    more = draw(st.sampled_from([{}, {"outputs": [{"name": "y"}]}, {"parameters": {"binary_data_output": True}}]))
    separators = draw(st.sampled_from([None, (",", ":")]))
    made = []
    for _ in range(draw(st.integers(3, 6))):
        data = draw(st.lists(values, min_size=rows * width, max_size=rows * width))
        made.append(body(model, data, rows=rows, separators=separators, **more))
    turn = []
    for one in made[1:]:
        if draw(st.integers(0, 2)) == 0:
            at = draw(st.integers(one.index(b'"data"'), len(one)))
            one = one[:at] + draw(st.sampled_from(PIECES)) + one[at + draw(st.integers(0, 2)) :]  # noqa: PLW2901
        turn.append(one)
    return model, made[:1], turn


@settings(max_examples=600, deadline=None)
@given(turns())
def test_what_is_read_together_is_what_each_would_be(case: tuple[Signature, list[bytes], list[bytes]]) -> None:
    model, first, turn = case
    agree(model, learned(model, *first), turn)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5), st.binary(min_size=12, max_size=12))
@example([bytes(12), np.array([1, np.inf, 2], "<f4").tobytes()], bytes(12))
def test_binary_bodies_together_are_what_each_would_be(raws: list[bytes], good: bytes) -> None:
    _, size = binary(M1, bytes(12))
    text = binary(M1, bytes(12))[0][:size]
    forms = learned(M1, text + good, json_size=size)
    agree(M1, forms, [text + raw for raw in [*raws, good]], size)


def test_a_known_form_is_read_together() -> None:
    for model in MODELS:
        count = int(np.prod(model.single.shape[1:]))  # type: ignore[union-attr]
        bodies = [body(model, [number] * count) for number in range(20)]
        assert agree(model, learned(model, bodies[0]), bodies) == list(range(20))
        nested = [body(model, [[number] * count]) for number in range(20)]
        assert agree(model, learned(model, nested[0]), nested) == list(range(20))
    whole, size = binary(M1, bytes(12))
    assert agree(M1, learned(M1, whole, json_size=size), [whole] * 5, size) == list(range(5))


def test_one_wrong_body_takes_no_other_with_it() -> None:
    bodies = [body(M1, [number, 2, 3]) for number in range(6)]
    bodies[3] = bodies[3].replace(b"[3, 2, 3]", b"[3, 2, x]")
    forms = learned(M1, bodies[0])
    assert agree(M1, forms, bodies) == []  # each by itself, where the five are taken
    assert [alone(M1, one) is not None for one in bodies] == [True, True, True, False, True, True]


def test_bodies_cannot_lend_each_other_values() -> None:
    good = body(M1, [1, 2, 3])
    more, less = body(M1, [1, 2, 3, 4]), body(M1, [1, 2])
    cut = good.replace(b"[1, 2, 3]", b"[1, 2, 3], [")
    forms = learned(M1, good)
    for turn in ([more, less], [less, more], [cut, good], [good, cut, good]):
        for index in agree(M1, forms, turn):
            assert turn[index] == good


@pytest.mark.parametrize(
    "more",
    [
        {"id": "a"},
        {"parameters": {"priority": 1}},
        {"parameters": {"timeout": 5}},
        {"outputs": [{"name": "y", "parameters": {"classification": 1}}]},
    ],
)
def test_what_asks_for_a_look_of_its_own_has_no_form(more: dict[str, Any]) -> None:
    one = body(M1, [1, 2, 3], **more)
    assert learned(M1, one).read([one], None) == ([], [0])


def test_a_form_is_learned_at_the_second_sight_and_a_bad_one_never() -> None:
    forms = forms_of(M1)
    assert forms is not None
    good, bad = body(M1, [1, 2, 3]), body(M1, [1, 2, 3], rows=2)
    for sight in range(3):
        assert bool(forms.read([good], None)[0]) is (sight == 2)
        assert not forms.read([bad], None)[0]
        forms.learn(good, None)
        forms.learn(bad, None)


def test_models_whose_values_need_a_look_have_no_forms() -> None:
    assert forms_of(M_BYTES) is None
    assert forms_of(M_TWO) is None
    assert forms_of(M_COLUMNS) is None
    assert forms_of(signature(spec("x", "FP32", (-1, -1)))) is None
    one, size = binary(M_BOOL, b"\x01")
    assert learned(M_BOOL, one, json_size=size).read([one], size) == ([], [0])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    ("outputs", "more"),
    [
        ({"y": ("FP32", (2,))}, {}),
        ({"y": ("FP32", ())}, {}),
        ({"y": ("FP64", (2, 3))}, {}),
        ({"y": ("INT8", (2,)), "z": ("FP32", (2, 2)), "b": ("BOOL", (1,))}, {}),
        ({"label": ("BYTES", ()), "p": ("FP32", (3,))}, {}),
        ({"y": ("FP32", (2,)), "z": ("INT64", (1,))}, {"outputs": [{"name": "z"}, {"name": "y"}]}),
        ({"y": ("FP32", (2,))}, {"parameters": {"binary_data_output": True}}),
        ({"y": ("BF16", (2,)), "z": ("FP16", (4,))}, {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}),
        ({"y": ("FP32", (2,)), "z": ("FP16", (4,))}, {"parameters": {"binary_data_output": True}}),
        ({"y": ("FP32", (0,))}, {}),
    ],
)
def test_answers_written_together_are_those_written_alone(
    rows: int, outputs: dict[str, tuple[str, tuple[int, ...]]], more: dict[str, Any]
) -> None:
    made = tuple(spec(name, kind, (-1, *tail)) for name, (kind, tail) in outputs.items())
    model = signature(spec("x", "FP32", (-1, 3)), outputs=made)
    one = body(model, [1, 2, 3] * rows, rows=rows, **more)
    (lot,), _ = learned(model, one).read([one] * 4, None)
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    for name, (kind, tail) in outputs.items():
        values = random.standard_normal((4 * rows, *tail)) * 100
        if kind == "BYTES":
            arrays[name] = np.array([f"ö{value:.1f}" for value in values.ravel()], dtype=object).reshape(values.shape)
        else:
            arrays[name] = values.astype(
                {"FP64": "f8", "INT8": "i1", "INT64": "i8", "BOOL": "?", "FP16": "f2"}.get(kind, "f4")
            )
    arrays[made[0].name] = np.where(arrays[made[0].name] == 0, 0, arrays[made[0].name])
    if made[0].datatype == "FP32" and arrays[made[0].name].size:
        arrays[made[0].name].ravel()[0] = np.nan
    for _ in range(2):  # the second time with what was kept
        together = write_together(lot.form, arrays, 4, signature=model, version="3", model_name="m")
        if together is None:
            assert len(outputs) > 1
            assert more
            continue
        for index in range(4):
            own = {name: array[index * rows : (index + 1) * rows] for name, array in arrays.items()}
            single = write_infer(lot.form.request, own, signature=model, version="3", model_name="m")
            assert together.opening + together.middles[index] + together.closing == single.body
            assert together.json_size == single.json_size
