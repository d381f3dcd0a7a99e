"""OpenVINO models: what is read off them, and what is refused before any library sees it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.domain.errors.uploads import (
    BundleMismatch,
    TypeNotAllowed,
    UploadRefused,
    WeightsFormat,
    WeightsUnsafe,
)
from modelyard.inspection import Inspection, InspectionPolicy
from modelyard.inspection.weights.openvino import read_openvino
from modelyard.inspection.weights.openvino.operators import OPERATORS

XML = """<?xml version="1.0"?>
<net name="m" version="11">
  <layers>
    <layer id="0" name="x" type="Parameter" version="opset1">
      <data shape="?,4" element_type="f32" />
      <output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>4</dim></port></output>
    </layer>
    <layer id="1" name="w" type="Const" version="opset1">
      <data element_type="f32" shape="4, 3" offset="0" size="48" />
      <output><port id="0" precision="FP32"><dim>4</dim><dim>3</dim></port></output>
    </layer>
    <layer id="2" name="z" type="MatMul" version="opset1">
      <data transpose_a="false" transpose_b="false" />
      <input>
        <port id="0" precision="FP32"><dim>-1</dim><dim>4</dim></port>
        <port id="1" precision="FP32"><dim>4</dim><dim>3</dim></port>
      </input>
      <output><port id="2" precision="FP32" names="y,also"><dim>-1</dim><dim>3</dim></port></output>
    </layer>
    <layer id="3" name="end" type="Result" version="opset1">
      <input><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim></port></input>
    </layer>
  </layers>
  <edges>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0" />
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1" />
    <edge from-layer="2" from-port="2" to-layer="3" to-port="0" />
  </edges>
