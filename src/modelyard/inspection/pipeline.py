"""The inspection, in order: what is cheap and certain first, what opens the model last, behind walls.

Received sizes, names, archive, types, composition, digests, structure, configuration and labels, consistency, values;
then two child programs, one that converts and one that asks. Each check leaves evidence; the first that fails refuses.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.domain.contract import ModelContract, ModelFormat, ServingPackage
from modelyard.domain.digests import bundle_digest
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import (
    BundleMismatch,
    FileTooLarge,
    SignatureInvalid,
    TooManyFiles,
    TypeNotAllowed,
    UploadRefused,
    WeightsFormat,
)
from modelyard.domain.report import AuditReport, Check, Verdict
from modelyard.foundation.environments import environment_beside
from modelyard.inspection import child
from modelyard.inspection.advice import advise
from modelyard.inspection.archives import expand
from modelyard.inspection.audit import Audit
from modelyard.inspection.bundle import Bundle, compose, given_apart, sort_files, with_given
from modelyard.inspection.child_process import StartedChild
from modelyard.inspection.consistency import require_consistent
from modelyard.inspection.documents.config import read_config
from modelyard.inspection.documents.json_text import read_json, read_text
from modelyard.inspection.documents.labels import read_labels
from modelyard.inspection.documents.manifest import require_digests
from modelyard.inspection.documents.signature import require_signature
from modelyard.inspection.kinds import Kind, Role, kind_of
from modelyard.inspection.names import require_distinct, require_file_name
from modelyard.inspection.octets import mapped
from modelyard.inspection.policy import InspectionPolicy, ReceivedFile
from modelyard.inspection.structure import Structure, read_structure
from modelyard.inspection.weights.numpy_file import read_npy

_NPY_HEAD = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What came of it. `package_dir` lies in the workdir, and is None for a refusal; `files` name → hex SHA-256."""

    report: AuditReport
    digest: str
    files: Mapping[str, str] = field(default_factory=dict)
    package_dir: Path | None = None


@dataclass(slots=True)
class _Job:
    """One inspection under way."""

    audit: Audit
    policy: InspectionPolicy
    workdir: Path
    files: Sequence[ReceivedFile]
    unpacked: bool = False

    @property
    def digests(self) -> Mapping[str, str]:
        """Name → hex SHA-256; names that are no Unicode text (they are refused) in an escaped form."""
        return {file.name.encode("utf-8", "backslashreplace").decode(): file.sha256 for file in self.files}


def inspect_bundle(  # noqa: PLR0913  (the face: what is given apart is named apart)
    files: Sequence[ReceivedFile],
    *,
    model_name: str,
    workdir: Path,
    policy: InspectionPolicy,
    on_check: Callable[[Check], None],
    labels: Path | None = None,
    config: Path | None = None,
) -> Inspection:
    """Inspect what was received and make it servable.

    `workdir` is an existing private directory on the file system of the files, the caller's to delete; the package lies
    in it. `labels` and `config` are files given apart, which take the place of those in the bundle. `on_check` hears
    every check as it ends. Bad input never raises: a refusal is a report with the verdict `refused`.
    """
    job = _Job(Audit(on_check), policy, workdir, files)
    package_dir: Path | None = None
    try:
        with ExitStack() as stack:
            package_dir = _inspect(job, model_name, _given(labels, config), stack)
    except UploadRefused:
        package_dir = None
    report = job.audit.report()
    if report.verdict is Verdict.REFUSED:
        package_dir = None
    return Inspection(report=report, digest=_digest(job), files=job.digests, package_dir=package_dir)


def _digest(job: _Job) -> str:
    """The digest of the bundle as it stands now: of the members, once an archive was taken apart."""
    return bundle_digest(job.digests)


def _given(labels: Path | None, config: Path | None) -> Sequence[ReceivedFile]:
    found = [given_apart(labels, "labels")] if labels is not None else []
    return [*found, given_apart(config, "config")] if config is not None else found


def _inspect(job: _Job, model_name: str, given: Sequence[ReceivedFile], stack: ExitStack) -> Path | None:
    _check_received(job)
    _check_names(job)
    _expand(job)
    bundle = _check_composition(job, given)
    _check_digests(job, bundle)
    structure = _check_structure(job, bundle)
    converter = stack.enter_context(child.prestart("convert", format=bundle.format))
    prober = None if bundle.format is ModelFormat.PYTHON else stack.enter_context(child.prestart("probe"))
    config = _check_config(job, bundle)
    labels = _check_labels(job, bundle)
    _check_documents(job, bundle)
    with job.audit.check("bundle.consistency") as finding:
        compared = require_consistent(bundle, config, labels, structure)
        finding.say("configuration, labels and weights fit together", **compared)
    _check_values(job, bundle, structure)
    return _convert_and_probe(job, bundle, _child_job(job, bundle, model_name, config, labels), (converter, prober))


