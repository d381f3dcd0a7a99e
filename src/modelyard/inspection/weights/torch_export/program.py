"""The program in a `pt2` file: a graph of ATen operators in JSON, of which nothing may name or be anything else.

What torch does with this document makes each rule necessary (torch 2.13, `torch/_export/serde/serialize.py`): it looks
up `target` by attributes from `torch` on, evaluates `expr_str` with SymPy (which is Python's `eval`), compiles
`guards_code`, and imports what a tree of inputs calls an enumeration. So targets, expressions and trees are held to
lists, and what serving does not need (guards, metadata) is not handed on.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, TypeNotAllowed, WeightsFormat, WeightsUnsafe
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.inspection.policy import MIB, InspectionPolicy

PROGRAM_BYTES: Final = 64 * MIB
_SCHEMA: Final = 8
_DEPTH: Final = 200
_HINT: Final = "export it again with torch.export.export and torch.export.save (torch 2.9 or newer)"
_TARGET: Final = re.compile(
    r"torch\.ops\.aten\.(?P<aten>[A-Za-z_][A-Za-z0-9_]{0,80})\.[A-Za-z_][A-Za-z0-9_]{0,80}"
    r"|torch\.ops\.higher_order\.(?:cond|wrap_with_set_grad_enabled)"
    r"|torch\.sym_(?:int|float|max|min|not|ite|sum)"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(?:ceil|floor|trunc)"
)
_READS_FILES: Final = frozenset({"from_file"})
_WORDS: Final = frozenset({
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "PythonMod", "FloorDiv", "CeilDiv",
    "CleanDiv", "ModularIndexing", "Max", "Min", "Eq", "Ne", "Le", "Lt", "Ge", "Gt", "And", "Or", "Not", "Where", "Abs",
    "TruncToInt", "ToFloat", "IntTrueDiv", "FloatTrueDiv", "PowByNatural", "Identity", "positive", "integer",
    "nonnegative", "nonzero", "real", "True", "False",
})  # fmt: skip
_SYMBOL: Final = re.compile(r"(?:s|u|zuf|zf)[0-9]{1,9}")
_TOKEN: Final = re.compile(
    r"'(?P<text>[a-z0-9]{1,16})'|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|[0-9]{1,19}(?:\.[0-9]{1,19})?"
    r"|\*\*(?= ?[0-9](?![0-9])(?! ?\*\*))|\*(?!\*)|//|<=|>=|==|[-+/%(),=<>&|~ ]"
)
_POWER: Final = re.compile(r"\*\*|Pow")
_POWERS: Final = 4  # they are worked out when the program is loaded
_EXPRESSION_CHARS: Final = 4096
_OBJECTS: Final = frozenset({"as_custom_obj", "custom_obj", "token", "as_operator"})
_TREES: Final = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_ITEM: Final[Mapping[int, tuple[str, int]]] = {
    1: ("UINT8", 1), 2: ("INT8", 1), 3: ("INT16", 2), 4: ("INT32", 4), 5: ("INT64", 8), 6: ("FP16", 2), 7: ("FP32", 4),
    8: ("FP64", 8), 12: ("BOOL", 1), 13: ("BF16", 2), 28: ("UINT16", 2), 34: ("UINT32", 4), 35: ("UINT64", 8),
}  # fmt: skip
"""torch's ScalarType → the V2 name of the type, and bytes of an element."""
_VARIABLE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTensor:
    """An input or output: its name, its V2 datatype, its sizes (-1: each request chooses)."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What was found in the document, and the document itself."""

    document: dict[str, object]
    nodes: int
    operators: frozenset[str]
    inputs: tuple[ProgramTensor, ...]
    outputs: tuple[ProgramTensor, ...]


