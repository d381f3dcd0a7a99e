"""The zip of a `pt2` file: which members it may hold, and that every tensor's bytes are there.

Pickles are what torch falls back to for tensors it cannot write as bytes, for objects, and for example inputs; it opens
them with `weights_only=False` (torch 2.13, `torch/export/pt2_archive/_package.py`). The first two are refused, and
example inputs are not handed on: what is served holds no pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed, WeightsFormat, WeightsUnsafe
from modelyard.inspection.archives.zip_directory import STORED, ZipMember, read_directory
from modelyard.inspection.archives.zip_file import require_bounded, unpacked
from modelyard.inspection.names import points_elsewhere
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.safetensors import Tensor
from modelyard.inspection.weights.torch_export.program import (
    PROGRAM_BYTES,
    Program,
    ProgramTensor,
    read_document,
    read_program,
    stored_bytes,
)

__all__ = ["ProgramFacts", "ProgramTensor", "read_torch_export"]
PROGRAM: Final = "models/model.json"
EXAMPLES: Final = "data/sample_inputs/model.pt"
CONFIGS: Final = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
_STATED: Final = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
_VERSION: Final = ".data/version"
_LEFT_OUT: Final = ("extra/", ".data/serialization_id")
_NATIVE: Final = ("data/aotinductor/", "data/executorch/", "mtia/")
_HINT: Final = "save it again with torch.export.save (torch 2.9 or newer)"
_FINITE: Final = {"FP16": "F16", "FP32": "F32", "FP64": "F64", "BF16": "BF16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFacts:
    """The program, the members by their name below the archive's root, and the tensors that lie in it."""

    program: Program
    members: Mapping[str, ZipMember]
    tensors: Mapping[str, Tensor]
    tensor_bytes: int
    left_out: tuple[str, ...]

    @property
    def nodes(self) -> int:
        """How many operators are called."""
        return self.program.nodes

    @property
    def operators(self) -> frozenset[str]:
        """Which operators are called."""
        return self.program.operators


def read_torch_export(data: Octets, policy: InspectionPolicy) -> ProgramFacts:
    """Read the archive.

    Raises:
        ArchiveInvalid, ArchiveBomb: the zip is damaged, or hides something.
        WeightsUnsafe: pickled parts, compiled parts, or a program outside the lists.
        WeightsFormat, BundleMismatch, TypeNotAllowed: see `read_program`; a tensor without its bytes.
    """
    listed = read_directory(data, max_members=policy.tensors)
    require_bounded(listed, policy)
    members = _below_root(listed)
    for name, member in members.items():
        _require_known(name, member)
    for name, value in _STATED.items():
        if name not in members or _content(data, members[name], 16) != value:
            raise WeightsFormat(f"{name} of the archive is not {value.decode()}", hint=_HINT)
    if _VERSION not in members or not _content(data, members[_VERSION], 16).strip().isdigit():
        raise WeightsFormat(f"{_VERSION} of the archive is no number", hint=_HINT)
    if PROGRAM not in members:
        raise TypeNotAllowed("the archive holds no program of torch.export", hint=_HINT)
    tensors: dict[str, Tensor] = {}
    for folder, config in CONFIGS.items():
        if config not in members:
            raise WeightsFormat(f"{config} is missing in the archive", hint=_HINT)
        tensors |= _tensors(data, members, folder=folder, config=config)
    unowned = [name for name in members if name.startswith(tuple(CONFIGS)) and not name.endswith(".json")]
    if unused := set(unowned) - {tensor.name for tensor in tensors.values()}:
        raise WeightsFormat(f"{quote(min(unused))} in the archive belongs to no tensor", hint=_HINT)
    return ProgramFacts(
        program=read_program(_content(data, members[PROGRAM], PROGRAM_BYTES), policy),
        members=members,
        tensors=tensors,
        tensor_bytes=sum(members[name].size for name in unowned),
        left_out=tuple(sorted(name for name in members if name == EXAMPLES or name.startswith(_LEFT_OUT))),
    )


def _below_root(listed: object) -> Mapping[str, ZipMember]:
    members: dict[str, ZipMember] = {}
    roots = set()
    for member in listed if isinstance(listed, list) else ():
        root, _, name = member.name.partition("/")
        roots.add(root)
        if not name or name in members or any(points_elsewhere(part) for part in member.name.split("/")):
            raise WeightsFormat(f"member {quote(member.name)} of the archive has no plain name of its own", hint=_HINT)
        members[name] = member
    if len(roots) != 1:
        raise WeightsFormat("the archive has no one top folder", hint=_HINT)
    return members


def _require_known(name: str, member: ZipMember) -> None:
    if name.startswith(_NATIVE) or name.endswith((".so", ".o", ".cpp", ".dll", ".dylib")):
        raise WeightsUnsafe(f"the archive holds compiled parts ({quote(name)})", hint="export it without AOTInductor")
    if "/code/" in f"/{name}" or name.endswith((".pkl", ".py")):
        raise WeightsUnsafe("the archive holds program text or pickles, which loading would run", hint=_HINT)
    folder = next((folder for folder in CONFIGS if name.startswith(folder)), None)
    plain = folder is not None and "/" not in name.removeprefix(folder) and not name.endswith(".pt")
    if name in {PROGRAM, EXAMPLES, _VERSION, *_STATED} or name.startswith(_LEFT_OUT) or plain:
        return
    if name.endswith(".pt") or "custom_obj" in name or "opaque_obj" in name:
        raise WeightsUnsafe(f"the archive holds pickled parts ({quote(name)}), which can run code", hint=_HINT)
    raise WeightsFormat(f"the archive holds {quote(name)}, which torch.export does not write", hint=_HINT)


def _tensors(data: Octets, members: Mapping[str, ZipMember], *, folder: str, config: str) -> dict[str, Tensor]:
    document = read_document(_content(data, members[config], PROGRAM_BYTES), what=config)
    entries = document.get("config") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise WeightsFormat(f"{config} is not a list of tensors", hint=_HINT)
    found = {}
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False or entry.get("tensor_meta") is None:
            raise WeightsUnsafe(
                f"{quote(name)} is pickled, which can run code when it is opened",
                hint="export a model whose weights and constants are ordinary dense tensors",
            )
        place = f"{folder}{entry.get('path_name')}"
        member = members.get(place)
        kind, needed = stored_bytes(entry["tensor_meta"], what=f"the tensor {quote(name)}")
        if member is None or member.method != STORED or member.size < needed:
            raise WeightsFormat(
                f"the tensor {quote(name)} takes {needed} bytes, "
                f"{0 if member is None else member.size} are there as they are",
                hint=_HINT,
            )
        begin = member.start
        found[f"{folder}{name}"] = Tensor(place, _FINITE.get(kind, kind), (needed,), begin, begin + needed)
    return found


def _content(data: Octets, member: ZipMember, limit: int) -> bytes:
    if member.size > limit:
        raise WeightsFormat(f"{quote(member.name)} has {member.size} bytes, at most {limit} are read", hint=_HINT)
    return b"".join(unpacked(data, member))