def _check_received(job: _Job) -> None:
    with job.audit.check("received.files") as finding:
        count, total = len(job.files), sum(file.size for file in job.files)
        finding.say(f"{count} files, {total} bytes", files=count, limit_files=job.policy.files, bytes=total)
        finding.evidence["limit_bytes"] = job.policy.bundle_bytes
        if count > job.policy.files:
            raise TooManyFiles(f"{count} files, a bundle has at most {job.policy.files}", hint="upload the model only")
        if total > job.policy.bundle_bytes:
            raise FileTooLarge(f"{total} bytes, a bundle has at most {job.policy.bundle_bytes}")
        if not count:
            raise BundleMismatch("nothing was uploaded", hint="send each file in a part named files")


def _check_names(job: _Job) -> None:
    with job.audit.check("names.plain") as finding:
        names = [require_file_name(file.name) for file in job.files]
        require_distinct(names)
        finding.say("plain names, all different", names=names)


def _expand(job: _Job) -> None:
    """Take a single archive apart; its members are the bundle then."""
    if len(job.files) != 1 or not _is_archive(job.files[0]):
        return
    with job.audit.check("archive.members") as finding:
        archive = job.files[0]
        members = expand(archive, job.workdir / "members", job.policy)
        total = sum(member.size for member in members)
        finding.say(
            f"{len(members)} plain files",
            members=len(members),
            limit_members=job.policy.archive_members,
            bytes=total,
            ratio=round(total / max(archive.size, 1), 2),
            limit_ratio=job.policy.archive_ratio,
        )
    job.files, job.unpacked = members, True


def _is_archive(file: ReceivedFile) -> bool:
    try:
        return kind_of(file.name).role is Role.ARCHIVE
    except TypeNotAllowed:
        return False  # the check of types refuses it, and is on record as the one that did


def _check_composition(job: _Job, given: Sequence[ReceivedFile]) -> Bundle:
    with job.audit.check("types.content") as finding:
        found = sort_files(job.files, job.policy, unpacked=job.unpacked)
        if given:
            job.files = with_given(job.files, given)
            found = sort_files(job.files, job.policy, unpacked=job.unpacked)
        finding.say("names and contents agree", kinds={entry.file.name: _shown(entry.kind) for entry in found})
    with job.audit.check("bundle.composition") as finding:
        bundle = compose(found, job.policy)
        finding.say(f"weights {quote(bundle.weights.name)}", weights=bundle.weights.name, format=bundle.kind.value)
        if given:
            finding.evidence["given_apart"] = [file.name for file in given]
    return bundle


def _shown(kind: Kind) -> str:
    return kind.weights.value if kind.weights is not None else kind.role.value


def _check_digests(job: _Job, bundle: Bundle) -> None:
    if (manifest := bundle.roles.get(Role.MANIFEST)) is not None:
        with job.audit.check("manifest.digests") as finding:
            count = require_digests(manifest.path, manifest.name, bundle.digests, job.policy)
            finding.say(f"{count} digests are as stated", files=count)
    signature = bundle.roles.get(Role.SIGNATURE)
    if signature is None and not job.policy.require_signature:
        return
    with job.audit.check("signature.bundle") as finding:
        if signature is None:
            raise SignatureInvalid("this platform accepts signed bundles only", hint="add a model signature (*.sig)")
        signed = {name: digest for name, digest in bundle.digests.items() if name != signature.name}
        key = require_signature(signature.path, signature.name, signed, job.policy)
        finding.say(f"signed with the trusted key {quote(key)}", key=key, files=len(signed))


def _check_structure(job: _Job, bundle: Bundle) -> Structure:
    with job.audit.check("weights.structure") as finding:
        if bundle.weights.size == 0:
            raise WeightsFormat(f"{quote(bundle.weights.name)} is empty", hint="upload the file again")
        structure = read_structure(bundle, job.workdir, job.policy)
        finding.say(structure.summary, **structure.evidence)
    return structure


def _check_config(job: _Job, bundle: Bundle) -> Mapping[str, object]:
    file = bundle.roles.get(Role.CONFIG)
    if file is None:
        return {}
    with job.audit.check("config.schema") as finding:
        config = read_config(file.path, file.name, job.policy)
        finding.say(f"{len(config)} fields, all known and plain", fields=sorted(config))
    return config


