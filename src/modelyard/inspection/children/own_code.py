"""Own code as a package: its sources read, its lock file and its promises checked, its files copied, nothing run."""

from modelyard.domain.contract import Isolation, ServingPackage
from modelyard.domain.report import Outcome
from modelyard.inspection.children.packaging import Work, copy_file, timed
from modelyard.inspection.code_bundle import ENTRY, CodeFacts, example_of, inputs_as, read_contract, read_sources
from modelyard.inspection.code_bundle_lock import LOCK_FILE, Pin, read_lock

RUNTIME = "python_code"
_LEFT_OUT = frozenset({"manifest.json"})


def convert_code(work: Work) -> None:
    """Write the package of a bundle with `predict.py`; a person has to look at it before it is served."""
    names = sorted(path.name for path in work.directory.iterdir())
    with timed(work.channel, "code.source") as found:
        sources = {name: (work.directory / name).read_bytes() for name in names if name.endswith(".py")}
        facts = read_sources(sources)
        found.summary = f"{len(sources)} sources, {facts.lines} lines; read, not run"
        found.evidence = {
            "files": {name: len(data) for name, data in sources.items()},
            "imports_standard": sorted(facts.standard),
            "imports_installed": sorted(facts.installed),
            "streams": facts.streams,
        }
    with timed(work.channel, "code.contract") as found:
        contract = read_contract(work.config, work.labels)
        form = inputs_as(work.config, contract)
        golden = example_of(work.config, contract)
        found.summary = f"{len(contract.inputs)} inputs as {form}, {len(contract.outputs)} outputs, as the config says"
        found.evidence = {"inputs_as": form, "max_batch_size": contract.max_batch_size, "example": golden is not None}
    pins = _check_lock(work)
    _review(work, facts, pins, batch=contract.max_batch_size)
    for name in names:
        if not name.lower().endswith(".sig") and name.lower() not in _LEFT_OUT:
            copy_file(work.directory / name, work.out / name)
    work.finish(
        ServingPackage(
            name=work.name,
            digest="",
            format=work.format,
            runtime=RUNTIME,
            entry=ENTRY,
            platform="python",
            contract=contract,
            golden=golden,
            isolation=Isolation.PROCESS,
            options={"inputs_as": form},
        )
    )


def _check_lock(work: Work) -> tuple[Pin, ...]:
    with timed(work.channel, "code.lock") as found:
        pins = read_lock((work.directory / LOCK_FILE).read_text(encoding="utf-8"))
        bare = [f"{pin.name}=={pin.version}" for pin in pins if not pin.hashes]
        found.evidence = {"packages": [f"{pin.name}=={pin.version}" for pin in pins], "without_digest": bare}
        found.summary = f"{len(pins)} packages, each at one version and with its digests"
        if bare:
            found.outcome = Outcome.NEEDS_REVIEW
            found.summary = f"{len(bare)} of {len(pins)} packages are not held to a digest: {', '.join(bare[:6])}"
            found.hint = "`uv pip compile --generate-hashes` writes digests; without them the index decides what is got"
        return pins


def _review(work: Work, facts: CodeFacts, pins: tuple[Pin, ...], *, batch: int) -> None:
    with timed(work.channel, "code.review") as found:
        found.outcome = Outcome.NEEDS_REVIEW
        found.summary = "program code: a person has to read it; it runs only in a worker of its own, behind walls"
        notes = []
        if facts.notable:
            notes.append(f"imports {', '.join(sorted(facts.notable))}")
        if batch > 1:
            notes.append(f"says that up to {batch} rows of different callers may be asked at once")
        found.evidence = {
            "notable_imports": sorted(facts.notable),
            "notable_calls": facts.calls,
            "packages": len(pins),
            "notes": notes,
        }
        found.hint = "; ".join(["read predict.py", *notes])
