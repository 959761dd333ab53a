"""What the help of `eval` and `export` lists is what these commands read, and training's options are accepted there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.conftest import Command, Run

from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config, EvalConfig, ExportConfig


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the options that are read from now on."""
    found: set[str] = set()
    fields = {*ExportConfig.model_fields, *EvalConfig.model_fields}
    own, is_explicit = Config.__getattribute__, Resolved.is_explicit

    def recorded(self: Config, name: str) -> object:
        if name in fields:
            found.add(name)
        return own(self, name)

    def recorded_is_explicit(self: Resolved[Config], name: str) -> bool:
        found.add(name)
        return is_explicit(self, name)

    monkeypatch.setattr(Config, "__getattribute__", recorded)
    monkeypatch.setattr(Resolved, "is_explicit", recorded_is_explicit)
    return found


def listed(convmixer: Command, command: str) -> set[str]:
    text = convmixer(command, "--help").out
    assert "Training's other options are accepted" in text
    return set(re.findall(r"--(\w+) X", text)) - {"json", "csv"}  # second names


def test_eval_lists_what_it_reads(convmixer: Command, toy: Path, toy_run: Run, read: set[str]) -> None:
    words = [f"--data_url={toy}", f"--pretrained={toy_run.best}", "-j0", "--amp_level=O1", "--compile=false"]
    assert convmixer("eval", *words).code == 0
    assert listed(convmixer, "eval") == read


def test_export_lists_what_it_reads(convmixer: Command, toy: Path, toy_run: Run, read: set[str]) -> None:
    words = [f"--data_url={toy}", f"--pretrained={toy_run.best}", "-j0", "--precision=int8", "--tolerance=1"]
    done = convmixer("export", *words, "--parity_images=2", "--calibration_images=2")
    assert done.code == 0, done.err
    assert listed(convmixer, "export") == read


@pytest.mark.parametrize("command", ["eval", "export"])
def test_training_options_are_accepted_though_they_are_not_listed(
    convmixer: Command, here: Path, toy: Path, toy_run: Run, command: str
) -> None:
    (here / "zoo.yaml").write_text("optimizer: adamw\nwith_ema: true\nckpt_keep_num: 3\n")
    words = ["--config=zoo.yaml", f"--data_url={toy}", f"--pretrained={toy_run.best}", "-j0"]
    done = convmixer(command, *words, "--epochs=3", "--mixup", "0.5", "--with_ema")
    assert done.code == 0, done.err
    assert convmixer(command, "--pretrained=x", "--epochs=0").error.startswith("--epochs: ")
    assert convmixer(command, "--pretrained=x", "--epoc=3").error == "unknown option --epoc; did you mean --epochs?"
