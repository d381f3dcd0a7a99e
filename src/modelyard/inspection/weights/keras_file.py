"""`.keras` and HDF5: refused, and where the configuration names code it is called that.

Keras' own safe mode was bypassed six times in two years, so nothing here depends on it.
"""

from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed, UploadRefused, WeightsFormat, WeightsUnsafe
from modelyard.inspection.archives.zip_directory import read_directory
from modelyard.inspection.archives.zip_file import require_bounded, unpacked
from modelyard.inspection.documents.json_text import read_json
from modelyard.inspection.octets import Octets
from modelyard.inspection.policy import MIB, InspectionPolicy

_HINT: Final = "export the model to ONNX: model.export('model.onnx', format='onnx')"
_CONFIG_BYTES: Final = 16 * MIB
_CODE_CLASSES: Final = frozenset({"function", "Lambda", "TorchModuleWrapper", "builtin_function_or_method"})
_PLAIN_MODULES: Final = frozenset({
    "keras", "keras.layers", "keras.models", "keras.initializers", "keras.optimizers", "keras.losses", "keras.metrics",
    "keras.regularizers", "keras.constraints", "builtins",
})  # fmt: skip


def refuse_keras(data: Octets, policy: InspectionPolicy) -> UploadRefused:
    """The refusal of a `.keras` archive."""
    if data[:2] != b"PK":
        return refuse_hdf5()
    members = read_directory(data, max_members=policy.archive_members)
    require_bounded(members, policy)
    for member in members:
        if member.name == "config.json" and member.size <= _CONFIG_BYTES:
            text = b"".join(unpacked(data, member))
            _require_no_code(read_json(text, what="config.json", policy=policy, refused=WeightsFormat))
    return TypeNotAllowed("Keras archives are not accepted", hint=_HINT)


def refuse_hdf5() -> UploadRefused:
    """The refusal of HDF5: a Keras model in it may hold code that no safe mode looks at."""
    return TypeNotAllowed("HDF5 files are not accepted: Keras models in them can hold code", hint=_HINT)


def _require_no_code(value: object) -> None:
    if isinstance(value, list):
        for item in value:
            _require_no_code(item)
    elif isinstance(value, dict):
        name, module = value.get("class_name"), value.get("module")
        foreign = isinstance(module, str) and module not in _PLAIN_MODULES
        if foreign or (isinstance(name, str) and name in _CODE_CLASSES):
            raise WeightsUnsafe(f"the Keras configuration names {quote(module)} {quote(name)}", hint=_HINT)
        for item in value.values():
            _require_no_code(item)
