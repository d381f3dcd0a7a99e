"""Distillation: a small student that learns from the answers of a version, and can stand in for it."""

from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.job_kinds.fields import Choice, JobKind, Number, Text

AUTO: Final = "auto"
STUDENTS: Final = ("linear", "tree", "forest", "boosted", "network")
DISTIL: Final = JobKind(
    name="distil",
    text="Teaches a small model what a larger one answers, judged on held-out rows, and offers it as a new version.",
    verb=Verb.UPLOAD,
    parameters={
        "student": Choice(
            text="What learns: a linear model, one tree, a small forest, boosted trees, a network; auto tries all and"
            " takes the quickest that is good enough.",
            choices=(*STUDENTS, AUTO),
            default=AUTO,
        ),
        "max_disagreement": Number(
            text="Held-out rows in a hundred that may be answered otherwise than by the teacher; of numbers,"
            " hundredths of their spread.",
            low=0,
            high=100,
            default=1.0,
        ),
        "generate": Number(
            text="Rows made by mixing those of the sample, answered by the teacher; none where its answers are given.",
            low=0,
            high=1_000_000,
            default=20_000,
            whole=True,
        ),
        "temperature": Number(
            text="Above 1, the student learns more of the classes that the teacher did not choose.",
            low=0.1,
            high=20,
            default=1.0,
        ),
        "held_out": Number(
            text="The part of the sample that is kept back to judge by.",
            low=0.05,
            high=0.9,
            default=0.3,
        ),
        "target": Text(text="The column, or array, of the sample that holds the right answers."),
        "name": Text(text="The model whose version it becomes; without it, the same model.", longest=63),
        "parent": Text(text="The version that it learns from, as NAME:VERSION; kept with the new one."),
    },
    inputs=("model", "sample"),
    optional=("answers",),
)
