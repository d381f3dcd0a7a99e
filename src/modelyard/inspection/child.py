"""Run the two child programs of the audit: `convert` an upload into a package, `probe` that the package answers.

The parent gives a child a minimal environment, a private temporary directory, a request on its standard input and a
descriptor for its events, and believes nothing of it: files that it made are looked at again, digests are computed
here, and whatever it does not say in its limits of time, memory and processor becomes a refusal. Every process a child
may have left is killed with its group before the call returns.
"""

import hashlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from modelyard.domain.contract import Golden, ModelContract, ModelFormat, ServingPackage
from modelyard.domain.errors.uploads import ProbeFailed
from modelyard.domain.report import Check, Refusal
from modelyard.foundation.documents import from_plain, read_package, to_plain, write_package
from modelyard.inspection.child_process import ChildAnswer, StartedChild, refusal_of

MIB: Final = 1 << 20
PROBE_ROWS: Final = "probe-rows.json"
"""Written beside a package by convert: the rows that the probe shall ask. Not part of the package."""

_NEEDS_KERNEL_WALL: Final = frozenset({ModelFormat.SKLEARN, ModelFormat.MLFLOW, ModelFormat.TORCH_EXPORT})
_MEMORY_FACTOR: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What one child may use: processor seconds, seconds in all, bytes of address space, bytes of one file, counts."""

    cpu_s: int = 60
    wall_s: float = 60.0
    memory_bytes: int = 2048 * MIB
    file_bytes: int = 8192 * MIB
    open_files: int = 256
    processes: int = 64

    def for_size(self, size: int, *, ceiling: int) -> Self:
        """The same limits with memory that follows a model of `size` bytes, never over `ceiling` bytes."""
        return replace(self, memory_bytes=min(max(self.memory_bytes, 1024 * MIB + _MEMORY_FACTOR * size), ceiling))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertJob:
    """What to convert: files lie flat in `directory`; the package is written to `out`, an existing empty directory.

    `weights` is the file that holds the model, `config` the bundle's configuration as plain JSON, `labels` in
    class-index order, `sample` the name of a sample file, `files` name → hex SHA-256 of what was uploaded.
    """

    directory: Path
    out: Path
    name: str
    digest: str
    format: ModelFormat
    weights: str
    config: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    sample: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """A package in the job's `out` (`package.json` is written), or the refusal; `checks` in the order they ended."""

    package: ServingPackage | None
    checks: tuple[Check, ...]
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The package with its golden answer and the batch size that was proved (`package.json` is written anew)."""

    package: ServingPackage | None
    checks: tuple[Check, ...]
    refusal: Refusal | None = None


def prestart(program: str, *, format: ModelFormat | None = None) -> StartedChild:  # noqa: A002  (the field's own name)
    """Start "convert" or "probe" ahead of its request, so that its imports overlap with other work.

    Hand what this returns to `convert` or `probe` as `started`, or `close()` it: the child waits for its request and
    ends with this process. `format` says what convert should import.
    """
    return StartedChild(program, imports=_imports(format))


def convert(
    job: ConvertJob, *, limits: ChildLimits, on_check: Callable[[Check], None], started: StartedChild | None = None
) -> ConvertResult:
    """Turn an upload into a package behind walls. Never raises for what the upload holds."""
    body = {
        "directory": str(job.directory),
        "out": str(job.out),
        "name": job.name,
        "format": job.format.value,
        "weights": job.weights,
        "config": dict(job.config),
        "labels": list(job.labels),
        "sample": job.sample,
    }
    with started or prestart("convert", format=job.format) as child:
        answer = child.ask(
            {
                "job": body,
                "imports": _imports(job.format),
                "needs_kernel_wall": job.format in _NEEDS_KERNEL_WALL,
                "read": [str(job.directory.resolve())],
                "write": [str(job.out.resolve())],
                "limits": to_plain(limits),
            },
            wall_s=limits.wall_s,
            on_check=on_check,
        )
    if answer.refusal is None:
        try:
            package = _take_over(job, answer)
        except (ProbeFailed, msgspec.ValidationError, OSError, KeyError) as error:
            answer = _distrust(answer, error)
        else:
            return ConvertResult(package=package, checks=answer.checks)
    return ConvertResult(package=None, checks=answer.checks, refusal=answer.refusal)


def probe(
    directory: Path,
    *,
    limits: ChildLimits,
    on_check: Callable[[Check], None],
    started: StartedChild | None = None,
) -> ProbeResult:
    """Ask the package in `directory` behind walls, and write what was proved into its `package.json`.

    The package's contract may gain output shapes that only running shows, never lose one.
    """
    package = read_package(directory)
    with started or prestart("probe") as child:
        answer = child.ask(
            {
                "job": {"directory": str(directory), "rows": PROBE_ROWS},
                "imports": package.runtime,
                "needs_kernel_wall": False,
                "read": [str(directory.resolve())],
                "write": [],
                "limits": to_plain(limits),
            },
            wall_s=limits.wall_s,
            on_check=on_check,
        )
    (directory / PROBE_ROWS).unlink(missing_ok=True)
    if answer.refusal is None:
        try:
            result = answer.result
            golden = from_plain(result["golden"], Golden) if result["golden"] else None
            contract = _narrowed(package.contract, from_plain(result["contract"], ModelContract))
        except (ProbeFailed, msgspec.ValidationError, KeyError) as error:
            answer = _distrust(answer, error)
        else:
            package = replace(package, golden=golden, contract=contract)
            write_package(directory, package)
            return ProbeResult(package=package, checks=answer.checks)
    return ProbeResult(package=None, checks=answer.checks, refusal=answer.refusal)


def _imports(kind: ModelFormat | None) -> str:
    return kind.value if kind is not None else ""


def _take_over(job: ConvertJob, answer: ChildAnswer) -> ServingPackage:
    """The package that a child says it made, after looking at its files: plain, flat, ours alone, digests by us."""
    package = from_plain(answer.result["package"], ServingPackage)
    files = {}
    for path in sorted(job.out.iterdir()):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ProbeFailed("the converted package holds something that is not a plain file")
        if path.name != PROBE_ROWS:
            with path.open("rb") as content:
                files[path.name] = hashlib.file_digest(content, "sha256").hexdigest()
    if package.entry not in files:
        raise ProbeFailed("the converted package lacks the file it wants to serve")
    package = replace(package, name=job.name, digest=job.digest, format=job.format, files=files)
    write_package(job.out, package)
    return package


def _narrowed(before: ModelContract, after: ModelContract) -> ModelContract:
    """`after`, if it differs from `before` only in what the probe is there to find out."""
    if replace(after, outputs=before.outputs, max_batch_size=before.max_batch_size) != before:
        raise ProbeFailed("the probe answered for another contract")
    if [output.name for output in after.outputs] != [output.name for output in before.outputs]:
        raise ProbeFailed("the probe answered with other outputs")
    return after


def _distrust(answer: ChildAnswer, error: Exception) -> ChildAnswer:
    refused = error if isinstance(error, ProbeFailed) else ProbeFailed("the audit's child gave no usable answer")
    return replace(answer, refusal=refusal_of(refused))
