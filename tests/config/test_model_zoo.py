"""The model zoo's defaults: whose hold where a YAML file has no key, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.config.test_recipes import MODEL_ZOO
from tests.conftest import Command, Run, ToyOptions
from tests.project import ROOT

from convmixer.config.commands import TRAIN as COMMAND
from convmixer.config.loading import parse
from convmixer.config.model_zoo import DEFAULTS, difference
from convmixer.config.options import options_of
from convmixer.config.recipes import shipped_recipes
from convmixer.config.resolved import COMMAND_LINE, MODEL_ZOO_DEFAULT, Resolved
from convmixer.config.schema import Config
from convmixer.errors import UserError

# The model zoo's program, research/cv/convmixer/src/config.py, as it was published in 2023.
THEIRS = {
    "re_mode": "pixel",
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "aa_interpolation": "bilinear",
    "label_smoothing": 0.1,
    "ckpt_save_every_sec": 3600,
    "print_loss_every": 20,
    "summary_loss_collect_freq": 1,
    "batch_size": 256,
    "base_lr": 0.01,
    "weight_decay": 0.05,
    "is_dynamic_loss_scale": True,
    "num_parallel_workers": 8,
    "warmup_lr": 5e-7,
    "amp_level": "O2",
}


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., Resolved[Config]]:
    def resolve(content: dict[str, Any], *words: str) -> Resolved[Config]:
        path = tmp_path / "mine.yaml"
        path.write_text("".join(f"{name}: {value}\n" for name, value in content.items()))
        return parse(COMMAND, ["--config", str(path), *words])

    return resolve


def test_they_are_the_lowest_layer(mine: Callable[..., Resolved[Config]]) -> None:
    resolved = mine({"weight_decay": 0.3}, "--defaults=model_zoo", "--base_lr=0.5")
    found = {name: getattr(resolved.options, name) for name in THEIRS}
    assert found == THEIRS | {"weight_decay": 0.3, "base_lr": 0.5}
    origins = {name: resolved.origins[name] for name in ("batch_size", "base_lr", "epochs")}
    assert origins == {"batch_size": MODEL_ZOO_DEFAULT, "base_lr": COMMAND_LINE, "epochs": "default"}
    assert not resolved.is_default("weight_decay")
    assert (resolved.explicit("batch_size"), resolved.explicit("weight_decay")) == (None, 0.3)


def test_only_where_they_differ_from_ours() -> None:
    assert DEFAULTS == THEIRS
    ours = {option.name: option.default for option in options_of(Config)}
    assert [name for name, value in DEFAULTS.items() if ours[name] == value] == []


@pytest.mark.parametrize("word", ["model_zoo", "Model_Zoo"])
def test_a_yaml_file_can_ask_for_them(mine: Callable[..., Resolved[Config]], word: str) -> None:
    assert mine({"defaults": word}).options.batch_size == 256
    assert mine({"defaults": word}, "--defaults=ours").options == mine({}).options
    with pytest.raises(UserError, match=r"^--defaults: should be 'ours' or 'model_zoo', not 'timm'$"):
        mine({}, "--defaults=timm")


def test_the_model_zoos_own_file_is_its_recipe_here(mine: Callable[..., Resolved[Config]]) -> None:
    ours = parse(COMMAND, ["--config=convmixer_768_32"]).options
    theirs = mine(MODEL_ZOO).options
    effective = {name for name in Config.model_fields if getattr(ours, name) != getattr(theirs, name)}
    # Said as the recipe says it, and the default of a photo's preprocessing: see test_inputs.
    assert effective == {"crop_pct", "exif"}
    # Only one of its defaults is in want of a key there.
    assert mine(MODEL_ZOO, "--defaults=model_zoo").options.aa_interpolation == "bilinear"


def test_what_differs_is_logged(mine: Callable[..., Resolved[Config]]) -> None:
    assert difference(mine(MODEL_ZOO)) == (
        f"{mine(MODEL_ZOO).recipe} leaves out what has another default in the model zoo: aa_interpolation bilinear "
        "(random); ours, in brackets, hold, --defaults model_zoo takes theirs"
    )
    line = difference(mine({"epochs": 3}, "--base_lr=0.2", "--label_smoothing=0"))
    assert line is not None
    for part in ("warmup_lr 5e-07 (7e-06)", "weight_decay 0.05 (0.0)", "amp_level O2 (O0)", "batch_size 256 (128)"):
        assert part in line
    assert "aa_interpolation" not in str(difference(mine({"interpolation": "bilinear"})))
    assert "base_lr" not in line
    assert "label_smoothing" not in line


@pytest.mark.parametrize("words", [["--defaults=ours"], ["--defaults=model_zoo"]])
def test_nothing_once_it_is_chosen(mine: Callable[..., Resolved[Config]], words: list[str]) -> None:
    assert difference(mine({"epochs": 3}, *words)) is None


@pytest.mark.parametrize("recipe", [*shipped_recipes(), str(ROOT / "src/configs/convmixer_768_32.yaml")])
def test_nothing_of_shipped_recipes(recipe: str) -> None:
    assert difference(parse(COMMAND, ["--config", recipe])) is None


def test_a_run_says_it_and_records_where_values_come_from(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    (here / "mine.yaml").write_text("re_prob: 0.1\namp_level: O0\n")
    words = ["train", *toy_options(toy, epochs=1), "--config=mine.yaml"]
    done = convmixer(*words)
    assert done.code == 0, done.err
    assert "mine.yaml leaves out what has another default in the model zoo: warmup_lr 5e-07 (7e-06)" in done.err
    saved = (Run.below(here, done).summary / "config.yaml").read_text()
    assert "re_mode: const  # default\n" in saved
    (here / "runs").rename(here / "before")
    done = convmixer(*words, "--defaults=model_zoo")
    assert done.code == 0, done.err
    assert "defaults are the model zoo's where it has others\n" in done.err
    assert "leaves out" not in done.err
    saved = (Run.below(here, done).summary / "config.yaml").read_text()
    assert f"re_mode: pixel  # {MODEL_ZOO_DEFAULT}\n" in saved
    assert f"aa_interpolation: bilinear  # {MODEL_ZOO_DEFAULT}\n" in saved
    # What is recorded is a recipe that says it all.
    (here / "saved.yaml").write_text(saved)
    assert difference(parse(COMMAND, ["--config=saved.yaml"])) is None
