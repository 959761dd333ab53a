"""`average`: the mean as NumPy has it, by which a network answers; what has no average is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from tests.conftest import Command, Run, ToyOptions, Train, draw_images, file_size_limit

from convmixer.model import ConvMixer
from convmixer.weights.load import build
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights


def numpy_mean(files: list[Path]) -> dict[str, np.ndarray]:
    states = [load_file(path) for path in files]
    return {
        name: np.mean([state[name].astype(np.float64) for state in states], axis=0).astype(np.float32)
        if value.dtype == np.float32
        else value
        for name, value in states[-1].items()
    }


def steps(run: Run) -> list[Path]:
    return sorted(run.checkpoints.iterdir())


def test_the_last_checkpoints_of_a_run_by_its_averaged_weights(toy_run: Run, convmixer: Command) -> None:
    done = convmixer("average", toy_run.checkpoints, "--last=3")
    assert (done.code, done.out) == (0, "averaged.safetensors\n"), done.err
    assert "convmixer eval FOLDER --pretrained averaged.safetensors evaluates it" in done.err
    expected = numpy_mean([path / "ema.safetensors" for path in steps(toy_run)[-3:]])
    found = load_file("averaged.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    last, weights = read_weights(steps(toy_run)[-1]), read_weights("averaged.safetensors")
    for name in ("shape", "activation", "classes", "preprocessing"):
        assert getattr(weights, name) == getattr(last, name)
    assert weights.metadata["averaged"] == [str(path) for path in steps(toy_run)[-3:]]


def test_a_network_from_the_file_answers_by_the_mean(toy_run: Run, convmixer: Command, toy: Path) -> None:
    files = [steps(toy_run)[0] / "model.safetensors", toy_run.best / "best.safetensors"]
    done = convmixer("average", *files, "-o", "mean.safetensors")
    assert done.code == 0, done.err
    weights = read_weights("mean.safetensors")
    assert "top1" not in weights.metadata  # is that of one of them
    assert weights.architecture is not None
    network = build(weights, weights.architecture, ConvMixer)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = ConvMixer(weights.architecture).eval()
    expected.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in numpy_mean(files).items()})
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected(images), rtol=0, atol=0)
        one = build(read_weights(files[0]), weights.architecture, ConvMixer)
        assert not torch.allclose(network(images), one(images))
    evaluated = convmixer("eval", toy, "--pretrained=mean.safetensors", "--num_parallel_workers=0")
    assert evaluated.code == 0, evaluated.err


@pytest.mark.parametrize("what", ["name", "summary", "best", "checkpoints"])
def test_a_run_is_named_in_any_way(what: str, toy_run: Run, convmixer: Command) -> None:
    word = toy_run.name if what == "name" else getattr(toy_run, what)
    done = convmixer("average", "--last=2", word, f"--ckpt_root_dir={toy_run.checkpoints.parent}")
    assert done.code == 0, done.err
    assert f"the mean of 2, {toy_run.checkpoints}/step_00000004" in done.err


def test_files_with_commas_and_checkpoint_folders_together(toy_run: Run, convmixer: Command, tmp_path: Path) -> None:
    comma = tmp_path / "a,b.safetensors"
    shutil.copy(toy_run.best / "best.safetensors", comma)
    done = convmixer("average", comma, steps(toy_run)[0], comma)
    assert done.code == 0, done.err
    expected = numpy_mean([comma, steps(toy_run)[0] / "ema.safetensors", comma])
    found = load_file("averaged.safetensors")
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_what_was_held_out_is_still_known(here: Path, convmixer: Command, toy_options: ToyOptions) -> None:
    draw_images(here / "toy")
    done = convmixer("train", *toy_options(here / "toy/train"))
    assert done.code == 0, done.err
    run = Run.below(here, done)
    assert convmixer("average", run.name).code == 0
    held_out = read_weights(run.best / "best.safetensors").metadata["held_out"]
    assert read_weights("averaged.safetensors").metadata["held_out"] == held_out


def changed(source: Path, path: Path, **changes: object) -> Path:
    weights = read_weights(source)
    known = {"architecture": weights.architecture, "classes": weights.classes, "preprocessing": weights.preprocessing}
    write_weights(path, weights.state, **known | changes)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("what", ["classes", "preprocessing", "activation"])
def test_weights_of_another_kind_are_refused_with_both_named(
    what: str, weights: Path, convmixer: Command, tmp_path: Path
) -> None:
    from dataclasses import replace

    from convmixer.data.classes import ClassMap

    own = read_weights(weights)
    assert own.architecture is not None
    assert own.preprocessing is not None
    changes: dict[str, object] = {
        "classes": {"classes": ClassMap(("blue", "green", "rose"))},
        "preprocessing": {"preprocessing": replace(own.preprocessing, mean=(0.5, 0.5, 0.5))},
        "activation": {"architecture": replace(own.architecture, activation="relu")},
    }[what]  # type: ignore[assignment]
    other = changed(weights, tmp_path / "other.safetensors", **changes)
    done = convmixer("average", weights, other)
    assert done.code == 2
    assert done.error.startswith(f"{weights} and {other}: differ in their {what}")
    assert not Path("averaged.safetensors").exists()


def test_another_network_is_refused(weights: Path, convmixer: Command, train: Train) -> None:
    other = train("--arch=convmixer_8_1", epochs=1).best / "best.safetensors"
    done = convmixer("average", weights, other)
    assert done.code == 2
    assert done.error.startswith(f"{weights} and {other}: differ in their shape: ")


def test_refusals(weights: Path, toy_run: Run, convmixer: Command) -> None:
    def error(*words: object) -> str:
        done = convmixer("average", *words)
        assert done.code == 2
        return done.error

    assert error() == "WEIGHTS: a run, or several weight files or checkpoint folders, are needed"
    assert error(weights) == f"{weights}: is alone; at least two networks have an average"
    assert error("", weights) == "WEIGHTS: is empty"
    assert error(weights, "missing").startswith("missing: no such file or folder")
    assert error(weights, weights, "-o", "mean.pth") == "--output: mean.pth must end in .safetensors"
    assert error(weights, weights, "-o", "no/mean.safetensors") == "--output: there is no folder no"
    assert "is one of those that are averaged" in error(weights, weights, "-o", weights)
    inside = steps(toy_run)[0] / "model.safetensors"
    assert "is one of those that are averaged" in error(toy_run.checkpoints, "-o", inside)
    assert not list(Path().iterdir())


def test_a_disk_that_refuses_leaves_no_file(weights: Path, convmixer: Command) -> None:
    Path("averaged.safetensors").write_bytes(b"before")
    with file_size_limit(1000):
        done = convmixer("average", weights, weights)
    assert done.code == 1
    assert Path("averaged.safetensors").read_bytes() == b"before"


def test_numbers_keep_their_type(weights: Path, convmixer: Command, tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in load_tensors(weights).items()}
    own = read_weights(weights)
    half = tmp_path / "half.safetensors"
    write_weights(half, state, architecture=own.architecture, classes=own.classes, preprocessing=own.preprocessing)  # type: ignore[arg-type]
    assert convmixer("average", half, half).code == 0
    for name, value in load_tensors("averaged.safetensors").items():
        assert torch.equal(value, state[name]), name
