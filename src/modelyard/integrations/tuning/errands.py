"""What a trial's process does: walls first, then the recipe, or the user's script.

A script finds `trial.json` (its path is in the variable `MODELYARD_TRIAL`) with the parameters, and writes lines of
JSON to `metrics.jsonl` beside it. It may start threads, but no processes; it reads libraries, itself and its data,
writes only in its own directory, and has no network.
"""

import atexit
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.containment import landlock, seccomp
from modelyard.foundation.containment.roots import library_roots
from modelyard.foundation.memory import bound_memory, is_out_of_memory

TRIAL_FILE, METRICS_FILE, LOG_FILE, MODEL = "trial.json", "metrics.jsonl", "log", "model"
VARIABLE: Final = "MODELYARD_TRIAL"
EXIT_FAILED, EXIT_REFUSED, EXIT_MEMORY = 1, 78, 77
_ALSO_READ: Final = ("/proc", "/sys/devices/system", "/sys/fs/cgroup", "/etc/localtime", "/usr/share")
_ALSO_WRITTEN: Final = ("/dev/null",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One trial: a script, or a recipe whose `metrics` are measured. `parameters` are all that the script is given."""

    number: int
    directory: str
    seed: int
    parameters: Mapping[str, Any]
    memory_bytes: int
    disk_bytes: int
    script: str = ""
    data: str = ""
    recipe: Mapping[str, Any] | None = None
    metrics: Sequence[str] = ()


def prepare(errand: Errand) -> None:
    """Write what the trial reads, into its new directory."""
    place = Path(errand.directory)
    place.mkdir(parents=True, mode=0o700)
    document = {
        "number": errand.number,
        "parameters": dict(errand.parameters),
        "seed": errand.seed,
        "data": errand.data or None,
        "directory": errand.directory,
        "metrics": str(place / METRICS_FILE),
        "model": str(place / MODEL),
    }
    (place / TRIAL_FILE).write_text(json.dumps(document, indent=1), encoding="utf-8")


def run(errand: Errand) -> None:
    """Do it and end this process; its exit status says how it went, its log the rest."""
    status = EXIT_FAILED
    try:
        _enter(errand)
        _confine(errand)
        if errand.recipe is not None:
            _recipe(errand, errand.recipe)
        else:
            _script(errand)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else EXIT_FAILED if error.code else 0
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)  # noqa: T201  (as Python does)
    except ModelyardError as error:
        print(error.detail, file=sys.stderr)  # noqa: T201  (the trial's log)
        status = EXIT_REFUSED
    except BaseException as error:  # noqa: BLE001  (the plugin edge: whatever a script raises is its trial's end)
        _print(error, errand.script)
        status = EXIT_MEMORY if is_out_of_memory(error) else EXIT_FAILED
    finally:
        with suppress(Exception):
            atexit._run_exitfuncs()  # noqa: SLF001  (what a script registered; there is no public way)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 0xFF)


def _print(error: BaseException, script: str) -> None:
    """What was raised, from the script's own first line on."""
    trace = error.__traceback__
    while trace is not None and script and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace or error.__traceback__)


def _enter(errand: Errand) -> None:
    """Its own directory, and its log in place of what others print to."""
    os.closerange(3, 256)
    log = os.open(Path(errand.directory) / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for number in (nothing, log):
        os.close(number)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    os.chdir(errand.directory)
    os.environ |= {VARIABLE: f"{errand.directory}/{TRIAL_FILE}", "HOME": errand.directory, "TMPDIR": errand.directory}
    os.environ["MPLCONFIGDIR"] = errand.directory
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _confine(errand: Errand) -> None:
    bound_memory(errand.memory_bytes)
    for which, most in ((resource.RLIMIT_FSIZE, errand.disk_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(which)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (wanted, wanted))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    given = [Path(each) for each in (errand.script, errand.data) if each]
    read = [*library_roots(), *(Path(each) for each in _ALSO_READ), *given]
    write = [Path(errand.directory), *(Path(each) for each in _ALSO_WRITTEN)]
    landlock.confine(read=[each for each in read if each.exists()], write=write)
    code = seccomp.worker_filter(os.getpid(), families=())
    if code is not None:
        seccomp.install(code)


def _script(errand: Errand) -> None:
    """Run it as `python` would; what it leaves open is closed, and so written, when its names go."""
    import random
    import types

    import numpy as np

    random.seed(errand.seed)
    np.random.seed(errand.seed)
    sys.argv = [errand.script]
    sys.path.insert(0, str(Path(errand.script).parent))
    module = types.ModuleType("__main__")
    module.__file__ = errand.script
    sys.modules["__main__"] = module
    code = compile(Path(errand.script).read_bytes(), errand.script, "exec")
    try:
        exec(code, module.__dict__)  # noqa: S102  (the user's script, behind walls)
    finally:
        module.__dict__.clear()


def _recipe(errand: Errand, document: Mapping[str, Any]) -> None:
    """The measures of a recipe on folds of the rows that are not held out, written after each fold."""
    import warnings

    from modelyard.domain.errors.platform import InvalidRequest
    from modelyard.domain.job_kinds.estimators import CLASSIFICATION
    from modelyard.domain.job_kinds.recipe import read_recipe
    from modelyard.domain.job_kinds.tune import SIZE
    from modelyard.integrations.training.splitting import split
    from modelyard.integrations.training.tables import read_table, task_of
    from modelyard.integrations.training.trials import on_folds, require_fitting

    recipe = read_recipe(document)
    table = read_table(Path(errand.data), recipe.target, task=recipe.task)
    task = task_of(table, recipe.task)
    require_fitting(recipe, task)
    known, _ = split(table, float(recipe.validation["held_out"]), errand.seed, is_choice=task == CLASSIFICATION)
    sums = dict.fromkeys(errand.metrics, 0.0)
    with warnings.catch_warnings(), Path(METRICS_FILE).open("a", encoding="utf-8") as lines:
        warnings.simplefilter("ignore")
        count = int(recipe.validation["folds"])
        for number, (model, found) in enumerate(on_folds(recipe, known, task, count, errand.seed)):
            measured = {**found, **({SIZE: _size(model)} if SIZE in sums else {})}
            for name in sums:
                if name not in measured:
                    raise InvalidRequest(f"{name} is not measured of {recipe.estimator} on these rows")
                sums[name] += measured[name]
            line = {name: round(total / (number + 1), 6) for name, total in sums.items()}
            lines.write(json.dumps({"step": number, **line} if number + 1 < count else line) + "\n")
            lines.flush()


def _size(model: Any) -> int:  # noqa: ANN401  (a fitted model)
    from skops import io

    return len(io.dumps(model))
