"""The verdict of benchmarks/training_curves.py, on curves made by hand, and the script itself on a tiny network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.project import ROOT

SCRIPT = ROOT / "benchmarks/training_curves.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import training_curves

    return training_curves


def verdicts(script: ModuleType, fused: list[float], top1: float, *, images: int = 10_000) -> list[bool | None]:
    """Of fused runs with these losses in two epochs of two steps; two eager seeds are 0.3 and 1 % apart."""
    eager = script.Curve("eager", 0, [2.0, 2.0, 1.0, 1.0], [0.4, 0.60], 2, images, "eager", 1.0)
    other = script.Curve("eager", 1, [2.0, 2.2, 1.2, 1.4], [0.4, 0.61], 2, images, "eager", 1.0)
    compared = script.compare([eager, script.Curve("fused", 0, fused, [0.1, top1], 2, images, "fused", 1.0), other])
    assert compared["seeds"]["loss"] == pytest.approx(0.3)
    assert compared["seeds"]["top1"] == pytest.approx(0.01)
    return [pair["trains_alike"] for pair in compared["pairs"]]


def test_curves_as_near_as_two_seeds_are_alike(script: ModuleType) -> None:
    assert verdicts(script, [2.0, 2.0, 1.1, 1.3], 0.605) == [True]
    assert verdicts(script, [2.0, 2.0, 1.0, 1.0], 0.60) == [True]


def test_losses_further_off_than_two_seeds_are_not_alike(script: ModuleType) -> None:
    assert verdicts(script, [2.0, 2.8, 1.0, 1.0], 0.60) == [False]  # 0.4 in the first epoch, none at the end
    assert verdicts(script, [2.0, 2.0, 0.7, 0.6], 0.60) == [False]


def test_top1_counts_but_not_below_what_the_images_can_tell(script: ModuleType) -> None:
    assert verdicts(script, [2.0, 2.0, 1.0, 1.0], 0.58) == [False]  # one standard error is 0.49 %
    assert verdicts(script, [2.0, 2.0, 1.0, 1.0], 0.58, images=400) == [True]  # and here 2.4 %


def test_without_a_second_seed_there_is_no_verdict(script: ModuleType) -> None:
    curves = [script.Curve(name, 0, [1.0, 1.0], [0.5], 2, 100, name, 1.0) for name in ("eager", "fused")]
    compared = script.compare(curves)
    assert [pair["trains_alike"] for pair in compared["pairs"]] == [None]
    assert compared["seeds"] is None


def test_distances_in_numbers(script: ModuleType) -> None:
    one = script.Curve("eager", 0, [4.0, 2.0, 1.0, 1.0], [0.5, 0.75], 2, 100, "", 1.0)
    other = script.Curve("fused", 0, [4.0, 2.5, 1.0, 0.5], [0.5, 0.70], 2, 100, "", 1.0)
    found = script.distance(other, one)
    assert found["loss"] == pytest.approx(0.25)
    assert found["top1"] == pytest.approx(0.05)
    assert found["first_steps"] == pytest.approx(0.5)


def test_no_path_is_recorded(script: ModuleType) -> None:
    for given in (["--epochs", "3", "--data_url", "/a/b", "--seed", "1"], ["--data_url=/a/b", "--epochs", "3"]):
        recorded = script.without_paths(given)
        assert "/a" not in recorded
        assert "--data_url FOLDER" in recorded
        assert "--epochs 3" in recorded


@pytest.mark.slow
def test_the_script_trains_and_reports(tmp_path: Path) -> None:
    words = "digits --arch convmixer_16_2 --epochs 2 --train_num_samples 256 --val_num_samples 100".split()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--name", "tiny", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "tiny.json").read_text())
    assert [(run["execution"], run["seed"]) for run in result["runs"]] == [
        *(("eager", 0), ("fused", 0), ("eager", 1), ("fused", 1))
    ]
    for run, losses in zip(result["runs"], result["epoch_losses"], strict=True):
        assert (len(run["losses"]), len(run["top1"]), run["evaluation_images"]) == (8, 2, 100)
        assert losses[0] == pytest.approx(sum(run["losses"][:4]) / 4)
        assert losses[1] < losses[0]
    pairs = result["comparison"]["pairs"]
    assert [pair["seed"] for pair in pairs] == [0, 1]
    assert max(pair["first_steps"] for pair in pairs) < 0.001
    assert "**Equal**" in (tmp_path / "tiny.md").read_text()
