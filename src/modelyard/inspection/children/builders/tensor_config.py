"""What a bundle's config says of inputs, outputs and task, read for builders that take exactly one input tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.domain.contract import Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid
from modelyard.domain.tensors import VARIABLE, DataType


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One declared tensor; what the config leaves out is None."""

    name: str
    datatype: DataType | None = None
    shape: tuple[int, ...] | None = None


def declared_tensor(config: Mapping[str, object], key: str) -> Declared | None:
    """The one tensor under `key` ("input") or in the list `key`s ("inputs"); None when nothing is declared."""
    single, many = config.get(key), config.get(f"{key}s")
    if single is None and many is None:
        return None
    if single is not None and many is not None:
        raise ConfigInvalid(f"{key} and {key}s are both given", hint=f"keep one of them; {key} is for one tensor")
    value = single
    if many is not None:
        if not isinstance(many, list) or len(many) != 1:
            raise ConfigInvalid(f"{key}s must list exactly one tensor for this format")
        value = many[0]
    if not isinstance(value, Mapping):
        raise ConfigInvalid(f"{key} must be an object with name, datatype and shape")
    return _declared(key, value)


def _declared(key: str, value: Mapping[str, object]) -> Declared:
    name, datatype, shape = value.get("name"), value.get("datatype"), value.get("shape")
    if not isinstance(name, str) or not name or "#" in name:
        raise ConfigInvalid(f"{key} needs a name (without #)")
    kinds = [kind for kind in DataType if kind == datatype]
    if datatype is not None and not kinds:
        raise ConfigInvalid(f"{key}: {quote(datatype)} is no datatype", hint=f"one of {', '.join(DataType)}")
    if shape is not None and not _is_shape(shape):
        raise ConfigInvalid(f"{key}: the shape must be 1 to 8 whole numbers, each -1 or at least 1")
    sizes = tuple(shape) if isinstance(shape, list) else None
    return Declared(name=name, datatype=kinds[0] if kinds else None, shape=sizes)


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 8  # noqa: PLR2004 (rank limit of a bundle)
        and all(type(size) is int and (size == VARIABLE or size >= 1) for size in shape)
    )


def require_fit(what: str, declared: Sequence[int] | None, actual: Sequence[int]) -> None:
    """`BundleMismatch` unless every size that is fixed on both sides is the same."""
    if declared is None:
        return
    fits = len(declared) == len(actual) and all(
        VARIABLE in {one, other} or one == other for one, other in zip(declared, actual, strict=True)
    )
    if not fits:
        raise BundleMismatch(
            f"{what} is declared as {list(declared)}, the weights give {list(actual)}",
            hint="correct the shape in the config, or upload the weights that belong to it",
        )


def declared_task(config: Mapping[str, object]) -> Task | None:
    """The declared task; None when there is none or it is one we have no word for."""
    return next((task for task in Task if task == config.get("task")), None)


def require_class_count(config: Mapping[str, object], classes: int) -> None:
    """`num_labels`, when declared, must be the number of classes."""
    count = config.get("num_labels")
    if count is not None and count != classes:
        raise BundleMismatch(f"num_labels is {quote(count)}, the weights give {classes} classes")
