"""Bodies of the job routes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from modelyard.control.jobs.service import Wish
from modelyard.domain.jobs import LEAST_PRIORITY, MOST_ATTEMPTS, MOST_PRIORITY, USUAL_PRIORITY, JobSpec
from modelyard.domain.names import NAME_PATTERN

NAME: Final = f"^{NAME_PATTERN}$"
Name = Annotated[str, Field(pattern=NAME, max_length=63)]
_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_FILE: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"


class InputBody(BaseModel):
    """What a job is given: a file that was sent before, or a version of a model."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str | None, Field(pattern=_DIGEST, description="As the answer to POST /job-files names it.")] = None
    name: Annotated[str | None, Field(pattern=_FILE, description="What the file is called.")] = None
    model: Name | None = None
    version: Name | None = None
    project: Annotated[Name | None, Field(description="The model's project; default: the job's.")] = None


class NewJob(BaseModel):
    """A job as it is asked for."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, Field(min_length=1, max_length=63)]
    parameters: Annotated[dict[str, Any], Field(max_length=1000)] = {}
    inputs: Annotated[dict[str, InputBody], Field(max_length=100)] = {}
    priority: Annotated[int, Field(ge=LEAST_PRIORITY, le=MOST_PRIORITY, description="Higher goes first.")] = (
        USUAL_PRIORITY
    )
    not_before: Annotated[AwareDatetime | None, Field(description="When it may begin.")] = None
    attempts: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS, description="How many may fail.")] = 3
    pause_s: Annotated[
        float, Field(ge=0.0, le=86_400.0, description="After the first failure; then twice as long.")
    ] = 2.0
    limit_s: Annotated[float | None, Field(gt=0, le=31_536_000.0, description="The longest an attempt may take.")] = (
        None
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    project: Name | None = None

    def wish(self, project: str) -> Wish:
        """As the capability has it."""
        moment: datetime | None = None if self.not_before is None else self.not_before.astimezone(UTC)
        spec = JobSpec(
            kind=self.kind,
            parameters=self.parameters,
            priority=self.priority,
            not_before=moment,
            attempts=self.attempts,
            pause_s=self.pause_s,
            limit_s=self.limit_s,
            seed=self.seed,
        )
        inputs = {name: body.model_dump(exclude_none=True) for name, body in self.inputs.items()}
        return Wish(project=self.project or project, spec=spec, inputs=inputs)


class CancelBody(BaseModel):
    """Why a job is cancelled; kept in history."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(max_length=500)] = ""
