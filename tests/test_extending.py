"""What one touches to add one: each is added to a copy of the package, and a run and an export of the copy use it.

The table below is the worked example for whoever adds a real one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.conftest import Done, Run
from tests.project import ROOT, project_environment, run_python

PACKAGE = ROOT / "src/convmixer"


@dataclass(frozen=True)
class Change:
    """`text` is a new file of the package, or stands before or after the `anchor`, which is once in an old file."""

    file: str
    text: str
    before: str = ""
    after: str = ""

    def make(self, package: Path) -> None:
        path = package / self.file
        anchor = self.before or self.after
        if not anchor:
            assert not path.exists(), f"{self.file} is there already"
            path.write_text(self.text)
            return
        old = path.read_text()
        assert old.count(anchor) == 1, (self.file, anchor)
        path.write_text(old.replace(anchor, self.text + anchor if self.before else anchor + self.text))


OPTION = (
    Change(
        "config/optimizer.py",
        '    lr_factor: float = option(1.0, "the peak learning rate times this", gt=0)\n',
        before='    warmup_lr: float = option(0.000007, "learning rate at the start of the warm-up", ge=0)\n',
    ),
)
READER = (
    Change(
        "training/lr_schedule.py",
        "        self.peak *= options.lr_factor\n",
        before="\n    def __call__(self, step: int) -> float:\n",
    ),
)
SCHEDULE = (
    Change(
        "schedules.py",
        "def square_root(place: Place) -> float:\n"
        '    """1 - sqrt(e / E)."""\n'
        "    return 1.0 - math.sqrt(place.epoch / place.epochs)\n\n\n",
        before="# Factors of the peak learning rate",
    ),
    Change("schedules.py", '    "sqrt_lr": square_root,\n', after='    "constant_lr": constant,\n'),
)
OPTIMIZER = (
    Change(
        "optimizers.py",
        '    "nadam": OptimizerEntry("torch.optim.NAdam", _MOMENTS),\n',
        after='    "momentum": _SGD,\n',
    ),
)
SOURCE = (
    Change(
        "data/sources/stripes.py",
        '''"""Two kinds of stripes, 32 images to train on and 8 to evaluate."""

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.source import ArraySource


def open_source(data_url, split_dir, *, train, classes):
    count = 16 if train else 4
    rows = np.tile(np.arange(8) % 2 * 255, (8, 1)).astype(np.uint8)
    pixels = np.stack([rows.T, rows] * count)[..., None]
    return ArraySource(pixels, np.tile([0, 1], count), ClassMap(("lying", "standing")), "stripes")
''',
    ),
)
RECIPE = (
    Change(
        "configs/stripes.yaml",
        "arch: convmixer_8_1\nset: stripes\nnum_classes: 2\nin_chans: 1\nkernel_size: 3\npatch_size: 2\nimage_size: 8\n"
        "crop_pct: 1.0\nmean: [0.5]\nstd: [0.5]\noptimizer: nadam\nbase_lr: 0.02\nlr_scheduler: sqrt_lr\nepochs: 1\n"
        "batch_size: 8\nnum_parallel_workers: 0\nsummary_loss_collect_freq: 1\n",
    ),
)
BACKEND = (
    Change(
        "backends/two_calls.py",
        '''"""The features by one call, the head by another."""

from convmixer.backends.function import FunctionOfModel


def build(model, workload, plan):
    return FunctionOfModel(model, lambda model, images: model.head(model.features(images)))
''',
    ),
    Change(
        "backends/registry.py",
        "from convmixer.backends import two_calls\n",
        before="from convmixer.backends.compiled import",
    ),
    Change(
        "backends/registry.py",
        '    Backend("two calls", "fused", lambda workload: True, two_calls.build),\n',
        after="    _eager(torch.channels_last),\n",
    ),
)
FORMAT = (
    Change(
        "exporters/formats/npz.py",
        '''"""NumPy's archive of arrays."""

import numpy as np

from convmixer.exporters.format import Format


def write(model, metadata, path, settings):
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


FORMAT = Format(".npz", write, runs=False)
''',
    ),
)

LOGGER = (
    Change(
        "training/logging/loggers/lines.py",
        '''"""A text file with a line per number."""


