"""Fine-tuning: a network goes on learning on rows of the user's, or learns other labels on top of what it sees."""

from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.job_kinds.fields import Choice, JobKind, Number, Text

KEEP, NEW = "keep", "new"
FINE_TUNE: Final = JobKind(
    name="fine-tune",
    text="Teaches a network that is served as ONNX rows of yours, judged on held-out ones, and offers a new version.",
    verb=Verb.UPLOAD,
    parameters={
        "target": Text(text="The column, or array, of the sample that holds the right answers.", required=True),
        "head": Choice(
            text="The last layer goes on from what it knows, or is made anew for the labels of the sample.",
            choices=(KEEP, NEW),
            default=KEEP,
        ),
        "frozen": Number(
            text="Layers from the input on that stay as they are.", low=0, high=1000, default=0, whole=True
        ),
        "rate": Number(text="The rate of learning of the last layer.", low=1e-7, high=1, default=1e-3),
        "rate_decay": Number(text="By how much each layer before it learns slower.", low=0.01, high=1, default=1.0),
        "epochs": Number(text="Times through the rows at most.", low=1, high=10_000, default=50, whole=True),
        "batch": Number(text="Rows of a step.", low=1, high=100_000, default=64, whole=True),
        "dropout": Number(text="The part of what lies between layers that is blanked.", low=0, high=0.9, default=0.0),
        "mixup": Number(text="How far rows are mixed, their answers alike.", low=0, high=1, default=0.0),
        "penalty": Number(text="The strength of the penalty on weights.", low=0, high=10, default=0.0),
        "held_out": Number(
            text="The part of the sample that is kept back to judge by.", low=0.05, high=0.9, default=0.3
        ),
        "name": Text(text="The model whose version it becomes; without it, the same model.", longest=63),
        "parent": Text(text="The version that it goes on from, as NAME:VERSION; kept with the new one."),
    },
    inputs=("model", "sample"),
)
