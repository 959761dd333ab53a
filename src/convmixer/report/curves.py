"""The curves of runs, each as a PNG file and as an SVG that takes the page's colours, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmixer.printable import printable

# matplotlib draws in these, and the page has its own in their place.
_INK, _LINE = "#010203", "#040506"
_PAGE = {_INK: "currentColor", _LINE: "var(--line)"}
_PNG = {_INK: "#1d2327", _LINE: "#d5dade"}
COLOURS = ("#3b76af", "#e2a13d", "#4d9c6b", "#b3589a", "#c3514a", "#6a6ac4", "#5f9ea0", "#8c6d46")
_SPAN = 0.05  # of an axis in percent, at least
_POINTS = 400  # of a curve; more are averaged


@dataclass(frozen=True)
class Series:
    """A line of a chart: x [n] and y [n]; `dots`: few points, which are marked."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """`name`: of its file; `log`: the y axis is logarithmic; `percent`: y is 0 to 1, shown in percent."""

    name: str
    title: str
    series: tuple[Series, ...]
    log: bool = False
    percent: bool = False

    @property
    def is_empty(self) -> bool:
        return not any(len(series.x) for series in self.series)


def charts_of(train: Sequence[Mapping[str, Any]], evaluated: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of a run from its lines of metrics; those without a number are left out. `--freeze` has none."""
    if is_one_pass(train, evaluated):
        return []

    def of(lines: Sequence[Mapping[str, Any]], key: str, name: str, dots: bool = False) -> Series:
        known = [line for line in lines if _is_number(line.get(key)) and _is_number(line.get("epoch"))]
        return Series(name, [line["epoch"] for line in known], [line[key] for line in known], dots)

    charts = [
        Chart("loss", "Loss", (of(train, "loss", "training"), of(evaluated, "Loss", "evaluation", True))),
        Chart(
            "accuracy",
            "Accuracy on the evaluation images",
            (
                of(evaluated, "Top1-Acc", "top-1", True),
                of(evaluated, "balanced_accuracy", "mean recall of the classes", True),
            ),
            percent=True,
        ),
        Chart("learning_rate", "Learning rate", (of(train, "lr", "learning rate"),)),
        Chart("gradient_norm", "Norm of the gradient", (of(train, "grad_norm", "before clipping"),), log=True),
        Chart("images_per_second", "Images per second", (of(train, "images_per_second", "training"),)),
        Chart("data_wait", "Time spent waiting for data", (of(train, "data_wait", "fraction"),), percent=True),
    ]
    return [chart for chart in charts if not chart.is_empty]


def is_one_pass(train: Sequence[Mapping[str, Any]], evaluated: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the head was found in one pass over the images (`--freeze`), without steps or epochs."""
    return not train and len(evaluated) == 1


def compared(runs: Mapping[str, list[Chart]]) -> list[Chart]:
    """The first line of each chart that has runs in common, run by run."""
    names = list(dict.fromkeys(chart.name for charts in runs.values() for chart in charts))
    found = []
    for name in names:
        of_runs = {run: next((c for c in charts if c.name == name), None) for run, charts in runs.items()}
        first = next(chart for chart in of_runs.values() if chart is not None)
        lines = [
            Series(run, chart.series[0].x, chart.series[0].y, chart.series[0].dots)
            for run, chart in of_runs.items()
            if chart is not None and len(chart.series[0].x)
        ]
        title = first.title if len(first.series) == 1 else f"{first.title} ({first.series[0].name})"
        found.append(Chart(name, title, tuple(lines), first.log, first.percent))
    return [chart for chart in found if not chart.is_empty]


def reliability(confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray) -> Chart:
    """How often answers of a probability are right, beside the diagonal on which they would be calibrated."""
    known = counts > 0
    return Chart(
        "reliability",
        "How often answers of a probability are right",
        (
            Series("this run", confidence[known].tolist(), accuracy[known].tolist(), True),
            Series("calibrated", [0.0, 1.0], [0.0, 1.0]),
        ),
        percent=True,
    )


def png(chart: Chart) -> bytes:
    """A picture on white, for papers and chats."""
    return _drawn(chart, "png", _PNG)


def svg(chart: Chart) -> str:
    """A picture for the page, with text as text; its ids are the chart's own."""
    text = _drawn(chart, "svg", {}).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{chart.name}-", text)
    for colour, own in _PAGE.items():
        text = text.replace(colour, own)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt"|width="[\d.]+pt"', "", text, count=2)


def _drawn(chart: Chart, kind: str, colours: Mapping[str, str]) -> bytes:
    # Imported when a report is made: it takes half a second.
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    ink, grid = colours.get(_INK, _INK), colours.get(_LINE, _LINE)
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": chart.name,
        "font.size": 9.0,
        "text.color": ink,
        "axes.labelcolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.edgecolor": grid,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.4, 2.7), layout="constrained")
        axes = figure.subplots()
        for number, series in enumerate(chart.series):
            x, y = _thinned(series)
            is_guide = series.name == "calibrated"
            axes.plot(
                x,
                y,
                color=grid if is_guide else COLOURS[number % len(COLOURS)],
                linewidth=1.4,
                linestyle="--" if is_guide else "-",
                marker="o" if series.dots else None,
                markersize=3,
                label=_plain(series.name),
            )
        axes.set_xlabel("probability" if chart.name == "reliability" else "epoch")
        if chart.log and all(value > 0 for series in chart.series for value in series.y):
            axes.set_yscale("log")
        if chart.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
            low, high = axes.get_ylim()
            if high - low < _SPAN:  # few points that hardly differ are no mountains
                middle = (low + high) / 2
                axes.set_ylim(middle - _SPAN / 2, middle + _SPAN / 2)
        axes.grid(True, color=grid, linewidth=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(chart.series) > 1:
            axes.legend(frameon=False, fontsize=8)
        if kind == "png":
            axes.set_title(chart.title, fontsize=10)
        file = io.BytesIO()
        is_svg = kind == "svg"
        figure.savefig(file, format=kind, dpi=150, transparent=is_svg, metadata={"Date": None} if is_svg else None)
    return file.getvalue()


def _thinned(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points, each the mean of its neighbours."""
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    if len(x) <= _POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), _POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _plain(text: str) -> str:
    """A name that matplotlib takes as it is: no mathematics between dollars, and not left out for a leading _."""
    return printable(text).replace("$", r"\$").lstrip("_") or "run"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