def _check_labels(job: _Job, bundle: Bundle) -> tuple[str, ...]:
    file = bundle.roles.get(Role.LABELS)
    if file is None:
        return ()
    with job.audit.check("labels.map") as finding:
        labels = read_labels(file.path, file.name, job.policy)
        finding.say(f"{len(labels)} labels", labels=len(labels), limit_labels=job.policy.labels)
    return labels


def _check_documents(job: _Job, bundle: Bundle) -> None:
    """Sample, profile, card and the like: of the form that their names say."""
    sample = bundle.roles.get(Role.SAMPLE)
    files = [entry.file for entry in bundle.texts] + ([sample] if sample is not None else [])
    if not files:
        return
    with job.audit.check("documents.form") as finding:
        for file in files:
            if file.name.lower().endswith(".npy"):
                with mapped(file.path) as data:
                    read_npy(data[:_NPY_HEAD], len(data), what=quote(file.name))
                continue
            content = file.path.read_bytes()
            if file.name.lower().endswith(".json"):
                read_json(content, what=quote(file.name), policy=job.policy, refused=TypeNotAllowed)
            else:
                read_text(content, what=quote(file.name), refused=TypeNotAllowed)
        finding.say("readable", files=[file.name for file in files])


def _check_values(job: _Job, bundle: Bundle, structure: Structure) -> None:
    if not structure.tensors:
        return
    from modelyard.inspection.weights.values import require_finite  # numpy is loaded for this alone

    with job.audit.check("weights.values") as finding:
        seen = require_finite(structure.values or bundle.weights.path, structure.tensors.values())
        finding.say("all floating-point weights are finite", bytes=seen)


def _child_job(
    job: _Job, bundle: Bundle, model_name: str, config: Mapping[str, object], labels: tuple[str, ...]
) -> child.ConvertJob:
    """What the convert child is given: the files under their own names in a directory of their own."""
    stage, out = job.workdir / "bundle", job.workdir / "package"
    stage.mkdir(mode=0o700)
    out.mkdir(mode=0o700)
    for file in job.files:
        _place(file.path, stage / file.name)
    assert bundle.format is not None  # weights of other kinds were refused by their parser
    sample = bundle.roles.get(Role.SAMPLE)
    if bundle.mlflow is not None and bundle.mlflow.signature:
        config = {**config, "signature": bundle.mlflow.signature}
    return child.ConvertJob(
        directory=stage,
        out=out,
        name=model_name,
        digest=_digest(job),
        format=bundle.format,
        weights=bundle.weights.name,
        config=config,
        labels=labels,
        sample=None if sample is None else sample.name,
        files=job.digests,
    )


def _place(source: Path, place: Path) -> None:
    """A second name for the same bytes; a copy where the file system has none."""
    try:
        os.link(source.resolve(), place)
    except OSError:
        shutil.copyfile(source, place)


def _convert_and_probe(
    job: _Job, bundle: Bundle, order: child.ConvertJob, started: tuple[StartedChild, StartedChild | None]
) -> Path | None:
    policy = job.policy
    limits = child.ChildLimits(
        cpu_s=policy.audit_cpu_s,
        wall_s=policy.audit_wall_s,
        memory_bytes=policy.audit_memory_bytes,
        file_bytes=policy.audit_file_bytes,
        open_files=policy.audit_open_files,
        processes=policy.audit_processes,
    ).for_size(sum(file.size for file in bundle.files.values()), ceiling=policy.audit_memory_max_bytes)
    converted = child.convert(order, limits=limits, on_check=job.audit.record, started=started[0])
    if converted.refusal is not None:
        job.audit.refuse(converted.refusal)
        return None
    if started[1] is None:
        return order.out  # own code is not run here: it is asked for the first time in its own worker
    if converted.package is not None and not _can_be_asked(converted.package):
        (order.out / child.PROBE_ROWS).unlink(missing_ok=True)
        return order.out  # the check that said so asks for a review
    probed = child.probe(order.out, limits=limits, on_check=job.audit.record, started=started[1])
    if probed.refusal is not None:
        job.audit.refuse(probed.refusal)
        return None
    if probed.package is not None:
        _advise(job, bundle, probed.package.contract)
    return order.out


def _can_be_asked(package: ServingPackage) -> bool:
    """Whether the probe has the library that the package is asked with."""
    return "library" not in package.options or environment_beside(package) is not None


def _advise(job: _Job, bundle: Bundle, contract: ModelContract) -> None:
    for advice in advise(contract, bundle.roles):
        with job.audit.check(advice.name) as finding:
            finding.warn(advice.summary, hint=advice.hint)
