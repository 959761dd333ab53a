"""Two processes leave one report, which the first of them has made of the answers of both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.conftest import Command, Run, ToyOptions


@pytest.mark.slow
def test_two_processes_make_the_same_report(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(toy, report=True, epochs=1), "--device_num=2")
    assert done.code == 0, done.err
    run = Run.below(here, done)
    assert len((run.summary / "predictions.csv").read_text().splitlines()) == 1 + 13
    page = (run.summary / "report.html").read_text(encoding="utf-8")
    right = round(run.metrics("eval")[-1]["Top1-Acc"] * 13)
    assert f"{right} of 13 evaluation images are answered right" in page
    assert set(re.findall(r"<h2>(.*?)</h2>", page)) >= {"Curves", "Classes", "Confusions", "The data", "The run"}
    assert "<td>processes</td><td>2</td>" in page
    assert (run.summary / "first_batch.png").is_file()
