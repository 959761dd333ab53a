"""Every option is read by something, documented, and checked by bounds that hold its own default."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import convmixer.inputs
from convmixer.arch import ArchitectureHints
from convmixer.config.inference import InferOptions
from convmixer.config.options import Options, options_of
from convmixer.config.schema import Config
from convmixer.optimizers import OPTIMIZERS

PACKAGE = Path(convmixer.inputs.__file__).parent

# design of the model zoo's program: each of its options has this name here.
MODEL_ZOO = """
    arch set data_url train_dir val_dir num_classes train_num_samples val_num_samples image_size
    auto_augment aa_interpolation interpolation re_prob re_mode re_count cutmix mixup mixup_prob mixup_mode
    mixup_off_epoch switch_prob min_crop crop_pct label_smoothing
    optimizer base_lr warmup_lr min_lr lr_scheduler lr_gamma lr_adjust warmup_length beta eps momentum weight_decay
    amp_level keep_bn_fp32 is_dynamic_loss_scale loss_scale use_clip_grad_norm clip_grad_norm with_ema ema_decay
    epochs start_epoch batch_size seed pretrained exclude_epoch_state num_parallel_workers device_target device_id
    device_num summary_root_dir ckpt_root_dir best_ckpt_root_dir ckpt_keep_num ckpt_save_every_step ckpt_save_every_sec
    ckpt_save_every_seconds print_loss_every summary_loss_collect_freq model_postfix file_format
    collect_input_data dump_graph
    kernel_size patch_size activation in_chans resume amp_dtype lr_scaling accumulate compile freeze
""".split()


def names_read() -> set[str]:
    """What the program, past the options' own package, takes off something called config or options.

    That is `config.name`, `resolved.explicit("name")`, what a table names, and what a property of a group is made of.
    """
    read = {*convmixer.inputs._FIELDS, *(field.name for field in fields(ArchitectureHints))}
    read |= {name for entry in OPTIMIZERS.values() for name in entry.arguments.values()}
    for path in PACKAGE.rglob("*.py"):
        owners = ("self",) if path.parent.name == "config" else ("config", "options")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(ast.Name(owner) | ast.Attribute(attr=owner), name) if owner in owners:
                    read.add(name)
                case ast.Call(ast.Attribute(attr="explicit"), [ast.Constant(str(name))]):
                    read.add(name)
    return read


@pytest.mark.parametrize("model", [Config, InferOptions])
def test_every_option_is_read(model: type[Options]) -> None:
    assert sorted(set(model.model_fields) - names_read()) == []


def test_the_model_zoos_options_are_all_there() -> None:
    names = {name for option in options_of(Config) for name in option.names}
    assert sorted(set(MODEL_ZOO) - names) == []


@pytest.mark.parametrize("model", [Config, InferOptions])
def test_every_option_has_a_sentence_and_a_group(model: type[Options]) -> None:
    for option in options_of(model):
        assert option.help, option.name
        assert len(option.help) <= 100, option.name
        assert not option.help.endswith("."), option.name
        assert option.group
    flags = [flag for option in options_of(model) for flag in (*option.flags, *option.names)]
    assert len(flags) == len(set(flags))


def test_defaults_pass_their_own_checks() -> None:
    assert Config.model_validate(Config().model_dump()) == Config()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # As timm's create_transform has it: the training crops' interpolation unless that is random.
        ({}, "random"),
        ({"interpolation": "bilinear"}, "bilinear"),
        ({"interpolation": "bicubic"}, "bicubic"),
        ({"interpolation": "lanczos"}, "random"),
        ({"interpolation": "bilinear", "aa_interpolation": "nearest"}, "nearest"),
        ({"interpolation": "bilinear", "aa_interpolation": "random"}, "random"),
    ],
)
def test_a_policy_resamples_as_the_crops_do(options: dict[str, str], expected: str) -> None:
    assert Config(**options).policy_interpolation == expected  # type: ignore[arg-type]