</net>
"""
BIN = bytes(48)


def read(text: str, *, size: int | None = 48, **policy: int) -> object:
    return read_openvino(text.encode(), constants_size=size, policy=InspectionPolicy(**policy))


def test_inputs_outputs_and_constants_are_read_without_the_library() -> None:
    facts = read_openvino(XML.encode(), constants_size=48, policy=InspectionPolicy())
    assert [(one.name, one.precision, one.shape) for one in facts.inputs] == [("x", "FP32", (-1, 4))]
    assert [(one.name, one.precision, one.shape) for one in facts.outputs] == [("y", "FP32", (-1, 3))]
    assert [(one.begin, one.end) for one in facts.constants] == [(0, 48)]
    assert facts.layers == 4


@pytest.mark.parametrize(
    ("old", "new", "refused", "why"),
    [
        ("<?xml version=\"1.0\"?>", "<!DOCTYPE net [<!ENTITY e \"x\">]>", WeightsUnsafe, "document type"),
        ("<?xml version=\"1.0\"?>", "<!DOCTYPE net SYSTEM \"file:///etc/hostname\">", WeightsUnsafe, "document type"),
        ("<layers>", "<?php x?><layers>", WeightsUnsafe, "processing instructions"),
        ("<?xml version=\"1.0\"?>", "<?xml version=\"1.0\" encoding=\"latin-1\"?>", WeightsFormat, "UTF-8"),
        ("</net>", "", WeightsFormat, "damaged"),
        ("<net name", "<PMML name", WeightsFormat, "damaged"),
        ('version="11"', 'version="7"', WeightsFormat, "versions 10 and 11"),
        ('type="MatMul" version="opset1"', 'type="MatMul" version="extension"', WeightsUnsafe, "published"),
        ('type="MatMul"', 'type="CustomRelu"', WeightsUnsafe, "CustomRelu"),
        ('type="MatMul"', 'type="ReadValue"', TypeNotAllowed, "state"),
        ('size="48"', 'size="49"', WeightsFormat, "takes 48"),
        ('offset="0"', 'offset="4"', WeightsFormat, "ends at byte 52"),
        ('offset="0"', 'offset="-4"', WeightsFormat, "not a size"),
        ('shape="4, 3" offset="0" size="48"', 'shape="4, 3" offset="0"', WeightsFormat, "not a size"),
        ('shape="4, 3"', 'shape="4, 3, 9999999999999999999"', WeightsFormat, "states 48 bytes"),
        ('element_type="f32" shape="4, 3"', 'element_type="string" shape="4, 3"', WeightsFormat, "string"),
        ('<dim>-1</dim><dim>4</dim></port></output>', '<dim>-2</dim></port></output>', WeightsFormat, "not a size"),
        ('to-layer="3" to-port="0"', 'to-layer="3" to-port="7"', WeightsFormat, "leads nowhere"),
        ('from-layer="1" from-port="0"', 'from-layer="2" from-port="2"', WeightsFormat, "circle"),
        ('<edge from-layer="1" from-port="0" to-layer="2" to-port="1" />', "", WeightsFormat, "lacks an input"),
        ('<layer id="1"', '<layer id="0"', WeightsFormat, "twice"),
        ('type="Result"', 'type="Relu"', WeightsFormat, "no input or no output"),
    ],
)  # fmt: skip
def test_what_a_model_never_has_is_refused(old: str, new: str, refused: type[UploadRefused], why: str) -> None:
    assert old in XML
    with pytest.raises(refused, match=re.escape(why)):
        read(XML.replace(old, new, 1))


def test_constants_need_the_file_that_holds_them() -> None:
    with pytest.raises(BundleMismatch, match=r"\.bin"):
        read(XML, size=None)


def test_depth_and_layers_have_limits() -> None:
    with pytest.raises(WeightsFormat, match="nested deeper"):
        read(XML.replace("<layers>", "<a>" * 70 + "</a>" * 70 + "<layers>"))
    with pytest.raises(WeightsFormat, match="more than 3 layers"):
        read(XML, onnx_nodes=3)


def test_bodies_of_loops_are_read_like_the_model_itself() -> None:
    body = '<body><layers><layer id="0" name="in" type="Evil" version="opset1" /></layers></body>'
    text = XML.replace('type="MatMul" version="opset1">', f'type="TensorIterator" version="opset1">{body}')
    with pytest.raises(WeightsUnsafe, match="Evil"):
        read(text)


def test_every_operator_on_the_list_is_one_that_openvino_publishes() -> None:
    """And none of those that hold state or foreign code is on it."""
    headers = Path(pytest.importorskip("openvino").__file__).parent / "include" / "openvino" / "op"
    said = re.findall(r'OPENVINO_OP\("([A-Za-z0-9_]+)"', "".join(path.read_text() for path in headers.glob("*.hpp")))
    renamed = {"Const", "ReLU", "SoftMax", "PReLU"}  # names in files that differ from those of the classes
    assert OPERATORS - set(said) - renamed <= {"GenerateProposals", "FakeConvert"}
    assert not OPERATORS & {"Assign", "ReadValue", "FrameworkNode", "Extension"}


def test_a_model_is_audited_asked_and_approved(inspect: Callable[..., Inspection]) -> None:
    done = inspect({"m.xml": XML.encode(), "m.bin": bytes(range(48))})
    assert done.report.refusal is None, done.report.refusal
    assert done.package_dir is not None
    assert {path.name for path in done.package_dir.iterdir()} == {"package.json", "model.xml", "model.bin"}


def test_weights_that_are_no_numbers_are_refused(inspect: Callable[..., Inspection]) -> None:
    done = inspect({"m.xml": XML.encode(), "m.bin": b"\x00\x00\xc0\x7f" * 12})
    assert done.report.refusal is not None
    assert done.report.refusal.code == "weights_values"


def test_a_file_beside_the_model_that_it_does_not_name_is_refused(inspect: Callable[..., Inspection]) -> None:
    done = inspect({"m.xml": XML.encode(), "m.bin": BIN, "other.bin": BIN})
    assert done.report.refusal is not None
    assert done.report.refusal.code == "bundle_mismatch"


def test_pmml_under_the_same_ending_is_told_apart(inspect: Callable[..., Inspection]) -> None:
    done = inspect({"m.xml": b'<?xml version="1.0"?><PMML version="4.4"></PMML>'})
    assert done.report.refusal is not None
    assert done.report.refusal.code == "type_not_allowed"
    assert "PMML" in done.report.refusal.detail
