"""What callers are told when isolated workers do not answer, and what that is booked as."""

from modelyard.domain.errors.inference import DeadlineExceeded, PoisonRequest, RunFailed, WorkersUnavailable
from modelyard.inference.routing.frames import Failure


class WorkerFailed(Exception):
    """The model raised inside the worker."""


class WorkerDied(Exception):
    """The worker ended while it ran this."""


def too_late() -> DeadlineExceeded:
    """Nobody waits any more."""
    return DeadlineExceeded("the answer was not there by the deadline", hint="try again later, or allow more time")


def circuit_open() -> WorkersUnavailable:
    """Refused without a try."""
    return WorkersUnavailable(
        "the model's workers have failed many times in a row; one run a second tries whether they are well again",
        hint="try again in a moment",
    )


def cannot_now(failure: Failure) -> WorkersUnavailable:
    """The model says that something beside it is away."""
    error = WorkersUnavailable("the model says that it cannot answer now", hint="the worker's log has the reason")
    error.__cause__ = WorkerFailed(failure.text)
    return error


def model_failed(failure: Failure) -> RunFailed:
    """The model raised, or met its bound; the bound is named."""
    match failure.bound:
        case "memory":
            error = RunFailed(
                "the model needed more memory for this input than its worker may use",
                hint="send fewer rows at once, or allow its workers more memory",
            )
        case "time":
            error = RunFailed(
                "the model did not come to an end in the time that a run may take",
                hint="send other input, or allow runs more time",
            )
        case _:
            error = RunFailed("the model failed on this input", hint="the server's log has the reason")
    error.__cause__ = WorkerFailed(failure.text)
    return error


def lost() -> WorkersUnavailable:
    """Begun by a worker that ended, and not to be run twice."""
    error = WorkersUnavailable(
        "the worker ended while it ran this request, which must not be run twice",
        hint="find out whether it took effect before you send it again",
    )
    error.__cause__ = WorkerDied()
    return error


def poison() -> PoisonRequest:
    """It ended two workers."""
    error = PoisonRequest(
        "the process that ran this request ended, and so did the next one; it is not tried again",
        hint="the worker's log has the reason; send other input",
    )
    error.__cause__ = WorkerDied()
    return error


def cut() -> RunFailed:
    """A stream whose worker ended."""
    error = RunFailed("the worker ended in the middle of its answer", hint="the worker's log has the reason")
    error.__cause__ = WorkerDied()
    return error
