"""The job `compress`: a smaller form of a version that loses no more than is allowed, and what it gains, measured.

Where 8 bits cost too much, the nodes that cost most stay as they are, one after the other, until the rest is good
enough: each is judged by itself first. Of an ensemble of trees as few stay as are enough, and of a network as few
weights or units. What comes out goes through the same intake as every upload.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.job_kinds.compress import COMPRESSION_METHODS, PRUNING, TREES
from modelyard.foundation.documents import read_package
from modelyard.foundation.samples import Sample, read_sample
from modelyard.integrations.compressors.onnx_forms import BY_NODE, make, named, quantisable
from modelyard.integrations.compressors.trees import Cut, Ensemble, fewest
from modelyard.integrations.judging import Drop, Judge, Model, times
from modelyard.integrations.networks.prune import prune
from modelyard.ports.job_runner import JobContext

_MOST_JUDGED: Final = 48
_LIBRARIES: Final = ("onnxruntime", "onnx", "numpy")


class Compress:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Light: the method is one that there is, the drop is a number of points."""
        if parameters.get("method") not in COMPRESSION_METHODS:
            raise InvalidRequest(
                "there is no such method",
                details=[{"field": "parameters.method", "expected": list(COMPRESSION_METHODS)}],
            )

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Make, judge, and offer the version."""
        method, most = str(job.parameters["method"]), float(job.parameters["max_drop"])
        given = job.input("model")
        package = read_package(given / "package")
        original = given / "package" / package.entry
        if package.runtime != "onnxruntime":
            raise NotSupported(f"{method} is for models that are served as ONNX, and this one is {package.format}")
        job.report(done=0.05, text="reading the sample")
        sample = read_sample(job.input("sample"), package.contract.inputs, target=job.parameters.get("target"))
        source = job.directory / "named.onnx"
        named(original, source)
        judge = Judge(package.contract, source, sample)
        made = job.directory / "model.onnx"
        left_out: Sequence[str] = ()
        trees: dict[str, Any] = {}
        pruned: Mapping[str, Any] = {}
        if method in PRUNING:
            done = prune(job, method, source, made, contract=package.contract, sample=sample, most=most)
            drop, pruned, sample = done.drop, done.details, done.held
        elif method == TREES:
            drop, trees = _fewest_trees(job, source, made, judge=judge, most=most)
        else:
            drop, left_out = _within(job, method, source, made, judge=judge, sample=sample, most=most)
        job.report(done=0.8, text="measuring", metrics={"drop": drop.points})
        result = {
            "method": method,
            "max_drop": most,
            "drop": drop.document(),
            "size": _sizes(original, made),
            "time": times(judge.original, Model(made), sample),
            "left_out": list(left_out),
            "trees": trees,
            "pruned": dict(pruned),
            "seed": job.seed,
            "libraries": {name: version(name) for name in _LIBRARIES},
        }
        name = str(job.parameters.get("name") or package.name)
        job.candidate(
            made, name=name, labels=package.contract.label_file(), config=None, parent=job.parameters.get("parent")
        )
        return result


def _within(  # noqa: PLR0913  (what one search needs)
    job: JobContext, method: str, source: Path, made: Path, *, judge: Judge, sample: Sample, most: float
) -> tuple[Drop, Sequence[str]]:
    """Write the form to `made` so that it drops at most `most` points; which nodes had to stay as they are."""
    nodes = quantisable(source) if method in BY_NODE else []
    if method in BY_NODE and not nodes:
        raise NotSupported("nothing in this model can be taken to 8 bits", hint="fp16 or graph may help")
    make(method, source, made, nodes=nodes, sample=sample)
    drop = judge.drop(made)
    if drop.points <= most:
        return drop, ()
    if method not in BY_NODE or len(nodes) == 1:
        raise _too_much(method, drop, most)
    costs: dict[str, float] = {}
    for index, node in enumerate(nodes[:_MOST_JUDGED]):
        job.report(done=0.1 + 0.5 * index / len(nodes), text=f"judging {node} by itself")
        make(method, source, made, nodes=[node], sample=sample)
        costs[node] = judge.drop(made).points
    dearest = sorted(costs, key=lambda node: (-costs[node], node))
    for count in range(1, len(dearest)):
        kept = [node for node in nodes if node not in dearest[:count]]
        job.report(done=0.6 + 0.2 * count / len(dearest), text=f"{count} nodes stay as they are")
        make(method, source, made, nodes=kept, sample=sample)
        drop = judge.drop(made)
        if drop.points <= most:
            return drop, dearest[:count]
    raise _too_much(method, drop, most)


def _fewest_trees(
    job: JobContext, source: Path, made: Path, *, judge: Judge, most: float
) -> tuple[Drop, dict[str, Any]]:
    """Write the ensemble with few trees to `made` so that it drops at most `most` points; how many went."""
    ensemble = Ensemble(source)
    drops: dict[Cut, Drop] = {}

    def is_enough(cut: Cut) -> bool:
        job.report(done=0.1 + 0.6 * (1 - cut.rounds / ensemble.rounds), text=f"{ensemble.trees_in(cut)} trees")
        ensemble.write(made, cut)
        drops[cut] = judge.drop(made)
        return drops[cut].points <= most

    enough = list(fewest(ensemble.rounds, is_enough))
    if not enough:
        raise _too_much(TREES, next(iter(drops.values())), most)
    ensemble.write(made, enough[-1])
    return drops[enough[-1]], {
        "before": ensemble.trees,
        "after": ensemble.trees_in(enough[-1]),
        "rescaled": enough[-1].rescaled,
    }


def _too_much(method: str, drop: Drop, most: float) -> NotSupported:
    return NotSupported(
        f"{method} loses {drop.points:g} points of {drop.measure} on {drop.rows} rows, and {most:g} are allowed",
        hint="allow more with max_drop, give a larger sample, or take another method",
    )


def _sizes(before: Path, after: Path) -> dict[str, Any]:
    sizes = before.stat().st_size, after.stat().st_size
    return {"before_bytes": sizes[0], "after_bytes": sizes[1], "ratio": round(sizes[1] / sizes[0], 4)}
