"""The forms of a model that the search chooses from: as it is, by each method of compression, for each runtime."""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from modelyard.domain.contract import Isolation, ServingPackage
from modelyard.domain.digests import bundle_digest
from modelyard.domain.errors.platform import MissingExtra, NotFound, NotSupported
from modelyard.foundation.documents import read_package, write_package
from modelyard.foundation.registry import Registry
from modelyard.foundation.samples import Sample
from modelyard.inference.hosting import load_model
from modelyard.ports.form_converter import FormConverter
from modelyard.ports.job_runner import JobContext, ServiceAddress
from modelyard.ports.runtime import LoadOptions
from modelyard.processes.jobs.optimising.points import AS_IT_IS, Form
from modelyard.processes.jobs.runners import JOB_RUNNERS

CONVERTERS: Final = Registry[FormConverter](
    group="modelyard.form_converters",
    builtin={"openvino": "modelyard.integrations.compressors.openvino_form:ToOpenVino"},
)
_ONNX: Final = "onnxruntime"
_BATCH: Final = 256
_ROUNDING: Final = 1e-3
"""Points that two runtimes may be apart and count as the same."""


@dataclass(slots=True)
class Forms:
    """What there is to choose from, and what was left out with the reason."""

    made: list[Form] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, name: str, runtime: str, error: Exception) -> None:
        """One that cannot be had."""
        self.left_out.append({"form": name, "runtime": runtime, "reason": str(error)})


def package_of(job: JobContext) -> ServingPackage:
    """What the model that the job was given is served from.

    Raises:
        NotSupported: it is not served as ONNX from the listening process, or takes no rows.
    """
    package = read_package(job.input("model") / "package")
    if package.runtime != _ONNX or package.isolation is not Isolation.SHARED:
        raise NotSupported(
            f"this is for models that are served as ONNX by the model servers, and this one is {package.format}",
            hint="export it to ONNX and upload that",
        )
    if package.contract.max_batch_size == 0:
        raise NotSupported(
            "this model has no batch axis, so rows of a sample cannot be asked of it",
            hint="export it with a first axis of any size",
        )
    return package


class FormMaker:
    """Makes the forms of the model that a job was given."""

    def __init__(self, job: JobContext, package: ServingPackage, sample: Sample) -> None:
        """`package` is that of `package_of`."""
        self._job = job
        self._package = package
        self._sample = sample
        self._most = float(job.parameters["max_drop"])

    def make(self, methods: Sequence[str], runtimes: Sequence[str], *, tell: Callable[[float, str], None]) -> Forms:
        """All forms that lose no more than is allowed; `tell` hears how far it is and with what."""
        forms, place = Forms(), self._job.input("model") / "package"
        entry = place / self._package.entry
        forms.made.append(
            Form(
                name=AS_IT_IS,
                runtime=_ONNX,
                directory=place,
                package=self._package,
                size_bytes=entry.stat().st_size,
                points=0.0,
            )
        )
        for index, method in enumerate(methods):
            tell(index / len(methods), method)
            try:
                forms.made.append(self._compressed(method))
            except (NotSupported, MissingExtra) as error:
                forms.leave_out(method, _ONNX, error)
        for runtime in (each for each in runtimes if each != _ONNX):
            for form in list(forms.made):
                tell(1.0, f"{form.name} for {runtime}")
                try:
                    forms.made.append(self._converted(form, runtime))
                except (NotSupported, MissingExtra) as error:
                    forms.leave_out(form.name, runtime, error)
        if _ONNX not in runtimes:
            forms.made = [form for form in forms.made if form.runtime != _ONNX or form.name == AS_IT_IS]
        return forms

    def _compressed(self, method: str) -> Form:
        sub = _Within(self._job, method, self._job.directory / method)
        result = JOB_RUNNERS.get("compress")().run(sub)
        directory, entry = sub.made.parent, sub.made
        package = _package(directory, self._package, runtime=_ONNX, files={entry.name: entry})
        return Form(
            name=method,
            runtime=_ONNX,
            directory=directory,
            package=package,
            size_bytes=entry.stat().st_size,
            points=max(0.0, float(result["drop"]["points"])),
            drop=result["drop"],
            upload=entry,
        )

    def _converted(self, form: Form, runtime: str) -> Form:
        upload = self._job.directory / f"{form.name} for {runtime}"
        upload.mkdir()
        files = CONVERTERS.get(runtime)().convert(form.directory / form.package.entry, upload)
        directory = self._job.directory / f"{form.name} for {runtime}, package"
        directory.mkdir()
        for name, path in files.items():
            shutil.copyfile(path, directory / name)
        package = _package(directory, form.package, runtime=runtime, files=files)
        points = round(form.points + self._apart(form.directory, directory), 4)
        if points > self._most:
            raise NotSupported(f"it loses {points:g} points, and {self._most:g} are allowed")
        return Form(
            name=form.name,
            runtime=runtime,
            directory=directory,
            package=package,
            size_bytes=sum(path.stat().st_size for path in files.values()),
            points=points,
            drop=form.drop,
            upload=upload,
        )

    def _apart(self, one: Path, other: Path) -> float:
        """How far the answers of two packages are apart, as they would be served, in points."""
        import numpy as np

        hosted = [load_model(place, options=LoadOptions(threads=1)) for place in (one, other)]
        try:
            worst = 0.0
            answers = [
                [each.run(self._sample.part(begin, begin + _BATCH)) for begin in range(0, self._sample.rows, _BATCH)]
                for each in hosted
            ]
        finally:
            for each in hosted:
                each.model.close()
        for name in answers[0][0]:
            before, after = (np.concatenate([part[name] for part in parts]) for parts in answers)
            if before.dtype.kind == "f":
                spread = float(np.std(before)) or 1.0
                worst = max(worst, 100 * float(np.mean(np.abs(after - before))) / spread)
            else:
                worst = max(worst, 100 * float(np.mean((before != after).reshape(len(before), -1).any(axis=1))))
        return worst if worst > _ROUNDING else 0.0


