"""LightGBM's text model: header, one block a tree, an end mark; the convert child's builder reads the trees."""

import re
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import FileTooLarge, WeightsFormat
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import InspectionPolicy

_HEAD_BYTES: Final = 16 * 1024 * 1024
_TREE: Final = re.compile(rb"^Tree=([0-9]{1,9})$", re.MULTILINE)
_BAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NEEDED: Final = ("version", "num_class", "num_tree_per_iteration", "max_feature_idx", "objective", "feature_names")
_HINT: Final = "write it with booster.save_model('model.txt'); label files are called labels.txt"


@dataclass(frozen=True, slots=True)
class LightgbmFacts:
    """Trees, features and classes as the header states them."""

    trees: int
    features: int
    classes: int


def read_lightgbm(data: Octets, policy: InspectionPolicy) -> LightgbmFacts:
    """Hold the file against its structure.

    Raises:
        FileTooLarge: more than `text_model_bytes`.
        WeightsFormat: no header, control characters, trees missing, no end mark.
    """
    if len(data) > policy.text_model_bytes:
        raise FileTooLarge(f"the model has {len(data)} bytes, at most {policy.text_model_bytes} are read")
    if data[:5] != b"tree\n" and data[:6] != b"tree\r\n":
        raise WeightsFormat("the file is not a LightGBM model", hint=_HINT)
    if bad := _BAD.search(data):
        raise WeightsFormat(f"byte {bad.start()} is a control character", hint=_HINT)
    first = _TREE.search(data)
    head_end = first.start() if first else data.find(b"end of trees")
    if not 0 < head_end <= _HEAD_BYTES:
        raise WeightsFormat("the header does not end", hint=_HINT)
    header = dict(line.partition(b"=")[::2] for line in data[:head_end].split(b"\n"))
    for name in _NEEDED:
        if name.encode() not in header:
            raise WeightsFormat(f"the header lacks {quote(name)}", hint=_HINT)
    trees = [int(match[1]) for match in _TREE.finditer(data)]
    end = data.find(b"\nend of trees", head_end - 1)
    if end < 0 or trees != list(range(len(trees))) or not trees:
        raise WeightsFormat("trees are missing, or the end mark is", hint=_HINT)
    sizes = header.get(b"tree_sizes", b"").split()
    if sizes and len(sizes) != len(trees):
        raise WeightsFormat(f"the header states {len(sizes)} trees, {len(trees)} are there", hint=_HINT)
    return LightgbmFacts(len(trees), _number(header, "max_feature_idx") + 1, _number(header, "num_class"))


def _number(header: dict[bytes, bytes], name: str) -> int:
    text = header[name.encode()].strip()
    if not text.isdigit() or len(text) > 9:  # noqa: PLR2004
        raise WeightsFormat(f"{name} is not a number", hint=_HINT)
    return int(text)
