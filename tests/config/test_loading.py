"""Where a value comes from, and how it may be spelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convmixer.config.checks import CheckDataOptions, DoctorOptions
from convmixer.config.commands import TRAIN
from convmixer.config.convert import ConvertOptions, PushOptions
from convmixer.config.inference import InferOptions
from convmixer.config.loading import parse
from convmixer.config.onnx import EvalOnnxOptions, InferOnnxOptions
from convmixer.config.options import Options, options_of
from convmixer.config.resolved import COMMAND_LINE, DEFAULT, Resolved
from convmixer.config.schema import Config, ExportConfig
from convmixer.errors import UserError

# Without a recipe where the user names none.
COMMAND = replace(TRAIN, default_recipe=lambda given: None)


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
    assert [resolved.is_explicit(name) for name in ("seed", "epochs", "batch_size")] == [False, False, True]
    assert [resolved.explicit(name) for name in ("seed", "epochs", "batch_size")] == [None, 3, 9]
    assert resolved.argv[-1] == "--batch_size=9"


def test_a_recipe_that_the_command_chose_was_not_named_by_the_user() -> None:
    resolved = parse(TRAIN, ["--epochs=1"])
    assert resolved.options.arch == "convmixer_64_4"
    assert (resolved.explicit("arch"), resolved.explicit("epochs")) == (None, 1)


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
    resolved = parse(TRAIN, words)
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
        ([], ("tensorboard",)),
        (["--log_to", "wandb"], ("wandb",)),
        (["--log_to", "wandb,tensorboard"], ("wandb", "tensorboard")),
        (["--log-to", "WandB", "MLflow", "wandb", "--seed=0"], ("wandb", "mlflow")),
        (["--log_to=none"], ()),
        (["--log_to="], ()),
    ],
)
def test_a_list_of_choices(words: list[str], expected: tuple[str, ...]) -> None:
    assert options(*words).log_to == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[mlflow, Trackio]", ("mlflow", "trackio")),
        ("mlflow", ("mlflow",)),
        ("mlflow, trackio", ("mlflow", "trackio")),
        ("[]", ()),
        ("none", ()),
        ("null", ()),
    ],
)
def test_a_list_of_choices_in_yaml(
    recipe: Callable[..., Resolved[Config]], content: str, expected: tuple[str, ...]
) -> None:
    assert recipe(f"log_to: {content}\n").options.log_to == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[tensorboard, wandbb]", "log_to: should be 'mlflow', 'tensorboard', 'trackio' or 'wandb', not 'wandbb'"),
        ("[wandb, none]", "log_to: should be 'mlflow', 'tensorboard', 'trackio' or 'wandb', not 'none'"),
        ("[wandb, 3]", "log_to: should be 'mlflow', 'tensorboard', 'trackio' or 'wandb', not 3"),
        ("3", "log_to: should be a valid tuple, not 3"),
        ("no", "log_to: is False, which is no value of this option"),
    ],
)
def test_what_is_no_list_of_choices(recipe: Callable[..., Resolved[Config]], content: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe(f"log_to: {content}\n")
    assert str(caught.value).endswith(f"mine.yaml: {message}")


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
    assert (options("--with_ema", "pictures").with_ema, options("--with_ema", "pictures").data_url) == (
        True,
        "pictures",
    )
    with pytest.raises(UserError, match="unexpected argument 'more'"):
        options("--with_ema", "pictures", "more")


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


@pytest.mark.parametrize("content", ["", "# only a comment\n", "---\n...\n", "\n\n"])
def test_an_empty_file_says_nothing(
    recipe: Callable[..., Resolved[Config]], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    assert recipe(content).options == options()
    assert (
        f"{tmp_path / 'mine.yaml'}: says nothing, so that every option keeps its default\n" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 3\nseed: 1\n\nepochs: 4\n", r"mine\.yaml, line 4: not valid YAML: epochs is in line 1 already$"),
        ("epochs: 3\n'epochs': 3\n", r"mine\.yaml, line 2: not valid YAML: epochs is in line 1 already$"),
        ("{epochs: 3, epochs: 4}", r"mine\.yaml, line 1: not valid YAML: epochs is in line 1 already$"),
        ("a\\x: 1\nbeta: {x: 1, x: 2}", r"mine\.yaml, line 2: not valid YAML: x is in line 2 already$"),
        (
            "ckpt_save_every_sec: 3\nckpt_save_every_seconds: 4\n",
            r"mine\.yaml: ckpt_save_every_sec and ckpt_save_every_seconds are one option; leave one of them out$",
        ),
    ],
)
def test_a_key_that_is_there_twice_is_refused(
    recipe: Callable[..., Resolved[Config]], content: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        recipe(content)


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
    assert recipe(f"set: {text}").options.set == "imagenet"
    assert options("--set", text).set == "imagenet"


EVERY_MODEL = (
    Config,
    ExportConfig,
    InferOptions,
    EvalOnnxOptions,
    InferOnnxOptions,
    ConvertOptions,
    PushOptions,
    CheckDataOptions,
    DoctorOptions,
)
every_model = pytest.mark.parametrize("model", EVERY_MODEL, ids=lambda model: model.__name__)


@every_model
def test_every_choice_in_any_case(model: type[Options]) -> None:
    """`optimizer: AdamW`, `device_target: gpu`, `file_format: onnx` ..."""
    for option in options_of(model):
        assert len({choice.lower() for choice in option.choices}) == len(option.choices)
        for choice in option.choices:
            for spelled in (choice.upper(), choice.lower(), choice.title()):
                found = getattr(model.model_validate({option.name: spelled}), option.name)
                assert found == ((choice,) if option.is_list else choice)


def test_what_is_no_choice_is_refused_as_it_was_written(recipe: Callable[..., Resolved[Config]]) -> None:
    assert recipe("optimizer: AdamW").options.optimizer == "adamw"
    with pytest.raises(UserError, match=r"optimizer: should be 'adamw', .* not 'Lars'$"):
        recipe("optimizer: Lars")


# Options of text that name no file; all others do.
NO_PATHS = {"arch", "auto_augment", "model_postfix", "repo", "license", "onnx_output", "entry", "column"}


@every_model
def test_every_path_is_expanded(model: type[Options], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("FLOWERS", "/data/flowers")
    written = {
        "~": "/home/ada",
        "~/f": "/home/ada/f",
        "$FLOWERS/x": "/data/flowers/x",
        "a/${FLOWERS}b": "a//data/flowersb",
        "$HOME": "/home/ada",
        "price_$5~": "price_$5~",
    }
    texts = [option.name for option in options_of(model) if option.domain == "text"]
    for name in set(texts) - NO_PATHS:
        for path, expected in written.items():
            assert getattr(model.model_validate({name: path}), name) == expected, name


def test_paths_in_yaml_and_quoted_on_the_command_line(
    recipe: Callable[..., Resolved[Config]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = recipe("data_url: ~/flowers\nckpt_root_dir: $HOME/runs", "--val_dir=$HOME/v").options
    assert (found.data_url, found.ckpt_root_dir, found.val_dir) == (
        f"{tmp_path}/flowers",
        f"{tmp_path}/runs",
        f"{tmp_path}/v",
    )
    assert parse(COMMAND, ["--config=~/mine.yaml"]).options == parse(COMMAND, ["--config=$HOME/mine.yaml"]).options


def test_a_variable_that_is_not_set_is_refused(recipe: Callable[..., Resolved[Config]], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"mine\.yaml: data_url: \$SCRATCH_9/f: the environment has no variable SCRATCH_9$"
    ):
        recipe("data_url: $SCRATCH_9/f")
    with pytest.raises(UserError, match=r"^--pretrained: \$\{SCRATCH_9\}: the environment has no variable SCRATCH_9$"):
        options("--pretrained", "${SCRATCH_9}")
    with pytest.raises(UserError, match=r"^--config: \$SCRATCH_9/x: the environment has no variable"):
        options("--config=$SCRATCH_9/x")
    # A file that really is called so can be named.
    (tmp_path / "$SCRATCH_9").touch()
    assert options(f"--pretrained={tmp_path}/$SCRATCH_9").pretrained == f"{tmp_path}/$SCRATCH_9"


def test_several_errors_are_counted() -> None:
    with pytest.raises(UserError, match=r"^--(epochs|seed|re_prob): .*\(and 2 more\)$"):
        options("--epochs=0", "--seed=-1", "--re_prob=2")


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        options().epochs = 3
