"""`--freeze` that is stopped while it computes features, and with several processes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Done, Run, ToyOptions, Train, draw_images
from tests.reliability.conftest import Start


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/convmixer/features"


@pytest.mark.slow
def test_ctrl_c_during_features(
    start: Start, here: Path, tmp_path: Path, weights: Path, toy_options: ToyOptions, cache: Path
) -> None:
    # Enough images for seconds of work.
    draw_images(tmp_path / "large", {"train": (2500, 2500, 2500), "val": (4, 4, 5)})
    process = start("train", *toy_options(tmp_path / "large", batch_size=1), "--freeze", f"--pretrained={weights}")
    assert process.stderr is not None
    for line in process.stderr:
        if "training and 13 evaluation images" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (here / "runs").exists()
    assert not list(cache.glob("*"))


@pytest.mark.slow
def test_two_processes_find_the_same_head(
    start: Start,
    here: Path,
    train: Train,
    tmp_path: Path,
    weights: Path,
    toy: Path,
    toy_options: ToyOptions,
    cache: Path,
) -> None:
    words = ["--freeze", f"--pretrained={weights}"]
    one = train(*words)
    shutil.move(here / "runs", tmp_path / "one")
    shutil.rmtree(cache)
    process = start("train", *toy_options(toy, device_num=2), *words)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    two = Run.below(here, Done(0, out, err))
    assert two.metrics("eval")[0]["Loss"] == pytest.approx(
        Run(one.done, one.name, tmp_path / "one/summary" / one.name, here, here).metrics("eval")[0]["Loss"], abs=1e-3
    )
    first = load_file(tmp_path / "one/best" / one.name / "best.safetensors")
    second = load_file(two.best / "best.safetensors")
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-3)