def read_program(text: bytes, policy: InspectionPolicy) -> Program:
    """The program of `models/model.json`.

    Raises:
        WeightsFormat: damaged, or of a version that is not read.
        WeightsUnsafe: an operator, an expression or a tree outside the lists.
        TypeNotAllowed: it keeps state between requests.
        BundleMismatch: inputs or outputs that are no tensors on the processor.
    """
    document = _object(read_document(text, what="models/model.json"), "the program")
    version = _object(document.get("schema_version"), "schema_version")
    if version.get("major") != _SCHEMA:
        raise WeightsFormat(f"the program is of schema {quote(version.get('major'))}, {_SCHEMA} is read", hint=_HINT)
    if set(_object(document.get("opset_version"), "opset_version")) - {"aten"}:
        raise WeightsUnsafe("the program needs operators of other libraries than ATen", hint=_HINT)
    operators = list(_walk(document))
    if len(operators) > policy.onnx_nodes:
        raise WeightsFormat(f"the program has {len(operators)} nodes, at most {policy.onnx_nodes} are read")
    for symbol in _object(document.get("range_constraints"), "range_constraints"):
        _require_plain_expression(symbol)
    module = _object(document.get("graph_module"), "graph_module")
    signature, graph = _object(module.get("signature"), "signature"), _object(module.get("graph"), "graph")
    tensors = _object(graph.get("tensor_values"), "tensor_values")
    return Program(
        document=document,
        nodes=len(operators),
        operators=frozenset(operators),
        inputs=tuple(_inputs(signature, tensors)),
        outputs=tuple(_outputs(signature, tensors)),
    )


def _walk(document: Mapping[str, object]) -> Iterator[str]:
    """The operator of every node; everything else that torch would look up, evaluate or make is held to its list."""
    for value in _objects(document):
        if "expr_str" in value:
            _require_plain_expression(value["expr_str"])
        for key in _OBJECTS & value.keys():
            if value[key] is not None:
                raise WeightsUnsafe(f"the program holds an object of its own ({key})", hint="use tensors only")
        for key in ("in_spec", "out_spec"):
            if isinstance(text := value.get(key), str):
                _require_plain_tree(text)
        if "target" in value and "inputs" in value:
            yield _operator(value["target"])


def without_extras(program: Program) -> dict[str, object]:
    """The document without what only a debugger or a tracer wants: guards, stack traces, names of classes."""
    module = dict(_object(program.document["graph_module"], "graph_module"))
    module |= {"metadata": {}, "treespec_namedtuple_fields": {}}
    for value in _objects(module):
        if "target" in value and "inputs" in value:
            value["metadata"] = {}
    return {**program.document, "graph_module": module, "guards_code": []}


def read_document(text: bytes, *, what: str) -> object:
    """Strict JSON of an archive's member."""
    try:
        return loads(text, max_depth=_DEPTH, max_digits=40, max_bytes=PROGRAM_BYTES)
    except StrictJsonError as error:
        raise WeightsFormat(f"{what} is not strict JSON: {error}", hint=_HINT) from error


def stored_bytes(meta: object, *, what: str) -> tuple[str, int]:
    """(V2 datatype, bytes that its storage must have at least) of a tensor with sizes that stand in the file."""
    tensor = _object(meta, what)
    kind, item = _kind(tensor, what)
    sizes, strides = _numbers(tensor.get("sizes"), what), _numbers(tensor.get("strides"), what)
    offset = _numbers([tensor.get("storage_offset")], what)[0]
    if len(sizes) != len(strides):
        raise WeightsFormat(f"{what} has {len(sizes)} sizes and {len(strides)} strides", hint=_HINT)
    if 0 in sizes:
        return kind, 0
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return kind, (last + 1) * item


def _numbers(values: object, what: str) -> list[int]:
    found = (
        [item.get("as_int") if isinstance(item, dict) else None for item in values]
        if isinstance(values, list)
        else None
    )
    if found is None or not all(type(item) is int and 0 <= item < 1 << 40 for item in found):
        raise WeightsFormat(f"{what} has sizes that are no numbers", hint=_HINT)
    return [int(item) for item in found if item is not None]


def _operator(target: object) -> str:
    found = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if found is None or found["aten"] in _READS_FILES:
        raise WeightsUnsafe(
            f"the program calls {quote(target)}, which is no operator of ATen that computes from its inputs only",
            hint="export the model with the operators that torch brings; libraries of operators are never loaded",
        )
    return str(target)


