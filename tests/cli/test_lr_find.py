"""`convmixer lr-find`: what it prints, that it is a function of the seed, and that it leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import Command, ToyOptions

SHORT = ["--lr_steps=40", "--execution=eager"]


def test_it_suggests_a_rate_and_leaves_no_run(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    done = convmixer("lr-find", *toy_options(toy), *SHORT, "--plot", "curve.png")
    assert done.code == 0, done.err
    suggested = re.fullmatch(r"suggested --base_lr (\S+)\n", done.out)
    assert suggested is not None
    assert 1e-5 < float(suggested[1]) < 1
    assert "the smoothed loss is lowest at" in done.err
    assert [path.name for path in here.iterdir()] == ["curve.png"]
    with Image.open("curve.png") as picture:
        assert picture.format == "PNG"
    # The line is an option of train as it stands.
    again = convmixer("lr-find", *toy_options(toy), *SHORT)
    assert again.out == done.out
    assert convmixer("train", *toy_options(toy, epochs=1), *done.out.split()[1:]).code == 0


def test_it_is_a_function_of_the_seed_and_not_of_the_loaders(
    convmixer: Command, toy: Path, toy_options: ToyOptions
) -> None:
    words = [*toy_options(toy), *SHORT, "-v"]
    one, other, alike = (
        re.findall(r"loss is lowest .*", convmixer("lr-find", *words, *more).err)
        for more in ((), ("--seed=5",), ("-j2",))
    )
    assert one == alike
    assert len(one) == 1
    assert other != one


def test_an_explosion_ends_it(convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    words = [*toy_options(toy), "--optimizer=sgd", "--lr_end=1e12", "--lr_steps=60", "--execution=eager"]
    done = convmixer("lr-find", *words)
    assert done.code == 0, done.err
    assert re.search(r"^\d\d steps from 1e-05 to \S+: the loss (has exploded|is no number any more)$", done.err, re.M)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--lr_start=1", "--lr_end=0.1"], "lr_start: is 1, which must be below lr_end, 0.1"),
        (["--lr_steps=3"], "--lr_steps: should be greater than or equal to 20, not '3'"),
        (["--device_num=2"], "device_num: lr-find measures in one process; leave it out, or give 1"),
        (["--resume=auto"], "--resume: lr-find looks at a new run; leave it out"),
        (["--freeze"], "--freeze: takes no steps, which lr-find measures, but one pass over the images; leave it out"),
        (["--plot=nowhere/a.png"], "nowhere/a.png cannot be written; is "),
    ],
)
def test_wrong_use_is_a_line(
    words: list[str], error: str, convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    done = convmixer("lr-find", *toy_options(toy), *words)
    assert done.code == 2
    assert error in done.error
    assert list(here.iterdir()) == []


def test_lr_scaling_is_taken_out(convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    words = [*toy_options(toy), *SHORT]
    plain, scaled = (convmixer("lr-find", *words, *more).out.split()[-1] for more in ((), ("--lr_scaling=linear",)))
    # base_lr times 8 / 512 is the peak.
    assert float(scaled) == pytest.approx(float(plain) * 64, rel=0.06)
