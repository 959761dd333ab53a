"""The shipped recipes: each reads without a complaint, and the model zoo's keeps the model zoo's values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.project import ROOT

from convmixer.config.commands import TRAIN as COMMAND
from convmixer.config.loading import parse
from convmixer.config.options import options_of
from convmixer.config.recipes import find_recipe, read_recipe, shipped_recipes
from convmixer.config.schema import Config

RECIPES = sorted(shipped_recipes())

# The script parameters in the model zoo's README, but for its three folders of results.
MODEL_ZOO = {
    "arch": "convmixer_768_32",
    "set": "ImageNet",
    "num_classes": 1000,
    "data_url": "/imagenet/ILSVRC/Data/CLS-LOC/",
    "val_dir": "validation_preprocess",
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "interpolation": "random",
    "re_prob": 0.25,
    "re_mode": "pixel",
    "re_count": 1,
    "cutmix": 0.5,
    "mixup": 0.5,
    "mixup_prob": 1.0,
    "mixup_mode": "batch",
    "mixup_off_epoch": 0.0,
    "switch_prob": 0.5,
    "min_crop": 0.875,
    "image_size": 224,
    "optimizer": "adamw",
    "base_lr": 0.001,
    "warmup_lr": 0.000007,
    "min_lr": 0.0001,
    "lr_scheduler": "cosine_lr",
    "warmup_length": 0,
    "amp_level": "O0",
    "keep_bn_fp32": True,
    "beta": [0.9, 0.999],
    "is_dynamic_loss_scale": False,
    "epochs": 300,
    "label_smoothing": 0.1,
    "weight_decay": 0.0001,
    "momentum": 0.9,
    "batch_size": 24,
    "use_clip_grad_norm": True,
    "clip_grad_norm": 1.0,
    "num_parallel_workers": 4,
    "device_target": "GPU",
    "ckpt_keep_num": 10,
    "ckpt_save_every_seconds": 1800,
    "print_loss_every": 50,
    "summary_loss_collect_freq": 10,
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_key_is_an_option_and_every_value_passes(name: str) -> None:
    known = {name for option in options_of(Config) for name in option.names}
    assert sorted(set(read_recipe(find_recipe(name))) - known) == []
    resolved = parse(COMMAND, ["--config", name])
    assert resolved.options.arch.startswith("convmixer_")


@pytest.mark.parametrize("name", RECIPES)
def test_results_go_where_the_options_say(name: str) -> None:
    keys = read_recipe(find_recipe(name)).keys()
    assert keys.isdisjoint({"summary_root_dir", "ckpt_root_dir", "best_ckpt_root_dir"})


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_has_command_and_expected_result(name: str) -> None:
    head = find_recipe(name).read_text(encoding="utf-8").split("\narch:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert re.search(rf"^# command:.*\b{name}\b", head, re.MULTILINE)
    assert re.search(r"^# expected:", head, re.MULTILINE)


def test_the_model_zoos_values_hold() -> None:
    content = read_recipe(find_recipe("convmixer_768_32"))
    assert {key: content.get(key) for key in MODEL_ZOO} == MODEL_ZOO


def test_the_model_zoos_own_file_reads(tmp_path: Path) -> None:
    lines = [f"{key}: {value}" for key, value in MODEL_ZOO.items()]
    roots = {"summary_root_dir": "/mindspore/summary_dir/", "ckpt_root_dir": "/mindspore/checkpoints/"}
    path = tmp_path / "convmixer_768_32.yaml"
    path.write_text("\n".join(lines + [f"{key}: {value}" for key, value in roots.items()]))
    found = parse(COMMAND, ["--config", str(path)]).options
    assert found.ckpt_save_every_sec == 1800
    assert found.summary_root_dir == "/mindspore/summary_dir/"


def test_the_three_architectures_have_a_recipe_under_the_model_zoos_path() -> None:
    for name in ("convmixer_768_32", "convmixer_1024_20", "convmixer_1536_20"):
        path = ROOT / "src/configs" / f"{name}.yaml"
        assert path.samefile(find_recipe(name))
        assert read_recipe(path)["arch"] == name


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("epochs: 1")
    assert find_recipe("digits") == Path("digits")


def test_cifar10_has_the_authors_settings() -> None:
    """`train.py --lr-max=0.05 --ra-n=2 --ra-m=12 --wd=0.005 --scale=1.0 --jitter=0 --reprob=0` of their script.

    Its transforms are torchvision's with their defaults (nearest neighbours in RandAugment), its AdamW decays all.
    """
    config = Config.model_validate(read_recipe(find_recipe("cifar10_256_8")))
    expected = {
        "auto_augment": "randaugment-n2-m12",
        "policy_interpolation": "nearest",
        "min_crop": 1.0,
        "crop_ratio": (1.0, 1.0),
        "hflip": 0.5,
        "re_prob": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "label_smoothing": 0.0,
        "optimizer": "adamw",
        "base_lr": 0.05,
        "lr_scheduler": "onecycle",
        "eps": 1e-8,
        "weight_decay": 0.005,
        "decay_all": True,
        "clip_grad_norm": 1.0,
        "epochs": 25,
        "batch_size": 512,
    }
    assert {name: getattr(config, name) for name in expected} == expected
