"""The job `fine-tune`: a network learns rows of the user's, all of it or its last layers, for old labels or new."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.job_kinds.fine_tune import FINE_TUNE, NEW
from modelyard.foundation.documents import read_package
from modelyard.foundation.samples import Sample, read_sample
from modelyard.integrations.distilling.heads import Head, HeadKind, head_of, settled
from modelyard.integrations.distilling.lessons import matrix, picked, split
from modelyard.integrations.judging import Judge, Model
from modelyard.integrations.networks.graph import Network
from modelyard.integrations.networks.heads import with_new_head
from modelyard.integrations.networks.targets import as_texts, numbers_of, shares_of
from modelyard.integrations.networks.teaching import Lessons, Taught, layer_rates, teach
from modelyard.ports.job_runner import JobContext

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LIBRARIES: Final = ("torch", "onnx", "onnxruntime", "numpy")


class FineTune:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says."""
        FINE_TUNE.check(parameters, {"model": {}, "sample": {}})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Teach, judge, and offer the version."""
        wish = job.parameters
        package = read_package(job.input("model") / "package")
        if package.runtime != "onnxruntime":
            raise NotSupported(f"fine-tune is for networks that are served as ONNX, and this one is {package.format}")
        original, contract = job.input("model") / "package" / package.entry, package.contract
        job.report(done=0.02, text="reading the sample")
        sample = read_sample(job.input("sample"), contract.inputs, target=wish["target"])
        known, held = split(matrix(sample, contract.inputs), float(wish["held_out"]), job.seed)
        head = _head(contract, original, sample)
        path, labels = original, list(contract.labels)
        if wish["head"] == NEW:
            labels = _labels(sample)
            path = with_new_head(_copied(original, job.directory), head.output.name, len(labels), job.seed)
        network = Network(path, head.output.name)
        taught = _teach(job, network, sample, known, head, labels)
        made = job.directory / "model.onnx"
        network.write(made, taught.weights)
        job.report(done=0.9, text="judging it on held-out rows")
        outcome = _judged(contract, head, original, made, picked(sample, held), labels, is_new=wish["head"] == NEW)
        name = str(wish.get("name") or package.name)
        files = dict(enumerate(labels)) if labels else None
        job.candidate(
            made,
            name=name,
            labels={str(place): text for place, text in files.items()} if files else None,
            config={"task": contract.task.value},
            parent=wish.get("parent"),
        )
        return {
            **outcome,
            "head": wish["head"],
            "layers": {"all": len(network.layers), "frozen": min(int(wish["frozen"]), len(network.layers))},
            "losses": list(taught.losses),
            "epochs": len(taught.losses) - 1,
            "rows": {"learned": len(known), "held_out": len(held)},
            "labels": labels[:100],
            "seed": job.seed,
            "libraries": {each: version(each) for each in _LIBRARIES},
        }


def _head(contract: ModelContract, original: Path, sample: Sample) -> Head:
    """The output that is taught; whether it is shares, its answers to the sample say."""
    head = head_of(contract)
    if head.kind is HeadKind.LABEL:
        raise NotSupported("this model gives labels and no probabilities, so there is nothing to learn by")
    answers = Model(original).answers(sample, lambda outputs: outputs[head.output.name].reshape(-1, head.width))
    return settled(head, answers.astype(float))


def _teach(job: JobContext, network: Network, sample: Sample, known: "Array", head: Head, labels: list[str]) -> Taught:
    wish, given = job.parameters, picked(sample, known)
    if given.target is None:
        raise InvalidRequest("the sample has no right answers", hint="name their column with target")
    is_choice = head.kind is HeadKind.SHARES
    target = shares_of(given.target, labels) if is_choice else numbers_of(given.target, head.width)
    rates = layer_rates(network, float(wish["rate"]), frozen=int(wish["frozen"]), decay=float(wish["rate_decay"]))
    if not rates:
        raise InvalidRequest(
            f"the network has {len(network.layers)} layers, and {int(wish['frozen'])} are frozen",
            details=[{"field": "parameters.frozen", "expected": f"less than {len(network.layers)}"}],
        )
    lessons = Lessons(
        rates=rates,
        epochs=int(wish["epochs"]),
        batch=int(wish["batch"]),
        dropout=float(wish["dropout"]),
        mixup=float(wish["mixup"]),
        penalty=float(wish["penalty"]),
        is_choice=is_choice,
        seed=job.seed,
    )

    def tell(epoch: int, loss: float) -> None:
        share = 0.05 + 0.85 * epoch / lessons.epochs
        job.report(done=share, text=f"epoch {epoch} of {lessons.epochs}", metrics={"loss": loss})

    return teach(network, given.inputs, target, lessons, report=tell)


def _judged(  # noqa: PLR0913  (what is compared)
    contract: ModelContract, head: Head, original: Path, made: Path, held: Sample, labels: list[str], *, is_new: bool
) -> dict[str, Any]:
    """Before and after, on the held-out rows; with new labels, beside the most frequent of them."""
    import numpy as np

    if not is_new:
        drop = Judge(contract, original, held).drop(made)
        return {
            "measure": drop.measure,
            "before": drop.before,
            "after": drop.after,
            "gain": {"points": 0.0 - drop.points, "low": 0.0 - drop.high, "high": 0.0 - drop.low, "rows": drop.rows},
        }
    answers = Model(made).answers(held, lambda outputs: outputs[head.output.name])
    right = shares_of(held.target, labels).argmax(axis=1)
    frequent = float(np.bincount(right).max() / len(right))
    return {
        "measure": "accuracy",
        "before": frequent,
        "after": float((answers.argmax(axis=1) == right).mean()),
        "gain": None,
    }


def _labels(sample: Sample) -> list[str]:
    return sorted(set(as_texts(sample.target)))


def _copied(original: Path, place: Path) -> Path:
    path = place / "original.onnx"
    path.write_bytes(original.read_bytes())
    return path
