"""Compression: a smaller form of a version that is served as ONNX, no worse than is allowed."""

from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.job_kinds.fields import Choice, JobKind, Number, Text

TREES: Final = "trees"
MAGNITUDE, UNITS = "prune-magnitude", "prune-units"
PRUNING: Final = (MAGNITUDE, UNITS)
QUICK_METHODS: Final = ("int8", "int8-static", "fp16", "graph", TREES)
"""Those that teach nothing."""
COMPRESSION_METHODS: Final = (*QUICK_METHODS, *PRUNING)
COMPRESS: Final = JobKind(
    name="compress",
    text="Makes a smaller form of a model, judged on rows of yours, and offers it as a new version.",
    verb=Verb.UPLOAD,
    parameters={
        "method": Choice(
            text="8-bit weights, 8-bit weights and activations with scales from the sample, 16-bit numbers, a graph"
            " with less in it, an ensemble with fewer trees, a network without its smallest weights or without hidden"
            " units, taught again.",
            choices=COMPRESSION_METHODS,
            default="int8",
        ),
        "max_drop": Number(
            text="Points that may be lost: hundredths of the rows, or of the spread of the numbers.",
            low=0,
            high=100,
            default=0.5,
        ),
        "target": Text(text="The column, or array, of the sample that holds the right answers."),
        "name": Text(text="The model whose version it becomes; without it, the same model.", longest=63),
        "parent": Text(text="The version that it is made from, as NAME:VERSION; kept with the new one."),
    },
    inputs=("model", "sample"),
)
