"""What several parts of the suite stand on: a toy image folder, the command line in this process, one trained run."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.project import ROOT

from convmixer.cli.main import main
from convmixer.terminal import logs

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 70), "red": (200, 50, 50)}
# One more in the last class, so that no number of processes or batch size divides the split.
COUNTS = {"train": (8, 8, 8), "val": (4, 4, 5)}

# A script's background and nohup, where the suite may run, ignore these, and what the tests start would with them.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _default)


@pytest.fixture(scope="module")
def benchmark_script() -> Iterator[Callable[[str], ModuleType]]:
    """Makes a script of benchmarks/ a module, by its name, with the scripts beside it in reach."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path[:] = before


@pytest.fixture(autouse=True)
def _shown_log() -> Iterator[None]:
    """What the library logs is on stderr, as a command shows it."""
    with logs.shown():
        yield


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What stands from `convmixer: ` to the end of stderr: the message of an error."""
        _, mark, message = ("\n" + self.err).partition("\nconvmixer: ")
        assert mark, f"no error in {self.err!r}"
        return message.rstrip("\n")


@dataclass(frozen=True)
class Run:
    """A finished training run: its name and its three folders."""

    done: Done
    name: str
    summary: Path
    checkpoints: Path
    best: Path

    @classmethod
    def below(cls, folder: Path, done: Done) -> Run:
        """The only run below `folder`/runs."""
        (summary,) = (folder / "runs/summary").iterdir()
        return cls(
            done, summary.name, summary, folder / "runs/checkpoints" / summary.name, folder / "runs/best" / summary.name
        )

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.summary / "metrics.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


Command = Callable[..., Done]
Train = Callable[..., Run]
ToyOptions = Callable[..., list[str]]


def run_command(*words: object) -> Done:
    """The console command in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main([str(word) for word in words])
        except SystemExit as leave:  # argparse, after --help
            code = int(leave.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def draw_images(folder: Path, counts: Mapping[str, tuple[int, ...]] = COUNTS, *, scale: int = 1) -> None:
    """Noisy images of one colour per class, 12 x 10 pixels times `scale`, PNG and JPEG in turn, from a fixed seed."""
    random = np.random.default_rng(0)
    for split, numbers in counts.items():
        for (name, colour), number in zip(COLOURS.items(), numbers, strict=True):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = np.clip(random.normal(colour, 40, (10 * scale, 12 * scale, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.{('png', 'jpg')[index % 2]}")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes with 24 training and 13 evaluation images; tests must not change it."""
    folder = tmp_path_factory.mktemp("toy")
    draw_images(folder)
    return folder


@pytest.fixture
def own_toy(tmp_path: Path) -> Path:
    """A toy folder that a test may damage."""
    draw_images(tmp_path / "toy")
    return tmp_path / "toy"


def _options(folder: Path, **changes: object) -> list[str]:
    options = {
        "data_url": folder,
        "arch": "convmixer_8_2",
        "kernel_size": 3,
        "patch_size": 2,
        "image_size": 8,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "batch_size": 8,
        "num_parallel_workers": 0,
        "base_lr": 0.02,
        "amp_level": "O0",
        "report": False,
        "lr_scheduler": "cosine_lr",
        "eval_every": 1,
        "ckpt_keep_num": 10,
        "epochs": 2,
        "print_loss_every": 1,
        "summary_loss_collect_freq": 1,
    }
    return [f"--{name}={value}" for name, value in (options | changes).items()]


@pytest.fixture(scope="session")
def toy_options() -> ToyOptions:
    """Options of a tiny network on a toy folder, which trains in a second: `toy_options(folder, epochs=3)`."""
    return _options


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test stands in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@contextlib.contextmanager
def file_size_limit(count: int) -> Iterator[None]:
    """Within the context no file of this process grows past `count` bytes: the system refuses, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own of some size: `small_disk("64k")`. Skips the test where nobody may mount one."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a small file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def convmixer(here: Path) -> Command:
    """The console command, called with its words, in the folder `here`."""
    return run_command


@pytest.fixture
def train(convmixer: Command, here: Path, toy: Path) -> Train:
    """A run on the toy folder in `here`: `train("--with_ema", epochs=3)`."""

    def run(*words: object, folder: Path = toy, **changes: object) -> Run:
        done = convmixer("train", *_options(folder, **changes), *words)
        assert done.code == 0, done.err
        return Run.below(here, done)

    return run


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Run:
    """One run on the toy folder, with averaged weights, made once; tests must not change it."""
    folder = tmp_path_factory.mktemp("run")
    with contextlib.chdir(folder):
        done = run_command("train", *_options(toy), "--with_ema", "--ckpt_save_every_step=2")
    assert done.code == 0, done.err
    return Run.below(folder, done)


@pytest.fixture(scope="session")
def weights(toy_run: Run) -> Path:
    """The best weights of that run."""
    return toy_run.best / "best.safetensors"
