"""What can be known of own code without running it: what it imports, what it calls, what it defines, what it promises.

The sources are parsed (`ast`), never compiled or imported; this runs in the audit's child, behind its walls. The
contract comes from the configuration, for nothing else can say it.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.domain.contract import Golden, ModelContract, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid, TypeNotAllowed
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec

ENTRY: Final = "predict.py"
ARRAYS, FRAME = "arrays", "frame"
_NOTABLE: Final = frozenset({"eval", "exec", "compile", "__import__", "open", "input", "breakpoint"})
_NOTABLE_MODULES: Final = frozenset(
    {"subprocess", "socket", "ctypes", "os", "multiprocessing", "signal", "pickle", "shutil", "importlib", "urllib",
     "http", "requests", "httpx", "cffi", "marshal", "runpy", "code", "pty"}
)  # fmt: skip
_SHOWN: Final = 64


@dataclass(slots=True)
class CodeFacts:
    """What the sources say. Modules are top-level names; `calls` are those a reviewer wants to see, with their line."""

    standard: set[str] = field(default_factory=set)
    installed: set[str] = field(default_factory=set)
    notable: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    lines: int = 0
    streams: bool = False


def read_sources(sources: Mapping[str, bytes]) -> CodeFacts:
    """Facts of all `*.py` files of a bundle, by name.

    Raises:
        TypeNotAllowed: not UTF-8 text, or no Python of this version.
        BundleMismatch: `predict.py` does not define what it must.
    """
    facts = CodeFacts()
    own = {name.removesuffix(".py") for name in sources}
    for name, data in sources.items():
        tree = _parse(name, data)
        facts.lines += data.count(b"\n") + 1
        for module in _imports(tree):
            known = facts.standard if module in sys.stdlib_module_names else facts.installed
            if module not in own:
                known.add(module)
        facts.calls += [f"{name}:{line} {what}" for line, what in _calls(tree)]
        if name == ENTRY:
            facts.streams = _require_functions(tree)
    facts.notable = (facts.standard | facts.installed) & _NOTABLE_MODULES
    facts.calls = facts.calls[:_SHOWN]
    return facts


def read_contract(config: Mapping[str, object], labels: Sequence[str]) -> ModelContract:
    """The contract that the configuration states.

    Raises:
        BundleMismatch: inputs or outputs are missing or incomplete; the hint shows what to add.
    """
    inputs = _tensors(config, "inputs", "input")
    outputs = _tensors(config, "outputs", "output")
    task = str(config.get("task", Task.OTHER))
    return ModelContract(
        inputs=inputs,
        outputs=outputs,
        task=Task(task) if task in list(Task) else Task.OTHER,
        labels=tuple(labels),
        max_batch_size=_batch(config, (*inputs, *outputs)),
    )


def inputs_as(config: Mapping[str, object], contract: ModelContract) -> str:
    """How `predict` gets its inputs: "arrays" by name, or one "frame" with a column an input.

    Raises:
        BundleMismatch: a frame was asked for, but an input is not one column.
    """
    form = str(config.get("inputs_as", ARRAYS))
    if form == FRAME:
        for spec in contract.inputs:
            if spec.shape not in ((VARIABLE,), (VARIABLE, 1)):
                raise BundleMismatch(
                    f"inputs_as is frame, but the input {quote(spec.name)} is not one column: {list(spec.shape)}",
                    hint='one input a column, with "shape": [-1, 1]; or "inputs_as": "arrays"',
                )
    return form


def example_of(config: Mapping[str, object], contract: ModelContract) -> Golden | None:
    """The configuration's `example`, where it is a V2 request; what it is answered with is not known before it runs.

    Raises:
        ConfigInvalid: a tensor of it is not whole.
        BundleMismatch: it asks other inputs than there are.
    """
    example = config.get("example")
    tensors = example.get("inputs") if isinstance(example, Mapping) else None
    if not isinstance(tensors, list):
        return None
    wanted = {"name", "shape", "datatype", "data"}
    if not all(isinstance(tensor, Mapping) and wanted <= tensor.keys() for tensor in tensors):
        raise ConfigInvalid(
            "example must hold whole V2 tensors",
            hint='{"inputs": [{"name", "shape", "datatype", "data": flat values}]}',
        )
    names, stated = [spec.name for spec in contract.inputs], [str(tensor["name"]) for tensor in tensors]
    if sorted(names) != sorted(stated):
        raise BundleMismatch(
            f"example asks {quote(', '.join(stated))}, the inputs are {quote(', '.join(names))}",
            hint="give every input of the contract once",
        )
    return Golden(request={"inputs": tensors}, outputs=())


def _parse(name: str, data: bytes) -> ast.Module:
    try:
        text = data.decode("utf-8-sig")
        if "\x00" in text:
            raise TypeNotAllowed(f"{quote(name)} holds zero bytes, which no Python source does")
        return ast.parse(text, filename=name)
    except UnicodeDecodeError as error:
        raise TypeNotAllowed(f"{quote(name)} is not UTF-8 text", hint="save it as UTF-8") from error
    except (SyntaxError, ValueError) as error:
        where = f" at line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise TypeNotAllowed(
            f"{quote(name)} is not Python {version}{where}: {quote(getattr(error, 'msg', '') or str(error))}",
            hint="correct the source and upload it again",
        ) from error


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Calls of builtins and modules that reach beyond numbers."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in _NOTABLE:
            yield node.lineno, called.id
        elif (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Name)
            and called.value.id in _NOTABLE_MODULES
        ):
            yield node.lineno, f"{called.value.id}.{called.attr}"


def _require_functions(tree: ast.Module) -> bool:
    """`load(path)` and `predict(inputs)` at the top level; whether there is `predict_stream` too."""
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    later = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    for name, example in (("load", "load(path)"), ("predict", "predict(inputs)")):
        function = defined.get(name)
        if function is None:
            kind = "is a coroutine" if name in later else "is missing"
            raise BundleMismatch(
                f"{ENTRY}: the function {name} {kind}",
                hint="define load(path), called once, and predict(inputs), called for every batch, as plain functions",
            )
        arguments = function.args
        required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
        takes = len(arguments.posonlyargs) + len(arguments.args) >= 1 or arguments.vararg is not None
        if not takes or required > 1 or any(item is None for item in arguments.kw_defaults):
            raise BundleMismatch(f"{ENTRY}: {name} must be callable with one argument", hint=f"define it as {example}")
    return "predict_stream" in defined


def _tensors(config: Mapping[str, object], many: str, one: str) -> tuple[TensorSpec, ...]:
    stated: Any = config.get(many)
    if stated is None:
        stated = [config[one]] if one in config else []
    wanted = f'"{many}": [{{"name": "x", "datatype": "FP32", "shape": [-1, 4]}}]'
    if not stated:
        raise BundleMismatch(
            f"own code does not say by itself what it takes and gives: {many} is missing in the configuration",
            hint=f"add to config.json: {wanted}",
        )
    for item in stated:
        lacking = [key for key in ("datatype", "shape") if key not in item]
        if lacking:
            raise BundleMismatch(
                f"{many}: {quote(item['name'])} has no {' and no '.join(lacking)}", hint=f"such as {wanted}"
            )
    return tuple(
        TensorSpec(
            name=item["name"],
            datatype=DataType(item["datatype"]),
            shape=tuple(item["shape"]),
            categories=tuple(item["categories"]) if item.get("categories") else None,
            allows_nan=bool(item.get("allows_nan", False)),
        )
        for item in stated
    )


def _batch(config: Mapping[str, object], specs: Sequence[TensorSpec]) -> int:
    """Rows that may run at once. Nobody can prove it without running: the author's word, else one row at a time."""
    if not all(spec.shape[0] == VARIABLE for spec in specs):
        return 0
    stated = config.get("batching")
    return int(stated.get("max_size", 1)) if isinstance(stated, Mapping) else 1
