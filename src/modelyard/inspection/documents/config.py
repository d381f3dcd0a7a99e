"""`config.json` or `model.yaml`: read strictly, searched for what it may not name, held against a closed schema."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ConfigInvalid, FileTooLarge
from modelyard.domain.tensors import VARIABLE, DataType
from modelyard.inspection.documents.config_safety import require_safe
from modelyard.inspection.documents.json_text import read_bounded, read_json, read_text, require_object
from modelyard.inspection.documents.safe_yaml import read_yaml
from modelyard.inspection.policy import InspectionPolicy

_TEXT_CHARS: Final = 20_000
_NAME_CHARS: Final = 128
_MAX_DIM: Final = (1 << 31) - 1
_TENSORS: Final = 1024
_LAYERS: Final = 2000

Rule = Callable[[str, object, InspectionPolicy], None]


def read_config(path: Path, name: str, policy: InspectionPolicy) -> Mapping[str, object]:
    """The configuration in `path`, whose `name` says JSON or YAML.

    Raises:
        FileTooLarge: more than `config_bytes`.
        ConfigUnsafe: it names code, addresses, templates, the environment or outside paths.
        ConfigInvalid: everything else that is wrong with it.
    """
    data = read_bounded(path, limit=policy.config_bytes, what=quote(name), too_large=FileTooLarge)
    if name.lower().endswith(".json"):
        value = read_json(data, what=quote(name), policy=policy, refused=ConfigInvalid)
    else:
        text = read_text(data, what=quote(name), refused=ConfigInvalid)
        value = read_yaml(text, what=quote(name), max_depth=policy.json_depth, max_digits=policy.json_int_digits)
    require_safe(value, what=quote(name))
    config = require_object(value, what=quote(name), refused=ConfigInvalid)
    require_schema(config, policy)
    return config


def require_schema(config: Mapping[str, object], policy: InspectionPolicy) -> None:
    """Every field known and of its form."""
    for field, value in config.items():
        rule = _FIELDS.get(field)
        if rule is None:
            raise ConfigInvalid(
                f"there is no field {quote(field)}",
                hint=f"fields: {', '.join(sorted(_FIELDS))}",
                details=[{"field": quote(field)}],
            )
        rule(field, value, policy)
    for one, many in (("input", "inputs"), ("output", "outputs")):
        if one in config and many in config:
            raise ConfigInvalid(f"{one} and {many} are both given", hint=f"keep {many}")


def _wrong(field: str, expected: str) -> ConfigInvalid:
    return ConfigInvalid(f"{field} must be {expected}", details=[{"field": field, "expected": expected}])


def _text(field: str, value: object, _: InspectionPolicy) -> None:
    if not isinstance(value, str) or len(value) > _TEXT_CHARS or _has_surrogate(value):
        raise _wrong(field, f"text of at most {_TEXT_CHARS} characters")


def _word(field: str, value: object, _: InspectionPolicy) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_CHARS or not value.isprintable():
        raise _wrong(field, f"1 to {_NAME_CHARS} printable characters")


def _format(field: str, value: object, _: InspectionPolicy) -> None:
    if value not in list(ModelFormat):
        raise _wrong(field, f"one of {', '.join(ModelFormat)}")


def _tensors(field: str, value: object, policy: InspectionPolicy) -> None:
    if not isinstance(value, list) or not 0 < len(value) <= _TENSORS:
        raise _wrong(field, "a list of tensors")
    names = set()
    for index, item in enumerate(value):
        _tensor(f"{field}[{index}]", item, policy)
        names.add(item["name"])
    if len(names) != len(value):
        raise _wrong(field, "a list of tensors with different names")


def _tensor(field: str, value: object, policy: InspectionPolicy) -> None:
    if not isinstance(value, dict) or "name" not in value:
        raise _wrong(field, "an object with name, datatype and shape")
    unknown = value.keys() - {"name", "datatype", "shape", "categories", "allows_nan", "description"}
    if unknown:
        raise ConfigInvalid(f"{field} has no field {quote(min(unknown))}", hint="fields: name, datatype, shape")
    _word(f"{field}.name", value["name"], policy)
    if "datatype" in value and value["datatype"] not in list(DataType):
        raise _wrong(f"{field}.datatype", f"one of {', '.join(DataType)}")
    if "shape" in value:
        _shape(f"{field}.shape", value["shape"], policy)
    if not isinstance(value.get("allows_nan", False), bool):
        raise _wrong(f"{field}.allows_nan", "true or false")
    _text(f"{field}.description", value.get("description", ""), policy)
    _categories(f"{field}.categories", value.get("categories", []), policy)


def _shape(field: str, value: object, policy: InspectionPolicy) -> None:
    if not isinstance(value, list) or not 0 < len(value) <= policy.rank:
        raise _wrong(field, f"a list of 1 to {policy.rank} sizes")
    product = 1
    for size in value:
        if type(size) is not int or (size != VARIABLE and not 1 <= size <= _MAX_DIM):
            raise _wrong(field, f"sizes from 1 to {_MAX_DIM}, or -1 for a variable one")
        product *= abs(size)
    if product > policy.element_count:
        raise _wrong(field, f"at most {policy.element_count} elements")


def _categories(field: str, value: object, policy: InspectionPolicy) -> None:
    if not isinstance(value, list) or len(value) > policy.labels or not all(isinstance(item, str) for item in value):
        raise _wrong(field, "a list of texts")


def _num_labels(field: str, value: object, policy: InspectionPolicy) -> None:
    if type(value) is not int or not 1 <= value <= policy.labels:
        raise _wrong(field, f"a whole number from 1 to {policy.labels}")


def _architecture(field: str, value: object, _: InspectionPolicy) -> None:
    if not isinstance(value, list) or not 0 < len(value) <= _LAYERS:
        raise _wrong(field, f"a list of 1 to {_LAYERS} layers")
    for index, layer in enumerate(value):
        if not isinstance(layer, dict) or len(layer) != 1 or not isinstance(next(iter(layer.values())), dict):
            raise _wrong(f"{field}[{index}]", 'an object with one key, such as {"relu": {}}')


def _batching(field: str, value: object, _: InspectionPolicy) -> None:
    if not isinstance(value, dict) or value.keys() - {"max_size", "max_wait_ms"}:
        raise _wrong(field, "an object with max_size and max_wait_ms")
    size, wait = value.get("max_size", 1), value.get("max_wait_ms", 0)
    if type(size) is not int or not 1 <= size <= 65536:  # noqa: PLR2004
        raise _wrong(f"{field}.max_size", "a whole number from 1 to 65536")
    if type(wait) not in (int, float) or not 0 <= float(str(wait)) <= 10_000:  # noqa: PLR2004
        raise _wrong(f"{field}.max_wait_ms", "milliseconds from 0 to 10000")


def _inputs_as(field: str, value: object, _: InspectionPolicy) -> None:
    if value not in ("arrays", "frame"):
        raise _wrong(field, "arrays or frame")


def _data(field: str, value: object, _: InspectionPolicy) -> None:
    """Any data; its depth and size were bounded by the reader."""
    if value is None or _has_surrogate(str(value)):
        raise _wrong(field, "data")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


_FIELDS: Final[Mapping[str, Rule]] = {
    "name": _word,
    "format": _format,
    "task": _word,
    "input": _tensor,
    "output": _tensor,
    "inputs": _tensors,
    "outputs": _tensors,
    "num_labels": _num_labels,
    "architecture": _architecture,
    "runtime": _word,
    "inputs_as": _inputs_as,
    "batching": _batching,
    "example": _data,
    "license": _text,
    "description": _text,
    "intended_use": _text,
    "metrics": _data,
    "training_data": _data,
    "tags": _data,
}
