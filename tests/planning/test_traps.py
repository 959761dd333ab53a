"""Each trap is named for options and data that are in it, and for none that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import COUNTS, ToyOptions, draw_images

from convmixer.config.commands import PLAN
from convmixer.config.loading import parse
from convmixer.distributed.processes import Processes
from convmixer.planning.traps import traps
from convmixer.training.resolve import resolve_run

FINE = ["--min_crop=0.6", "--epochs=20", "--use_clip_grad_norm"]


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("even")
    draw_images(folder, {**COUNTS, "train": (12, 12, 12)})
    return folder


def found(folder: Path, toy_options: ToyOptions, *words: str) -> list[str]:
    resolved = parse(PLAN, [*toy_options(folder), *FINE, *words])
    return traps(resolve_run(resolved, torch.device("cpu"), Processes(), "plan", lambda _: None))


def test_options_that_are_fine_are_in_none(even: Path, toy_options: ToyOptions) -> None:
    assert found(even, toy_options) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--patch_size=8"], "leaves 1 position"),
        (["--kernel_size=9"], "kernel_size 9 is twice the 4 x 4 positions"),
        (["--image_size=9"], "9 px is no multiple of patch_size 2: 1 px"),
        (["--batch_size=1"], "batch_size 1: BatchNorm"),
        (["--amp_level=O1", "--amp_dtype=fp16"], "fp16 without a GPU"),
        (["--min_crop=0.08"], "min_crop 0.08 at 8 px"),
        (["--crop_pct=0.9"], "crop_pct 0.9 cuts the rim off"),
        (["--batch_size=40"], "36 training images are fewer than a batch of 40"),
        (["-j200"], "200 loader processes on "),
        (["--use_clip_grad_norm=false"], "a peak learning rate of 0.02 with batches of 8 and no clipping"),
        # 20 epochs of 4 steps; 1 - 10 / 80.
        (["--with_ema"], "ema_decay 0.9999 averages over 10,000 steps of 80; about --ema_decay 0.875"),
    ],
)
def test_each_trap(words: list[str], said: str, even: Path, toy_options: ToyOptions) -> None:
    lines = found(even, toy_options, *words)
    assert len([line for line in lines if said in line]) == 1
    assert len(lines) <= 2


@pytest.mark.parametrize(
    "words", [["--with_ema", "--ema_decay=0.9"], ["--use_clip_grad_norm=false", "--base_lr=0.001"]]
)
def test_its_remedy_helps(words: list[str], even: Path, toy_options: ToyOptions) -> None:
    assert found(even, toy_options, *words) == []


def test_few_and_uneven_images(tmp_path: Path, toy_options: ToyOptions) -> None:
    draw_images(tmp_path, {**COUNTS, "train": (24, 12, 2)})
    lines = found(tmp_path, toy_options)
    assert lines == [
        "1 classes have fewer than 10 training images (red 2); they are hardly learnt",
        "the largest class has 12 times the images of the smallest; --balance weights",
    ]
    assert len(found(tmp_path, toy_options, "--balance=weights")) == 1
