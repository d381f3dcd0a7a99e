"""XML into a small tree of elements, without anything in it that a reader would have to follow.

Read by the standard library's expat with every door shut: no document type (so no entities of its own, no expansion, no
outside files), no processing instructions, UTF-8 only (so that no other reader can see another text in these bytes),
and bounded depth, elements and bytes. Of text, only the first few characters of an element are kept: sizes.
"""

from dataclasses import dataclass, field
from typing import Final, NoReturn
from xml.parsers import expat

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import AuditTimeout, FileTooLarge, WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import InspectionPolicy

_ELEMENTS: Final = 2_000_000
_ENCODINGS: Final = frozenset({"utf-8", "us-ascii", "ascii"})
_CHUNK: Final = 1 << 20
_TEXT: Final = 32


@dataclass(slots=True)
class Element:
    """One element: its name, its attributes, the elements in it in order, and the beginning of its text."""

    tag: str
    attributes: dict[str, str]
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list["Element"]:
        """The direct children of this name."""
        return [child for child in self.children if child.tag == tag]

    def one(self, tag: str) -> "Element | None":
        """The only direct child of this name; `WeightsFormat` when there are several."""
        found = self.all(tag)
        if len(found) > 1:
            raise WeightsFormat(f"{quote(self.tag)} holds {quote(tag)} {len(found)} times", hint="save the model again")
        return found[0] if found else None


class _Reader:
    """What expat calls."""

    def __init__(self, *, depth: int) -> None:
        self.depth = depth
        self.count = 0
        self.root: Element | None = None
        self.open: list[Element] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if len(self.open) >= self.depth:
            raise WeightsFormat(f"elements are nested deeper than {self.depth}", hint="save the model again")
        if self.count > _ELEMENTS:
            raise AuditTimeout(f"the XML holds more than {_ELEMENTS} elements", hint="export the model to ONNX")
        element = Element(tag, attributes)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def characters(self, text: str) -> None:
        element = self.open[-1]
        if len(element.text) < _TEXT:
            element.text += text[:_TEXT]

    def end(self, tag: str) -> None:
        del tag
        self.open.pop()

    def declared(self, version: str, encoding: str | None, standalone: int) -> None:
        del version, standalone
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise WeightsFormat(f"the XML is in the encoding {quote(encoding)}, not UTF-8", hint="save the model again")

    def forbidden(self, *_: object) -> NoReturn:
        raise WeightsUnsafe(
            "the XML has a document type, entities or processing instructions, which a model never has",
            hint="save the model again with openvino.save_model",
        )


def read_xml(data: Octets, policy: InspectionPolicy) -> Element:
    """The root element.

    Raises:
        WeightsFormat: not well-formed, not UTF-8, nested too deep.
        WeightsUnsafe: a document type, an entity, a processing instruction.
        AuditTimeout, FileTooLarge: more elements or bytes than are read.
    """
    if len(data) > policy.text_model_bytes:
        raise FileTooLarge(f"the XML has {len(data)} bytes, at most {policy.text_model_bytes} are read")
    reader = _Reader(depth=policy.protobuf_depth)
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.XmlDeclHandler = reader.declared
    parser.StartDoctypeDeclHandler = reader.forbidden
    parser.EntityDeclHandler = reader.forbidden
    parser.ExternalEntityRefHandler = reader.forbidden
    parser.ProcessingInstructionHandler = reader.forbidden
    parser.SkippedEntityHandler = reader.forbidden
    try:
        for at in range(0, len(data), _CHUNK):
            parser.Parse(data[at : at + _CHUNK], False)  # noqa: FBT003  (its only signature)
        parser.Parse(b"", True)  # noqa: FBT003
    except expat.ExpatError as error:
        raise WeightsFormat(
            f"the XML is damaged at line {error.lineno}: {quote(expat.ErrorString(error.code))}",
            hint="save the model again with openvino.save_model",
        ) from error
    if reader.root is None:
        raise WeightsFormat("the XML holds no element", hint="save the model again")
    return reader.root