class Logger:
    def open(self, run):
        self.file = (run.folder / "lines.txt").open("w")

    def write(self, step, values):
        self.file.writelines(f"{step} {name}\\n" for name in values)

    def picture(self, name, image):
        pass

    def close(self, *, failed):
        self.file.close()
''',
    ),
)

# What one adds, and in how many files.
EXTENSIONS: dict[str, tuple[tuple[Change, ...], int]] = {
    "option": (OPTION, 1),
    "option with its reader": (OPTION + READER, 2),
    "schedule": (SCHEDULE, 1),
    "optimizer": (OPTIMIZER, 1),
    "data source": (SOURCE, 1),
    "recipe": (RECIPE, 1),
    "backend": (BACKEND, 2),
    "export format": (FORMAT, 1),
    "metric logger": (LOGGER, 1),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_how_many_files_it_takes(name: str) -> None:
    changes, count = EXTENSIONS[name]
    assert len({change.file for change in changes}) == count


Call = Callable[..., Done]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has all of them."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(PACKAGE, folder / "src/convmixer")
    for change in dict.fromkeys(change for changes, _ in EXTENSIONS.values() for change in changes):
        change.make(folder / "src/convmixer")
    return folder


@pytest.fixture(scope="module")
def call(house: Path) -> Call:
    """The copy's command, in the folder that holds it."""
    paths = [str(house / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]

    def run(*words: object) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "convmixer", *map(str, words)],
            cwd=house,
            env=project_environment(PYTHONPATH=os.pathsep.join(paths)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def run(house: Path, call: Call) -> Run:
    """One epoch of four steps by the new recipe, on the new data, in the new backend."""
    words = ("--config=stripes", "--lr_factor=0.5", "--execution=fused", "--log_to=lines")
    return Run.below(house, call("train", *words))


def test_the_option_is_in_the_help_and_the_documentation(house: Path, call: Call) -> None:
    assert "--lr_factor" in call("train", "--help").out
    code = "from convmixer.config.table import page; print(page())"
    page = run_python("-c", code, PYTHONPATH=str(house / "src")).stdout
    assert "| `lr_factor` | number > 0 | `1.0` | the peak learning rate times this |" in page


def test_the_option_and_the_schedule_are_followed(run: Run) -> None:
    """0.02 * 0.5 * (1 - sqrt(e)) at e = 0, 1/4, 1/2, 3/4."""
    rates = [entry["lr"] for entry in run.metrics("train")]
    assert rates == pytest.approx([0.01, 0.005, 0.01 * (1 - 0.5**0.5), 0.01 * (1 - 0.75**0.5)])


def test_the_recipe_is_found_and_recorded(run: Run) -> None:
    assert "/configs/stripes.yaml" in run.done.err
    saved = yaml.safe_load((run.summary / "config.yaml").read_text())
    assert (saved["arch"], saved["optimizer"], saved["lr_factor"]) == ("convmixer_8_1", "nadam", 0.5)


def test_the_data_are_trained_on(run: Run) -> None:
    assert "32 training and 8 evaluation images of 2 classes" in run.done.err
    assert json.loads((run.summary / "classes.json").read_text()) == ["lying", "standing"]


def test_the_optimizer_takes_the_steps(run: Run) -> None:
    """`mu_product` is NAdam's own."""
    state = torch.load(run.checkpoints / "step_00000004/state.pt", weights_only=True)
    assert "mu_product" in state["optimizer"]["state"][0]


def test_the_backend_runs_the_network(run: Run) -> None:
    assert "execution: two calls, as asked for" in run.done.err
    state = torch.load(run.checkpoints / "step_00000004/state.pt", weights_only=True)
    assert (state["way"], state["evaluation_way"]) == ("two calls", "two calls")


def test_the_logger_is_told_of_each_step(run: Run) -> None:
    lines = (run.summary / "lines.txt").read_text().splitlines()
    assert [line for line in lines if line.endswith("train/loss")] == [f"{step} train/loss" for step in (1, 2, 3, 4)]


def test_the_format_is_written(house: Path, run: Run, call: Call) -> None:
    best = run.best / "best.safetensors"
    call("export", f"--pretrained={best}", "--file_format=npz")
    weights = load_file(best)
    with np.load(house / "convmixer_8_1.npz") as arrays:
        assert set(arrays) == set(weights)
        assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in weights.items())
