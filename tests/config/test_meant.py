"""What is suggested for a name that is no option."""

from __future__ import annotations

from pathlib import Path

import pytest

from convmixer.cli import check_data_command, eval_onnx_command, export_command, infer_command, train_command
from convmixer.config.command import Command
from convmixer.config.loading import parse
from convmixer.errors import UserError

TRAIN, INFER, EXPORT = train_command.COMMAND, infer_command.COMMAND, export_command.COMMAND


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--lr", "base_lr"),
        ("--learning-rate", "base_lr"),
        ("--workers", "num_parallel_workers"),
        ("--num_workers", "num_parallel_workers"),
        ("--epoch", "epochs"),
        ("--num-epochs", "epochs"),
        ("--bs", "batch_size"),
        ("--batch", "batch_size"),
        ("-b", "batch_size"),
        ("--model", "arch"),
        ("--data", "data_url"),
        ("--data-dir", "data_url"),
        ("--dataset", "set"),
        ("--output_dir", "ckpt_root_dir"),
        ("--weights", "pretrained"),
        ("--img-size", "image_size"),
        ("--imgsz", "image_size"),
        ("--opt", "optimizer"),
        ("--report_to", "log_to"),
        ("--log-wandb", "log_to"),
        ("--sched", "lr_scheduler"),
        ("--ema", "with_ema"),
        ("--gpus", "device_num"),
        ("--device", "device_target"),
        ("--clip-grad", "clip_grad_norm"),
        ("--smoothing", "label_smoothing"),
        ("--warmup-epochs", "warmup_length"),
        ("--amp", "amp_level"),
        ("--pre", "pretrained"),
        ("--Epochs", "epochs"),
        ("-c", "config"),
        ("--yaml", "config"),
    ],
)
def test_names_of_other_programs(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"^unknown option {typed}; did you mean --{meant}\?$"):
        parse(TRAIN, [typed, "3"])


@pytest.mark.parametrize(
    ("command", "typed", "message"),
    [
        (INFER, "--weights", "did you mean --checkpoint?"),
        (INFER, "--pretrained", "did you mean --checkpoint?"),
        (INFER, "--input", "DATA stands without a flag"),
        (INFER, "--data", "DATA stands without a flag"),
        (EXPORT, "--output_dir", "did you mean --output?"),
        (EXPORT, "--half", "did you mean --precision?"),
        (eval_onnx_command.COMMAND, "--model", "did you mean --onnx_path?"),
        (eval_onnx_command.COMMAND, "--data_url", "DATASET stands without a flag"),
        (check_data_command.COMMAND, "--workers", "did you mean --num_parallel_workers?"),
    ],
)
def test_each_command_has_its_own(command: Command, typed: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(command, ["x", typed, "3"] if command.positional else [typed, "3"])
    assert str(refused.value) == f"unknown option {typed}; {message}"


@pytest.mark.parametrize("dash", ["\u2013", "\u2014", "\u2212", "-\u2013", "\u2010\u2010"])
def test_a_dash_of_a_word_processor(dash: str) -> None:
    for words in ([f"{dash}epochs", "3"], [f"{dash}epochs=3"]):
        with pytest.raises(UserError, match=r"not with --; did you mean --epochs\?$"):
            parse(TRAIN, words)
    with pytest.raises(UserError, match=r"not with --; did you mean --recursive\?$"):
        parse(INFER, [f"{dash}recursive", "pictures"])
    # A folder may be called so.
    assert parse(INFER, [f"{dash}pictures"[dash == "-\u2013" :]]).options.data is not None


def test_a_yaml_key_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 0.1\n")
    with pytest.raises(UserError, match=r"mine\.yaml: unknown option lr; did you mean base_lr\?$"):
        parse(TRAIN, ["--config", str(path)])


def test_the_last_of_two_holds() -> None:
    assert parse(TRAIN, ["--epochs=1", "--beta", "0.9", "0.9", "--epochs", "2"]).options.epochs == 2


@pytest.mark.parametrize("words", [["a", "b"], ["a", "--seed=1", "b"]])
def test_two_positionals(words: list[str]) -> None:
    with pytest.raises(UserError, match="unexpected argument 'b'"):
        parse(EXPORT, words)
