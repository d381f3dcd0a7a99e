"""python -m benchmarks.optimising [ROWS …]: what `modelyard optimise` finds for three models, and whether it keeps.

A platform with its usual servers; models on real data, judged on the held-out half. Each search takes a minute of load;
what it chose is deployed and measured in service. Costs and latencies are of this machine; trust their ratios.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from modelyard.testing.platform import Platform, running_platform

_GOAL, _SECONDS, _RATE = "50ms", "60", "50"


def _models() -> dict[str, tuple[Any, Any, Any]]:
    digits, diabetes = load_digits(return_X_y=True), load_diabetes(return_X_y=True)
    return {
        "digits-forest": (*digits, RandomForestClassifier(500, random_state=0, n_jobs=2)),
        "digits-network": (digits[0] / 16, digits[1], MLPClassifier((1000, 1000), max_iter=25, random_state=0)),
        "diabetes-forest": (*diabetes, RandomForestRegressor(500, random_state=0, n_jobs=2)),
    }


def main(rows: list[str]) -> None:
    """Print the table."""
    print("| model | rows | chosen | times cheaper (95 %) | points lost | p99 before | predicted | in service | |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with running_platform(Path(place)) as platform, platform.client() as client:
            for name, (data, right, model) in _models().items():
                known, held, of_known, of_held = train_test_split(data, right, test_size=0.5, random_state=0)
                joblib.dump(model.fit(known, of_known), Path(place) / f"{name}.joblib")
                frame = pd.DataFrame(held)
                frame["target"] = of_held
                frame.to_csv(Path(place) / f"{name}.csv", index=False)
                client.upload(Path(place) / f"{name}.joblib", name=name)
                for count in rows:
                    print(_row(name, count, _found(platform, name, count)), flush=True)


def _found(platform: Platform, name: str, rows: str) -> dict[str, Any]:
    given = ["--p99", _GOAL, "--seconds", _SECONDS, "--rate", _RATE, "--rows", rows]
    given += ["--sample", f"{name}.csv", "--target", "target", "--deploy", "--service", f"{name}-{rows}", "--json"]
    done = platform.run("optimise", f"{name}:1", *given, limit_s=1800)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout))


def _row(name: str, rows: str, found: dict[str, Any]) -> str:
    result, check = found["result"], found["check"]["result"]
    chosen = result["chosen"]
    what = f"{chosen['form']} on {chosen['runtime']}, {chosen['threads']} threads, up to {chosen['max_batch_size']}"
    p99, (low, high) = check["p99_ms"], check["predicted_ms"]
    return (
        f"| {name} | {rows} | {what} | {_span(result['times_cheaper'])} | {chosen['points_lost']:g}"
        f" | {result['default']['p99_ms']['value']:.3g} ms | {low:.3g} to {high:.3g} ms | {p99['value']:.3g} ms"
        f" | {'did not hold' if check['prediction'] == 'slower' else 'held'} |"
    )


def _span(values: dict[str, float]) -> str:
    return f"{values['value']:.2f} ({values['low']:.2f} to {values['high']:.2f})"


if __name__ == "__main__":
    main(sys.argv[1:] or ["1", "16"])
