"""skops: a zip with `schema.json`, a tree of nodes that says by which loader and of which type each part is.

Both must be on our lists; the trust list that a caller may give to skops plays no part. Arrays lie beside as `.npy`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed, WeightsFormat, WeightsUnsafe
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.inspection.archives.zip_directory import ZipMember, read_directory
from modelyard.inspection.archives.zip_file import require_bounded, unpacked
from modelyard.inspection.names import points_elsewhere
from modelyard.inspection.octets import Octets
from modelyard.inspection.pickle_types import MODEL_ROOTS, is_allowed
from modelyard.inspection.policy import MIB, InspectionPolicy
from modelyard.inspection.weights.numpy_file import require_npy_member

_SCHEMA_BYTES: Final = 64 * MIB
_SPARSE_BYTES: Final = 64 * MIB
_DEPTH: Final = 400
_LOADERS: Final = frozenset({
    "ObjectNode", "DictNode", "DefaultDictNode", "ListNode", "SetNode", "TupleNode", "BytesNode", "BytearrayNode",
    "SliceNode", "FunctionNode", "TypeNode", "JsonNode", "NdArrayNode", "MaskedArrayNode", "DTypeNode",
    "RandomStateNode", "RandomGeneratorNode", "SparseMatrixNode", "LossNode", "TreeNode", "CachedNode",
    "ConstructorFromReduceNode", "PartialNode",
})  # fmt: skip
_PLAIN_TYPES: Final = frozenset({
    ("numpy", "ufunc"), ("builtins", "str"), ("builtins", "NoneType"), ("builtins", "type"), ("builtins", "function"),
    ("numpy.dtypes", "dtype"),
})  # fmt: skip
_HINT: Final = "only types of scikit-learn, numpy and scipy come in this way; export others to ONNX"


@dataclass(frozen=True, slots=True)
class SkopsFacts:
    """Types that the file names, the type at its top, and how many nodes and arrays it has."""

    names: tuple[str, ...]
    top: str
    nodes: int
    members: int


def read_skops(data: Octets, policy: InspectionPolicy) -> SkopsFacts:
    """Walk the tree of nodes.

    Raises:
        TypeNotAllowed: a node's loader is not one that only builds data.
        WeightsUnsafe: a type or function outside the table.
        WeightsFormat: the zip or the tree is damaged, or holds no model.
    """
    listed = read_directory(data, max_members=policy.tensors)
    members = {member.name: member for member in listed}
    if len(members) != len(listed):
        raise WeightsFormat("the file holds two members of one name")
    require_bounded(listed, policy)
    schema = _schema(data, members)
    names: set[str] = set()
    count = 0
    for node in _nodes(schema):
        count += 1
        _require_known(node, names)
    for name, member in members.items():
        if name != "schema.json":
            _require_array(data, member, policy)
    top = f"{schema.get('__module__')}.{schema.get('__class__')}"
    if top.partition(".")[0] not in MODEL_ROOTS:
        raise WeightsFormat(f"the file holds {quote(top)}, not a model", hint="dump the fitted estimator itself")
    return SkopsFacts(tuple(sorted(names)), top, count, len(members))


def _schema(data: Octets, members: Mapping[str, ZipMember]) -> dict[str, object]:
    member = members.get("schema.json")
    if member is None or member.size > _SCHEMA_BYTES:
        raise WeightsFormat(
            f"schema.json is missing or larger than {_SCHEMA_BYTES} bytes", hint="write it with skops.io.dump"
        )
    text = b"".join(unpacked(data, member))
    try:
        value = loads(text, max_depth=_DEPTH, max_digits=40, max_bytes=_SCHEMA_BYTES)
    except StrictJsonError as error:
        raise WeightsFormat(f"schema.json is not strict JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsFormat("schema.json is not an object")
    return value


def _nodes(root: object) -> Iterator[dict[str, object]]:
    """Every object of the tree that names a loader, a class or a function."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.keys() & {"__loader__", "__class__", "__module__", "module_path", "function"}:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _require_known(node: dict[str, object], names: set[str]) -> None:
    loader = node.get("__loader__")
    if loader is not None and not (isinstance(loader, str) and loader in _LOADERS):
        raise TypeNotAllowed(f"the skops file uses the loader {quote(loader)}, which can run code", hint=_HINT)
    for module_key, name_key in (("__module__", "__class__"), ("module_path", "function")):
        module, name = node.get(module_key), node.get(name_key)
        if module is None and name is None:
            continue
        if not isinstance(module, str) or not isinstance(name, str):
            continue
        if not is_allowed(module, name) and (module, name) not in _PLAIN_TYPES:
            raise WeightsUnsafe(
                f"the skops file names {quote(f'{module}.{name}')}, which is not known here", hint=_HINT
            )
        names.add(f"{module}.{name}")


def _require_array(data: Octets, member: ZipMember, policy: InspectionPolicy) -> None:
    """A member is an array, a sparse matrix (a zip of arrays), or plain bytes."""
    if points_elsewhere(member.name):
        raise WeightsFormat(f"member {quote(member.name)} is not a plain name")
    if member.name.endswith(".npy"):
        require_npy_member(data, member)
    elif member.name.endswith(".npz") and member.size <= _SPARSE_BYTES:
        inner = b"".join(unpacked(data, member))
        parts = read_directory(inner, max_members=policy.archive_members)
        require_bounded(parts, policy)
        for part in parts:
            require_npy_member(inner, part)
    elif not member.name.endswith(".bin"):
        raise WeightsFormat(f"member {quote(member.name)} is neither an array nor bytes")
