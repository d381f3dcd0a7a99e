"""The route of `pt2` files: the contract read off the program, the archive written anew without what could run code.

What is served is that new archive, in a worker of its own behind walls (`processes/own_code_worker.py`), by a few lines
of ours that are in the package too. The library is torch: that which is installed beside Modelyard (the extra `torch`),
else an environment built from the package's lock file, so that torch need not be in the platform's own environment.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat
from modelyard.domain.report import Outcome
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inspection.archives.zip_file import unpacked
from modelyard.inspection.children.model_contract import Knowledge, agree, finish
from modelyard.inspection.children.packaging import Work, timed
from modelyard.inspection.code_bundle_lock import LOCK_FILE
from modelyard.inspection.octets import Octets, mapped
from modelyard.inspection.policy import InspectionPolicy
from modelyard.inspection.weights.torch_export import ProgramFacts, ProgramTensor, read_torch_export
from modelyard.inspection.weights.torch_export.archive import EXAMPLES, PROGRAM
from modelyard.inspection.weights.torch_export.program import without_extras

ENTRY: Final = "model.pt2"
_HERE: Final = Path(__file__).parent
_ALIGNED: Final = 64
_LOCAL_HEADER: Final = 30
_EXTRA_HEADER: Final = 4
_PADDING_FIELD: Final = b"FB"
"""What torch itself pads with (caffe2/serialize/inline_container.cc), so that tensors lie on whole cache lines."""


def convert_torch_export(work: Work) -> None:
    """Package an uploaded program."""
    with mapped(work.weights_path) as data:
        facts = read_torch_export(data, InspectionPolicy())
        with timed(work.channel, "torch.library") as found:
            found.summary = "torch is installed: the program is asked here"
            if find_spec("torch") is None:
                found.outcome = Outcome.NEEDS_REVIEW
                found.summary = "torch is not installed here: the program's first answer is given by its own worker"
                found.hint = "pip install 'modelyard[torch]' has programs asked in the audit"
        with timed(work.channel, "model.contract") as found:
            inputs, outputs = tuple(map(_spec, facts.program.inputs)), tuple(map(_spec, facts.program.outputs))
            contract = agree(work, inputs, outputs, Knowledge(), found).contract
        with timed(work.channel, "torch.archive") as found:
            _write(data, facts, work.out / ENTRY)
            found.summary = f"written anew with {len(facts.tensors)} tensors; no pickle is in it"
            found.evidence = {"left_out": [*facts.left_out, "guards", "metadata"]}
    (work.out / "predict.py").write_bytes((_HERE / "torch_export_predict.py").read_bytes())
    (work.out / LOCK_FILE).write_bytes((_HERE / "torch_export.lock").read_bytes())
    package = work.package(contract, entry=ENTRY, runtime="torch_export")
    finish(work, replace(package, options={"inputs_as": "arrays", "library": "torch"}))


def _spec(tensor: ProgramTensor) -> TensorSpec:
    if tensor.datatype not in list(DataType):
        raise WeightsFormat(
            f"{quote(tensor.name)} has elements of {tensor.datatype}, which requests cannot carry",
            hint="take and give float32: convert inside the program",
        )
    return TensorSpec(name=tensor.name, datatype=DataType(tensor.datatype), shape=tensor.shape)


def _write(data: Octets, facts: ProgramFacts, place: Path) -> None:
    """The archive anew: the checked program without extras, tensors byte for byte, no example inputs."""
    with zipfile.ZipFile(place, "x", zipfile.ZIP_STORED) as archive:
        for name, content in _members(data, facts).items():
            entry = zipfile.ZipInfo(f"model/{name}")
            assert archive.fp is not None  # it was opened for writing
            begin = archive.fp.tell() + _LOCAL_HEADER + len(entry.filename) + _EXTRA_HEADER
            wide = facts.members[name].size if name in facts.members else 0
            begin += 20 if wide * 1.05 > zipfile.ZIP64_LIMIT else 0  # zipfile puts a ZIP64 field before ours
            padding = -begin % _ALIGNED
            entry.extra = _PADDING_FIELD + padding.to_bytes(2, "little") + b"Z" * padding
            entry.file_size = wide
            with archive.open(entry, "w") as stream:
                for chunk in content:
                    stream.write(chunk)


def _members(data: Octets, facts: ProgramFacts) -> Mapping[str, Iterator[bytes]]:
    program = json.dumps(without_extras(facts.program), separators=(",", ":")).encode()
    kept = {name: unpacked(data, member) for name, member in facts.members.items() if name not in facts.left_out}
    return {**kept, PROGRAM: iter((program,)), EXAMPLES: iter(())}
