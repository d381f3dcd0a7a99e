"""The upload centre: receive, inspect, decide, keep.

`UploadCentre` takes what arrives and turns it into a version or a refusal; `UploadDesk` keeps the books of uploads that
outlive their request; `open_intake` puts both together and clears what an earlier run left behind.
"""

from modelyard.control.intake.commit import Step, no_step
from modelyard.control.intake.desk import UploadDesk, keeper_of
from modelyard.control.intake.limits import UploadLimits
from modelyard.control.intake.opening import open_intake
from modelyard.control.intake.service import IntakeParts, UploadCentre
from modelyard.control.intake.values import Progress, Target, UploadState

__all__ = [
    "IntakeParts",
    "Progress",
    "Step",
    "Target",
    "UploadCentre",
    "UploadDesk",
    "UploadLimits",
    "UploadState",
    "keeper_of",
    "no_step",
    "open_intake",
]