def _require_plain_expression(text: object) -> None:
    """Sizes as sums, products and the like of symbols and numbers."""
    at, known = 0, isinstance(text, str) and len(text) <= _EXPRESSION_CHARS and len(_POWER.findall(text)) <= _POWERS
    while known and isinstance(text, str) and at < len(text):
        token = _TOKEN.match(text, at)
        known = token is not None and all(
            word is None or word in _WORDS or _SYMBOL.fullmatch(word) is not None
            for word in (token["word"], token["text"])
        )
        at = token.end() if token is not None else at
    if not known:
        raise WeightsUnsafe(f"a size is the expression {quote(text)}, which is more than arithmetic", hint=_HINT)


def _require_plain_tree(text: str) -> None:
    for value in _objects(read_document(text.encode(), what="a tree of inputs")):
        context = value.get("context")
        keys = read_document(context.encode(), what="a tree of inputs") if isinstance(context, str) else context
        named = keys is None or (isinstance(keys, list) and all(isinstance(key, str) for key in keys))
        if value.get("type") not in _TREES or not named:
            raise WeightsUnsafe(
                f"the program takes or gives {quote(value.get('type'))}", hint="use tensors, in tuples, lists or dicts"
            )


def _inputs(signature: Mapping[str, object], tensors: Mapping[str, object]) -> Iterator[ProgramTensor]:
    for kind, spec in _specs(signature, "input_specs"):
        if kind == "user_input":
            yield _tensor(spec, tensors, "input")
        elif kind not in {"parameter", "buffer", "tensor_constant"}:
            raise BundleMismatch(f"the program has an input that is no tensor ({kind})", hint="take tensors only")


def _outputs(signature: Mapping[str, object], tensors: Mapping[str, object]) -> Iterator[ProgramTensor]:
    for kind, spec in _specs(signature, "output_specs"):
        if kind != "user_output":
            raise TypeNotAllowed(
                f"the program changes what it holds while it answers ({kind})",
                hint="export it in evaluation mode (model.eval()), without buffers that remember",
            )
        yield _tensor(spec, tensors, "output")


def _specs(signature: Mapping[str, object], which: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    entries = signature.get(which)
    for entry in entries if isinstance(entries, list) else ():
        for kind, spec in _object(entry, which).items():
            yield kind, _object(spec, which)


def _tensor(spec: Mapping[str, object], tensors: Mapping[str, object], which: str) -> ProgramTensor:
    argument = _object(spec.get("arg"), which)
    holder = argument.get("as_tensor")
    if not isinstance(holder, dict):
        raise BundleMismatch(
            f"an {which} of the program is no tensor ({', '.join(argument)})", hint="take and give tensors only"
        )
    name = holder.get("name")
    meta = tensors.get(name) if isinstance(name, str) else None
    tensor = _object(meta, f"the {which} {quote(name)}")
    kind, _ = _kind(tensor, f"the {which} {quote(name)}")
    device = _object(tensor.get("device"), "device").get("type")
    if device != "cpu":
        raise BundleMismatch(f"the program was exported for {quote(device)}", hint="export it on the processor")
    sizes = tensor.get("sizes")
    shape = tuple(_size(item) for item in sizes) if isinstance(sizes, list) else ()
    return ProgramTensor(name=str(name), datatype=kind, shape=shape)


def _size(value: object) -> int:
    size = value.get("as_int") if isinstance(value, dict) else None
    return size if type(size) is int and size >= 0 else _VARIABLE


def _kind(tensor: Mapping[str, object], what: str) -> tuple[str, int]:
    number = tensor.get("dtype")
    if type(number) is not int or number not in _ITEM:
        raise WeightsFormat(f"{what} has elements of the type {quote(number)}", hint="use ordinary numbers")
    return _ITEM[number]


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise WeightsFormat(f"{what} is missing in the program, or is no object", hint=_HINT)
    return value


def _objects(root: object) -> Iterator[dict[str, object]]:
    """Every object of the document, at any depth."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
