"""Where a value comes from, and how it may be spelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convmixer.cli.train_command import COMMAND, default_recipe
from convmixer.config.loading import COMMAND_LINE, DEFAULT, Resolved, parse
from convmixer.config.schema import Config
from convmixer.errors import UserError


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """Write a YAML file and parse a command line with it: `recipe("epochs: 3", "--seed", "1")`."""

    def resolve(content: str, *words: str) -> Resolved[Config]:
        path = tmp_path / "mine.yaml"
        path.write_text(content)
        return parse(COMMAND, ["--config", str(path), *words])

    return resolve


def options(*words: str) -> Config:
    return parse(COMMAND, words).options


def test_defaults_give_way_to_yaml_and_that_to_the_command_line(
    recipe: Callable[..., Resolved[Config]], tmp_path: Path
) -> None:
    resolved = recipe("epochs: 3\nbatch_size: 7\n", "--batch_size=9")
    assert (resolved.options.seed, resolved.options.epochs, resolved.options.batch_size) == (0, 3, 9)
    origins = {name: resolved.origins[name] for name in ("seed", "epochs", "batch_size")}
    assert origins == {"seed": DEFAULT, "epochs": str(tmp_path / "mine.yaml"), "batch_size": COMMAND_LINE}
    assert [resolved.asked(name) for name in ("seed", "epochs", "batch_size")] == [False, False, True]
    assert [resolved.said(name) for name in ("seed", "epochs", "batch_size")] == [None, 3, 9]
    assert resolved.argv[-1] == "--batch_size=9"


def test_a_recipe_that_the_command_chose_was_not_said_by_the_user() -> None:
    resolved = parse(COMMAND, ["--epochs=1"], default_recipe=default_recipe)
    assert resolved.options.arch == "convmixer_64_4"
    assert (resolved.said("arch"), resolved.said("epochs")) == (None, 1)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "digits"),
        (["--set=Digits", "--data_url=/x"], "digits"),
        (["--data_url=/x"], "small_folder"),
        (["--set=ImageNet"], "small_folder"),
        (["--set", "CIFAR10"], "cifar10_256_8"),
    ],
)
def test_the_recipe_without_config(words: list[str], name: str) -> None:
    resolved = parse(COMMAND, words, default_recipe=default_recipe)
    assert resolved.recipe is not None
    assert Path(resolved.recipe).stem == name


@pytest.mark.parametrize(
    "words",
    [
        ["--beta", "0.8,0.99"],
        ["--beta", "0.8", "0.99"],
        ["--beta=0.8,0.99"],
        ["--beta", "0.8,", "0.99", "--seed=0"],
    ],
)
def test_lists(words: list[str]) -> None:
    assert options(*words).beta == (0.8, 0.99)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["--with_ema"], True),
        (["--with-ema"], True),
        (["--with_ema", "True"], True),
        (["--with_ema=true"], True),
        (["--with_ema", "on"], True),
        (["--with_ema", "false"], False),
        (["--with_ema=False"], False),
        (["--with_ema", "0"], False),
        (["--with_ema", "--epochs", "3"], True),
    ],
)
def test_switches(words: list[str], expected: object) -> None:
    assert options(*words).with_ema is expected


def test_a_switch_swallows_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unexpected argument 'pictures'"):
        options("--with_ema", "pictures")


@pytest.mark.parametrize("words", [["--base_lr", "0.01"], ["--base-lr", "0.01"], ["--base_lr=1e-2"], ["--base-lr=.01"]])
def test_dashes_and_underscores(words: list[str]) -> None:
    assert options(*words).base_lr == 0.01


def test_dashes_in_a_value_stay(tmp_path: Path) -> None:
    assert options("--data-url=/a-b/c_d", "--model-postfix", "x-y").data_url == "/a-b/c_d"


def test_short_forms() -> None:
    found = options("-a", "convmixer_8_2", "-j", "3", "--wd", "0.05", "--aa", "rand-m9-mstd0.5-inc1")
    assert (found.arch, found.num_parallel_workers, found.weight_decay, found.auto_augment) == (
        "convmixer_8_2",
        3,
        0.05,
        "rand-m9-mstd0.5-inc1",
    )
    assert options("-j3").num_parallel_workers == 3


def test_no_option_can_be_shortened_by_chance() -> None:
    with pytest.raises(UserError, match=r"^unknown option --epoch; did you mean --epochs\?$"):
        options("--epoch", "3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-3", 0.001), ("1E-3", 0.001), ("1.0e-3", 0.001), ("1e-8", 1e-8), (".5", 0.5), ("1", 1.0), ("'1e-3'", 0.001)],
)
def test_numbers_in_yaml(recipe: Callable[..., Resolved[Config]], text: str, expected: object) -> None:
    # YAML 1.1 takes 1e-3 for text.
    assert recipe(f"eps: {text}").options.eps == expected


def test_lists_switches_and_nothing_in_yaml(recipe: Callable[..., Resolved[Config]]) -> None:
    found = recipe(
        "beta: [ 0.9, 1e-1 ]\nwith_ema: yes\nnum_classes: null\nauto_augment:\nkeep_bn_fp32: 'False'"
    ).options
    assert found.beta == (0.9, 0.1)
    assert (found.with_ema, found.num_classes, found.auto_augment, found.keep_bn_fp32) == (True, None, None, False)


def test_an_empty_file_says_nothing(recipe: Callable[..., Resolved[Config]]) -> None:
    assert recipe("# only a comment\n").options == options()


def test_an_optional_value_can_be_taken_back_on_the_command_line(recipe: Callable[..., Resolved[Config]]) -> None:
    found = recipe("auto_augment: original\nnum_classes: 3", "--auto_augment=none", "--num_classes", "None").options
    assert (found.auto_augment, found.num_classes) == (None, None)


@pytest.mark.parametrize("name", ["ckpt_save_every_sec", "ckpt_save_every_seconds"])
def test_seconds_between_checkpoints_have_two_names(recipe: Callable[..., Resolved[Config]], name: str) -> None:
    assert recipe(f"{name}: 1800").options.ckpt_save_every_sec == 1800
    assert options(f"--{name}", "1800").ckpt_save_every_sec == 1800
    assert recipe("ckpt_save_every_seconds: 1800", f"--{name}=5").options.ckpt_save_every_sec == 5


@pytest.mark.parametrize("text", ["IMAGENET", "imagenet", "ImageNet"])
def test_the_set_in_any_case(recipe: Callable[..., Resolved[Config]], text: str) -> None:
    assert recipe(f"set: {text}").options.set == "ImageNet"
    assert options("--set", text).set == "ImageNet"


def test_several_errors_are_counted() -> None:
    with pytest.raises(UserError, match=r"^--(epochs|seed|re_prob): .*\(and 2 more\)$"):
        options("--epochs=0", "--seed=-1", "--re_prob=2")


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        options().epochs = 3  # type: ignore[misc]
