"""The graph of an OpenVINO model: known layers, joined as they say, constants that lie inside the `.bin` file.

Source of the form: OpenVINO documentation, "OpenVINO IR format" and "Operation sets", IR versions 10 and 11.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, TypeNotAllowed, WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.openvino.operators import BODIES, ELEMENT_BITS, OPERATORS, OPSETS, STATEFUL
from modelyard.inspection.weights.openvino.xml_tree import Element, read_xml

_VERSIONS: Final = frozenset({"10", "11"})
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_MORE_TO_SAY: Final = "save the model again with openvino.save_model"
_NAMES: Final = re.compile(r"(?<!\\),")
_DYNAMIC: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class IrTensor:
    """An input or output: its name, `precision` as the port says it (`FP32`), its sizes (-1: each request chooses)."""

    name: str
    precision: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IrConstant:
    """A constant: its element type, and where it lies in the `.bin` file."""

    name: str
    element: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(slots=True)
class IrFacts:
    """What was found: layers by kind, constants, inputs and outputs in the order of the file."""

    layers: int = 0
    operators: set[str] = field(default_factory=set)
    constants: list[IrConstant] = field(default_factory=list)
    inputs: list[IrTensor] = field(default_factory=list)
    outputs: list[IrTensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Port:
    precision: str
    shape: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(slots=True)
class _Layer:
    name: str
    kind: str
    element: Element
    inputs: Mapping[str, _Port]
    outputs: Mapping[str, _Port]


def read_openvino(data: Octets, *, constants_size: int | None, policy: InspectionPolicy) -> IrFacts:
    """Walk the model; `constants_size` is the size of the `.bin` file beside it, None when there is none.

    Raises:
        TypeNotAllowed: XML of another kind, or a model that keeps state between requests.
        WeightsUnsafe: a layer outside the published operation sets, or XML that would have to be followed.
        WeightsFormat: layers, ports, edges or constants that do not fit each other.
        BundleMismatch: constants without the `.bin` file that holds them.
    """
    root = read_xml(data, policy)
    if root.tag != "net":
        raise TypeNotAllowed(
            f"the XML is {quote(root.tag)}, not a model of OpenVINO",
            hint="PMML and other XML models are not accepted: export the model to ONNX",
        )
    if root.attributes.get("version") not in _VERSIONS:
        raise WeightsFormat(
            f"the IR is of version {quote(root.attributes.get('version'))}, versions 10 and 11 are read",
            hint="convert the model again with a current openvino",
        )
    facts = IrFacts()
    walk = _Walk(facts, constants_size, policy)
    walk.graph(root, top=True)
    if not facts.inputs or not facts.outputs:
        raise WeightsFormat("the model has no input or no output", hint=_MORE_TO_SAY)
    for many, what in ((facts.inputs, "inputs"), (facts.outputs, "outputs")):
        names = [one.name for one in many]
        if len(set(names)) != len(names):
            raise WeightsFormat(
                f"two {what} of the model have the same name", hint="give each tensor a name of its own"
            )
    return facts


@dataclass(slots=True)
class _Walk:
    """One model under way; graphs in graphs count towards the same limits."""

    facts: IrFacts
    constants_size: int | None
    policy: InspectionPolicy

    def graph(self, holder: Element, *, top: bool) -> None:
        """The layers and edges in `holder` (a `net` or the body of a layer)."""
        held, joined = holder.one("layers"), holder.one("edges")
        if held is None:
            raise WeightsFormat("a graph holds no layers", hint=_MORE_TO_SAY)
        layers: dict[str, _Layer] = {}
        for element in held.all("layer"):
            number = element.attributes.get("id", "")
            if not _WHOLE.fullmatch(number) or number in layers:
                raise WeightsFormat(f"the layer id {quote(number)} is no number or is there twice", hint=_MORE_TO_SAY)
            layers[number] = self._layer(element)
        sources = self._edges(layers, joined)
        _require_order(layers, sources)
        if top:
            self._ends(layers, sources)

    def _layer(self, element: Element) -> _Layer:
        attributes = element.attributes
        name, kind, version = attributes.get("name", ""), attributes.get("type", ""), attributes.get("version", "")
        self.facts.layers += 1
        if self.facts.layers > self.policy.onnx_nodes:
            raise WeightsFormat(f"the model has more than {self.policy.onnx_nodes} layers", hint="export a smaller one")
        if kind in STATEFUL:
            raise TypeNotAllowed(
                f"the layer {quote(name)} keeps state between requests ({kind})",
                hint="export the model without state: what it remembers becomes an input and an output",
            )
        if version not in OPSETS or kind not in OPERATORS:
            raise WeightsUnsafe(
                f"the layer {quote(name)} is {quote(kind)} of {quote(version)}, which no published operation set has",
                hint="extension libraries are never loaded: export the model with standard operations",
            )
        self.facts.operators.add(kind)
        if kind == "Const":
            self.facts.constants.append(self._constant(name, element))
        for nested in element.children if kind in BODIES else ():
            if nested.tag in {"body", "then_body", "else_body"}:
                self.graph(nested, top=False)
        return _Layer(name, kind, element, _ports(element.one("input"), self.policy),
                      _ports(element.one("output"), self.policy))  # fmt: skip

    def _constant(self, name: str, element: Element) -> IrConstant:
        data = element.one("data")
        attributes = data.attributes if data is not None else {}
        kind = attributes.get("element_type", "")
        if kind not in ELEMENT_BITS:
            raise WeightsFormat(f"the constant {quote(name)} has elements of {quote(kind)}", hint=_MORE_TO_SAY)
        text = attributes.get("shape", "").replace(" ", "")
        shape = tuple(_size(item, least=0) for item in text.split(",")) if text else ()
        begin, size = _size(attributes.get("offset"), least=0), _size(attributes.get("size"), least=0)
        wanted = (prod(shape) * ELEMENT_BITS[kind] + 7) // 8
        if len(shape) > self.policy.rank or prod(shape) > self.policy.element_count or size != wanted:
            raise WeightsFormat(
                f"the constant {quote(name)} states {size} bytes, its shape {list(shape)} of {kind} takes {wanted}",
                hint=_MORE_TO_SAY,
            )
        if self.constants_size is None:
            raise BundleMismatch(
                "the model's constants lie in a .bin file, which is not in the bundle",
                hint="upload the .bin file with the .xml, under the same name",
            )
        if begin + size > self.constants_size:
            raise WeightsFormat(
                f"the constant {quote(name)} ends at byte {begin + size}, the .bin file has {self.constants_size}",
                hint="the .bin file is cut short, or belongs to another model",
            )
        return IrConstant(name=name, element=kind, shape=shape, begin=begin, end=begin + size)

    def _edges(self, layers: Mapping[str, _Layer], joined: Element | None) -> Mapping[tuple[str, str], tuple[str, str]]:
        """(layer, input port) → (layer, output port); every input port has exactly one."""
        sources: dict[tuple[str, str], tuple[str, str]] = {}
        for edge in joined.all("edge") if joined is not None else ():
            source = (edge.attributes.get("from-layer", ""), edge.attributes.get("from-port", ""))
            target = (edge.attributes.get("to-layer", ""), edge.attributes.get("to-port", ""))
            there = source[0] in layers and source[1] in layers[source[0]].outputs
            if not there or target[0] not in layers or target[1] not in layers[target[0]].inputs or target in sources:
                raise WeightsFormat(f"an edge leads nowhere: {source} to {target}", hint=_MORE_TO_SAY)
            sources[target] = source
        for number, layer in layers.items():
            for port in layer.inputs:
                if (number, port) not in sources:
                    raise WeightsFormat(f"the layer {quote(layer.name)} lacks an input", hint=_MORE_TO_SAY)
        return sources

    def _ends(self, layers: Mapping[str, _Layer], sources: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        """Inputs and outputs of the model."""
        for number, layer in layers.items():
            if layer.kind == "Parameter":
                port = _only(layer, layer.outputs)
                self.facts.inputs.append(_tensor(port, layer.name))
            elif layer.kind == "Result":
                _only(layer, layer.inputs)
                from_layer, from_port = sources[number, next(iter(layer.inputs))]
                stated = layer.element.attributes.get("output_names", "")
                port = layers[from_layer].outputs[from_port]
                named = _Port(port.precision, port.shape, _split(stated) or port.names)
                self.facts.outputs.append(_tensor(named, layers[from_layer].name))


def _tensor(port: _Port, fallback: str) -> IrTensor:
    name = port.names[0] if port.names else fallback
    if not name or len(name) > 256 or not name.isprintable():  # noqa: PLR2004  (what a request may name)
        raise WeightsFormat("an input or output has no usable name", hint="name the tensors of the model")
    return IrTensor(name=name, precision=port.precision, shape=port.shape)


def _only(layer: _Layer, ports: Mapping[str, _Port]) -> _Port:
    if len(ports) != 1:
        raise WeightsFormat(f"the layer {quote(layer.name)} must have one port", hint=_MORE_TO_SAY)
    return next(iter(ports.values()))


def _ports(holder: Element | None, policy: InspectionPolicy) -> Mapping[str, _Port]:
    ports: dict[str, _Port] = {}
    for element in holder.all("port") if holder is not None else ():
        number = element.attributes.get("id", "")
        if number in ports:
            raise WeightsFormat(f"the port {quote(number)} is there twice", hint=_MORE_TO_SAY)
        sizes = [_size(child.text, least=_DYNAMIC) for child in element.all("dim")]
        if len(sizes) > policy.rank:
            raise WeightsFormat(f"a tensor has {len(sizes)} dimensions, at most {policy.rank} are served")
        names = _split(element.attributes.get("names", ""))
        ports[number] = _Port(element.attributes.get("precision", ""), tuple(sizes), names)
    return ports


def _split(names: str) -> tuple[str, ...]:
    """Tensor names, separated by commas; a comma in a name is escaped."""
    return tuple(name.replace("\\,", ",") for name in _NAMES.split(names) if name)


def _size(text: str | None, *, least: int) -> int:
    if text is None or not _WHOLE.fullmatch(text.strip()) or int(text) < least:
        raise WeightsFormat(f"{quote(text)} is not a size", hint=_MORE_TO_SAY)
    return int(text)


def _require_order(layers: Mapping[str, _Layer], sources: Mapping[tuple[str, str], tuple[str, str]]) -> None:
    """No layer waits for itself: take away, again and again, what waits for nothing."""
    waiting = {number: len(layer.inputs) for number, layer in layers.items()}
    followers: dict[str, list[str]] = {number: [] for number in layers}
    for (target, _), (source, _) in sources.items():
        followers[source].append(target)
    ready = [number for number, count in waiting.items() if not count]
    done = 0
    while ready:
        done += 1
        for follower in followers[ready.pop()]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    if done != len(layers):
        raise WeightsFormat("layers of the model wait for each other in a circle", hint=_MORE_TO_SAY)
