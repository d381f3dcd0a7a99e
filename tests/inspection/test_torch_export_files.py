"""torch.export archives: what is read off them without torch, and what could run code in them."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.domain.errors.uploads import (
    ArchiveBomb,
    ArchiveInvalid,
    BundleMismatch,
    TypeNotAllowed,
    UploadRefused,
    WeightsFormat,
    WeightsUnsafe,
)
from modelyard.domain.report import Verdict
from modelyard.inspection import Inspection, InspectionPolicy
from modelyard.inspection.weights.torch_export import read_torch_export
from modelyard.inspection.weights.torch_export.program import without_extras

SYMBOL = "Symbol('s77', positive=True, integer=True)"


def meta(*sizes: object, dtype: int = 7) -> dict[str, Any]:
    entries = [{"as_int": size} if isinstance(size, int) else {"as_expr": {"expr_str": size}} for size in sizes]
    return {
        "dtype": dtype, "sizes": entries, "strides": [{"as_int": 1}] * len(sizes), "storage_offset": {"as_int": 0},
        "device": {"type": "cpu", "index": None}, "requires_grad": False, "layout": 7,
    }  # fmt: skip


def program() -> dict[str, Any]:
    spec = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": []}])
    node = {
        "target": "torch.ops.aten.mul.Tensor", "name": "y", "metadata": {"stack_trace": "File x"},
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "y"}}],
    }  # fmt: skip
    return {
        "schema_version": {"major": 8, "minor": 20},
        "opset_version": {"aten": 10},
        "range_constraints": {"s77": {"min_val": 1, "max_val": 1024}},
        "guards_code": ["L['x'].size()[0] >= 1"],
        "verifiers": ["TRAINING"],
        "graph_module": {
            "graph": {"nodes": [node], "tensor_values": {"x": meta(SYMBOL, 4), "y": meta(SYMBOL, 4), "w": meta(4)}},
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "w"}, "parameter_name": "w"}},
                    {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
                ],
                "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "y"}}}}],
            },
            "module_call_graph": [{"fqn": "", "signature": {"in_spec": spec, "out_spec": spec}}],
        },
    }


def members(document: dict[str, Any] | None = None, **changed: bytes | None) -> dict[str, bytes]:
    weights = {
        "config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta(4)}}
    }
    found = {
        "archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little", ".data/version": b"3\n",
        "data/weights/weight_0": bytes(16),
        "data/weights/model_weights_config.json": json.dumps(weights).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "models/model.json": json.dumps(document or program()).encode(),
        "data/sample_inputs/model.pt": b"\x80\x02cos\nsystem\n.",
    }  # fmt: skip
    for name, data in changed.items():
        place = name.replace("__", "/")
        found.pop(place, None)
        if data is not None:
            found[place] = data
    return found


def packed(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"m/{name}", data)
    return stream.getvalue()


def read(content: dict[str, bytes]) -> Any:
    return read_torch_export(packed(content), InspectionPolicy())


def altered(change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    document = program()
    change(document)
    return members(document)


def test_tensors_and_operators_are_read_without_torch() -> None:
    facts = read(members())
    assert [(one.name, one.datatype, one.shape) for one in facts.program.inputs] == [("x", "FP32", (-1, 4))]
    assert [(one.name, one.shape) for one in facts.program.outputs] == [("y", (-1, 4))]
    assert facts.operators == {"torch.ops.aten.mul.Tensor"}
    assert facts.tensor_bytes == 16
    assert facts.left_out == ("data/sample_inputs/model.pt",)


def test_guards_and_metadata_are_not_handed_on() -> None:
    text = json.dumps(without_extras(read(members()).program))
    assert "L['x']" not in text
    assert "stack_trace" not in text


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.load", "torch.ops.mylib.evil.default", "torch.ops.aten.from_file.default",
     "_operator.attrgetter", "#ext:evil", "builtins.eval", "torch.ops.aten.mul.Tensor.__class__", 7],
)  # fmt: skip
def test_only_operators_of_aten_are_called(target: object) -> None:
    with pytest.raises(WeightsUnsafe, match="no operator of ATen"):
        read(altered(lambda it: it["graph_module"]["graph"]["nodes"][0].update(target=target)))


def test_operators_in_branches_are_held_to_the_same_list() -> None:
    inner = {"as_graph": {"graph": {"nodes": [{"target": "torch.os.system", "inputs": []}]}}}
    with pytest.raises(WeightsUnsafe, match="no operator"):
        read(altered(lambda it: it["graph_module"]["graph"]["nodes"][0]["inputs"].append({"arg": inner})))


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('id')", "Symbol('s77').__class__", "(lambda: 1)()", "9**9**9", "2** 99", "a" * 5000,
     "Symbol('os')", "open('x')", "s1 if s2 else s3", "[1]", 7],
)  # fmt: skip
def test_sizes_are_arithmetic_and_nothing_else(text: object) -> None:
    def change(document: dict[str, Any]) -> None:
        document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {"as_expr": {"expr_str": text}}

    with pytest.raises(WeightsUnsafe, match="more than arithmetic"):
        read(altered(change))


@pytest.mark.parametrize("text", [SYMBOL, f"2*{SYMBOL}", "Max(1, s0 + 3)", "FloorDiv(s0, 2)**2", "s0*s1/4 - u2"])
def test_ordinary_sizes_are_read(text: str) -> None:
    document = program()
    document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {"as_expr": {"expr_str": text}}
    assert read(members(document)).program.inputs[0].shape == (-1, 4)


def test_trees_of_inputs_name_no_classes() -> None:
    enum = json.dumps({"__enum__": True, "fqn": "os:system"})
    for node in ({"type": "mylib.Config", "context": "null"}, {"type": "builtins.dict", "context": enum}):
        text = json.dumps([1, node])
        call = {"fqn": "", "signature": {"in_spec": text, "out_spec": text}}
        with pytest.raises(WeightsUnsafe, match="tensors, in tuples"):
            read(altered(lambda it, call=call: it["graph_module"].update(module_call_graph=[call])))


def pickled(document: dict[str, Any]) -> bytes:
    return json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": True, "tensor_meta": None}}}).encode()


@pytest.mark.parametrize(
    ("changed", "refused", "why"),
    [
        ({"data__weights__model_weights_config.json": pickled({})}, WeightsUnsafe, "pickled"),
        ({"data__weights__model.pt": pickle.dumps(1)}, WeightsUnsafe, "pickled parts"),
        ({"data__constants__custom_obj_0": pickle.dumps(1)}, WeightsFormat, "belongs to no tensor"),
        ({"data__aotinductor__m__x.so": b"\x7fELF"}, WeightsUnsafe, "compiled"),
        ({"data__weights__evil.so": b"\x7fELF"}, WeightsUnsafe, "compiled"),
        ({"code____torch__.py": b"class M: pass"}, WeightsUnsafe, "program text"),
        ({"data.pkl": pickle.dumps(1)}, WeightsUnsafe, "pickles"),
        ({"surprise": b"x"}, WeightsFormat, "does not write"),
        ({"data__weights__weight_0": bytes(12)}, WeightsFormat, "takes 16 bytes"),
        ({"data__weights__weight_0": None}, WeightsFormat, "takes 16 bytes"),
        ({"data__weights__weight_1": bytes(4)}, WeightsFormat, "belongs to no tensor"),
        ({"byteorder": b"big"}, WeightsFormat, "byteorder"),
        ({"archive_version": None}, WeightsFormat, "archive_version"),
        ({"models__model.json": None}, TypeNotAllowed, "no program"),
        ({"models__model.json": b'{"a": 1, "a": 2}'}, WeightsFormat, "strict JSON"),
    ],
)
def test_parts_that_could_run_code_or_are_not_whole_are_refused(
    changed: dict[str, bytes | None], refused: type[UploadRefused], why: str
) -> None:
    with pytest.raises(refused, match=why):
        read(members(None, **changed))


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda it: it["schema_version"].update(major=9), WeightsFormat),
        (lambda it: it["opset_version"].update(mylib=1), WeightsUnsafe),
        (lambda it: it["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(as_custom_obj={}), WeightsUnsafe),
        (lambda it: it["graph_module"]["signature"]["input_specs"].append({"custom_obj": {}}), WeightsUnsafe),
        (lambda it: it["graph_module"]["signature"]["input_specs"].append({"constant_input": {}}), BundleMismatch),
        (lambda it: it["graph_module"]["signature"]["output_specs"].append({"buffer_mutation": {}}), TypeNotAllowed),
        (lambda it: it["graph_module"]["graph"]["tensor_values"]["x"]["device"].update(type="cuda"), BundleMismatch),
        (lambda it: it["graph_module"]["graph"]["tensor_values"].pop("x"), WeightsFormat),
        (lambda it: it.pop("range_constraints"), WeightsFormat),
    ],
)  # fmt: skip
def test_programs_that_are_not_functions_of_tensors_are_refused(
    change: Callable[[dict[str, Any]], None], refused: type[UploadRefused]
) -> None:
    with pytest.raises(refused):
        read(altered(change))


def test_a_damaged_or_doubled_archive_is_refused() -> None:
    data = packed(members())
    with pytest.raises((ArchiveInvalid, ArchiveBomb)):
        read_torch_export(data[:-9], InspectionPolicy())
    with pytest.raises((ArchiveInvalid, ArchiveBomb)):
        read_torch_export(data + data, InspectionPolicy())


def test_without_torch_a_program_is_packaged_anew_and_waits_for_a_person(
    inspect: Callable[..., Inspection], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = inspect({"m.pt2": packed(members())})
    assert done.report.refusal is None, done.report.refusal
    assert done.report.verdict is Verdict.NEEDS_REVIEW
    assert done.package_dir is not None
    with zipfile.ZipFile(done.package_dir / "model.pt2") as archive:
        assert archive.read("model/data/sample_inputs/model.pt") == b""
        assert archive.read("model/data/weights/weight_0") == bytes(16)
        assert json.loads(archive.read("model/models/model.json"))["guards_code"] == []
    assert not (done.package_dir / "probe-rows.json").exists()
