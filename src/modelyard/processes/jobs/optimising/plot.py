"""The frontier as a picture: what each point costs, and what 99 of 100 of its requests are answered within."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SIZE: Final = (7.0, 5.5)
_POINT, _CHOSEN, _LINE = "#5b7083", "#1a7f4b", "#b4412f"


def draw(result: Mapping[str, Any], path: Path) -> bool:
    """Write an SVG; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=_SIZE, layout="tight")
    axes = figure.subplots()
    _points(axes, result["points"])
    axes.axhline(result["goal"]["p99_ms"], color=_LINE, linewidth=1, linestyle="--")
    axes.annotate(
        f"{result['goal']['p99_ms']:g} ms asked for",
        (0.99, result["goal"]["p99_ms"]),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=_LINE,
        fontsize=8,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("processor seconds for 1,000 rows")
    axes.set_ylabel("99th percentile, ms")
    load = result["load"]
    axes.set_title(f"{load['rate']:g} requests a second of {load['rows']} rows, {load['servers']} servers", fontsize=10)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
        axis.set_tick_params(which="both", labelsize=7)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def _points(axes: Any, points: list[dict[str, Any]]) -> None:  # noqa: ANN401  (the library's own)
    for number, point in enumerate(points, 1):
        cost, p99 = point["cost"], point["p99_ms"]
        colour = _CHOSEN if point["is_chosen"] else _POINT
        axes.errorbar(
            cost["value"],
            p99["value"],
            xerr=[[cost["value"] - cost["low"]], [cost["high"] - cost["value"]]],
            yerr=[[p99["value"] - p99["low"]], [p99["high"] - p99["value"]]],
            fmt="o" if point["is_on_frontier"] else "x",
            color=colour,
            elinewidth=0.7,
            markersize=6,
            label=f"{number}  {_name(point)}",
        )
        axes.annotate(
            str(number),
            (cost["value"], p99["value"]),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=9,
            color=colour,
        )


def _name(point: Mapping[str, Any]) -> str:
    marks = [word for word, key in (("default", "is_default"), ("chosen", "is_chosen")) if point[key]]
    threads = f"{point['threads']} thread{'s' if point['threads'] > 1 else ''}"
    batching = f"up to {point['max_batch_size']} at once"
    if point["max_wait_ms"]:
        batching += f" after {point['max_wait_ms']:g} ms"
    return f"{point['form']} on {point['runtime']}, {threads}, {batching}" + "".join(f" ({each})" for each in marks)