class _Within(JobContext):
    """An attempt at a compression inside this attempt; what it offers is kept here and goes nowhere."""

    def __init__(self, job: JobContext, method: str, directory: Path) -> None:
        directory.mkdir()
        self._job, self._directory = job, directory
        self._parameters = {**job.parameters, "method": method}
        self._made: Path | None = None

    @property
    def id(self) -> str:
        """The job's."""
        return self._job.id

    @property
    def kind(self) -> str:
        """That of the compression."""
        return "compress"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The job's, with the method."""
        return self._parameters

    @property
    def directory(self) -> Path:
        """Its own."""
        return self._directory

    @property
    def seed(self) -> int:
        """The job's."""
        return self._job.seed

    @property
    def attempt(self) -> int:
        """The job's."""
        return self._job.attempt

    @property
    def made(self) -> Path:
        """What was offered."""
        if self._made is None:
            raise NotSupported("nothing came out")
        return self._made

    def input(self, name: str) -> Path:
        """The job's."""
        return self._job.input(name)

    def service(self) -> ServiceAddress:
        """There is none."""
        raise NotFound("the job asks no service")

    def report(self, *, done: float | None, text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """How far one of many forms is, is not how far the job is."""

    def keep(self, name: str, path: Path) -> None:
        """Files of a form are not files of the outcome."""

    def checkpoint(self) -> Path:
        """Its directory: forms are made anew in each attempt."""
        return self._directory

    def candidate(
        self,
        path: Path,
        *,
        name: str,
        labels: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        parent: str | None,
    ) -> None:
        """Kept."""
        self._made = path

    def is_cancelled(self) -> bool:
        """As the job."""
        return self._job.is_cancelled()


def _package(directory: Path, original: ServingPackage, *, runtime: str, files: Mapping[str, Path]) -> ServingPackage:
    """A package that a server loads, with the promises of the original but for its one known answer."""
    digests = {name: _digest(path) for name, path in files.items()}
    package = replace(
        original,
        digest=bundle_digest(digests),
        runtime=runtime,
        entry=next(iter(files)),
        files=digests,
        golden=None,
    )
    write_package(directory, package)
    return package


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
