"""Job runners: the code of a kind of job, and what it is handed while it works."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """Where a service is asked (its V2 address, to which `/infer` is added), and with which key; empty: with none."""

    url: str
    key: str = field(default="", repr=False)


class JobContext(Protocol):
    """What a runner may use. It belongs to one attempt, in a process that has no key and no way to the records.

    The process is bounded in memory, files and time, and is ended with everything it started when the claim is lost,
    the job is cancelled or the worker stops: effects outside `directory` and `checkpoint` go through these methods.
    """

    @property
    def id(self) -> str:
        """The job's id; the same in every attempt."""

    @property
    def kind(self) -> str:
        """The name the runner is known by."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """As they were submitted, after `check`."""

    @property
    def directory(self) -> Path:
        """Private scratch, empty at the start of every attempt, gone after it."""

    @property
    def seed(self) -> int:
        """For every random choice; the same in every attempt."""

    @property
    def attempt(self) -> int:
        """Counted from 1."""

    def input(self, name: str) -> Path:
        """What the job was given, fetched and checked by digest before the start.

        A file is a path that ends with its name; a version of a model is a directory with `files` (as uploaded) and,
        where it has one, `package` (what is served: `package.json` and the file that a runtime opens).

        Raises:
            NotFound: the job has no input of this name.
        """

    def service(self) -> ServiceAddress:
        """The service that the parameter `service` names; its key is good for it alone, and for this attempt.

        A new key reaches every server within seconds: what is refused in the first of them is to be asked again.

        Raises:
            NotFound: the job asks no service.
        """

    def report(self, *, done: float | None, text: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Progress: `done` is the part from 0 to 1, None when nobody knows; a few reports a second are passed on.

        The last one of an attempt always is. Cheap, never raises.
        """

    def keep(self, name: str, path: Path) -> None:
        """Make a file an artifact of the job's outcome, under `name` (a plain file name), once the job succeeds.

        Raises:
            InvalidRequest: `name` is not a plain file name, or is taken.
        """

    def checkpoint(self) -> Path:
        """A directory that survives attempts, empty in the first; it goes when the job ends for good.

        What is in it after a kill is what was made durable: write beside, sync, rename.
        """

    def candidate(
        self,
        path: Path,
        *,
        name: str,
        labels: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        parent: str | None,
    ) -> None:
        """Offer a model file or bundle directory as a new version of the model `name` when the job succeeds.

        It goes through the ordinary intake, once, however often the job is tried. `labels` and `config` are those of a
        bundle (`labels.json`, `config.json`); `parent` is the version it was made from, as `model:3`.
        """

    def is_cancelled(self) -> bool:
        """Whether the job is to end now; a runner that looks ends in order, one that does not is ended."""


class JobRunner(Protocol):
    """The code of one kind. Importing its module must not import its libraries; `run` does.

    What `run` raises decides what follows: `InvalidRequest`, `NotSupported` and `MissingExtra` end the job as failed,
    anything else is an attempt that failed and may be tried again. Its class is made anew for each attempt.
    """

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Look at the parameters before anything runs; light.

        Raises:
            InvalidRequest: with the path of each wrong field in `details`.
        """

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Do the work; gives the job's result in plain JSON values. Blocks.

        It may run again after it ended without a word (its process was killed), so it goes on from `checkpoint`.
        """
