"""`.pt`, `.pth`, `.ckpt`: always refused, with what is in them and the way out.

A torch file is a zip of pickles, or a bare pickle; TorchScript holds program text. The
zip is read leniently here (names from the directory, damaged checksums and all), since the answer is no in any case.
"""

import re
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed, UploadRefused, WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets

_CENTRAL: Final = re.compile(rb"PK\x01\x02.{24}(..)(?:..){2}.{12}", re.DOTALL)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]")
_GLOBAL: Final = re.compile(rb"c([A-Za-z_][\w.]{0,100})\n([A-Za-z_][\w.]{0,100})\n")
_SCAN: Final = 16 * 1024 * 1024
_SHOWN: Final = 5
_HINT: Final = (
    "save it with torch.export.save as .pt2, export it to ONNX (torch.onnx.export(model, example, 'model.onnx')), "
    "or save its state as safetensors with an architecture in config.json"
)


def refuse_torch(data: Octets) -> UploadRefused:
    """The refusal; it names what makes the file able to run code."""
    if len(data) == 0:
        return WeightsFormat("the file is empty")
    if data[:2] != b"PK":
        if _PICKLE.match(data[:2]):
            return _pickle(data)
        return TypeNotAllowed("the file is not a torch file", hint=_HINT)
    names = _member_names(data)
    if any("/code/" in f"/{name}" for name in names):
        return WeightsUnsafe("TorchScript holds program text that loading runs", hint=_HINT)
    if any(name.endswith((".pkl", ".pickle")) for name in names) or _PICKLE.search(data[:_SCAN]):
        return _pickle(data)
    return TypeNotAllowed("torch archives are not accepted", hint=_HINT)


def _member_names(data: Octets) -> list[str]:
    names = []
    for match in _CENTRAL.finditer(data):
        length = int.from_bytes(match[1], "little")
        begin = match.start() + 46
        names.append(data[begin : begin + length].decode("utf-8", "replace"))
    return names


def _pickle(data: Octets) -> WeightsUnsafe:
    found = {f"{one[1].decode()}.{one[2].decode()}" for one in _GLOBAL.finditer(data[:_SCAN])}
    names = f" ({', '.join(quote(name) for name in sorted(found)[:_SHOWN])})" if found else ""
    return WeightsUnsafe(f"torch files are pickles, which can run code when opened{names}", hint=_HINT)
