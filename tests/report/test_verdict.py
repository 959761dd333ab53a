"""Whether more epochs would help, by the curves; what the page has of options and of numbers that hardly differ."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from convmixer.report.curves import charts_of, compared, svg
from convmixer.report.tables import options_of_run
from convmixer.report.verdict import sentences
from convmixer.runs.record import RunRecord

FLAT = [{"epoch": i, "Top1-Acc": 0.7, "Loss": 0.9} for i in range(6)]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0, 1.0, 0.8, 0.8, 0.7, 0.7], "The training loss still fell at the end"),  # by an eighth
        ([1.0, 1.0, 0.8, 0.8, 0.79, 0.79], "Accuracy hardly rose"),  # by a hundredth
        ([1.0, 0.5], "Accuracy hardly rose"),  # too few lines to say
    ],
)
def test_training_that_goes_on_without_gain(losses: list[float], said: str) -> None:
    train = [{"epoch": i, "loss": float(loss)} for i, loss in enumerate(np.array(losses))]
    assert sentences(FLAT, None, (), train)[0].startswith(said)


def test_two_evaluations_say_nothing_of_more_epochs() -> None:
    assert sentences(FLAT[:2], None, ())[0].startswith("There are too few evaluations")
    assert sentences([], None, ()) == []


def test_options_of_no_run_are_no_changed_options(tmp_path: Path) -> None:
    lines = ("arch: convmixer_8_2  # command line", "epochs: 9  # default", "resume: null  # command line")
    (tmp_path / "config.yaml").write_text("\n".join([*lines, "quiet: true  # command line"]) + "\n")
    assert [row["name"] for row in options_of_run(RunRecord.open(tmp_path))] == ["arch"]


def test_accuracies_that_hardly_differ_look_so() -> None:
    chart = charts_of([], [{"epoch": i, "Top1-Acc": 0.7 + i / 10_000} for i in range(3)])[0]
    ticks = [float(number) for number in re.findall(r">([\d.]+)%<", svg(chart))]
    assert max(ticks) - min(ticks) > 2


def test_a_chart_of_one_line_keeps_its_title_where_runs_are_compared() -> None:
    charts = charts_of([{"epoch": 1, "loss": 1.0, "lr": 0.1}], [{"epoch": 1, "Loss": 2.0}])
    titles = [chart.title for chart in compared({"a": charts, "b": charts})]
    assert titles == ["Loss (training)", "Learning rate"]
