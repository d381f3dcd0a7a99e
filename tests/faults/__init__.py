"""Experiments on a real platform: a fault, load that does not wait, and the client's own ledger as the judge.

    python -m tests.faults                    all of them, with a report on the screen
    python -m tests.faults W01 C06 --rounds 3 these, three times each, with other seeds
    python -m tests.faults --short            the small form that `make test` runs
    python -m tests.faults --report docs/faults.md

An experiment is a function with a decorator:

    @experiment("W01")                        # title, hypothesis and injection come from tests/corpora/faults.yaml,
    def killed_workers(run: Run) -> None:     # or are given to the decorator for those that are not in the file
        stand = run.stand()                   # a platform with models on it, shared by experiments that leave it whole
        with run.load(stand.isolated) as load:     # arrivals at a fixed rate, whatever the answers do
            run.steady(load)
            run.inject("kill -9", lambda: ...)     # noted with its time
            run.after(load)
        run.check_no_failures(load)           # each check has its figure and its limit, and is in the report
        run.check("replica back", seconds, at_most=5.0, unit="s")

It lies in any module of `tests/faults/experiments/`; nothing else has to know of it. The short form is the same
function with a smaller `run.scale`. What it starts it ends in a `finally`, or by `run.cleanup.callback`; where the
machine lacks what it needs it raises `Unable` with the reason.
"""
