"""What is written is read by its own program, and replaces a file as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from tests.weights.conftest import MakeModel

from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.weights.mindspore_ckpt import read_checkpoint
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_layout, write_weights


def test_the_record_is_plain_json_for_other_programs(tmp_path: Path, tiny: MakeModel) -> None:
    model = tiny(num_classes=2)
    classes, preprocessing = ClassMap(("no", "yes")), Preprocessing(size=8)
    options: dict[str, Any] = {"classes": classes, "preprocessing": preprocessing, "extra": {"step": 5}}
    write_weights(tmp_path / "a", model.state_dict(), architecture=model.arch, **options)
    with safe_open(tmp_path / "a", framework="np") as file:
        record = json.loads(file.metadata()["convmixer"])
    assert record["format"] == 2
    assert record["arch"] == "convmixer_8_2"
    assert record["architecture"] == {
        "dim": 8,
        "depth": 2,
        "kernel_size": 3,
        "patch_size": 2,
        "activation": "gelu",
        "num_classes": 2,
        "in_chans": 3,
    }
    assert record["classes"] == ["no", "yes"]
    assert record["preprocessing"]["size"] == 8
    assert record["extra"] == {"step": 5}
    write_weights(tmp_path / "b", model.state_dict(), architecture=model.arch, **options)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_timm_loads_its_layout(tmp_path: Path, tiny: MakeModel) -> None:
    model, path = tiny(dim=8, depth=2, kernel_size=3, patch_size=2, activation="relu"), tmp_path / "w.pth"
    write_layout(path, model.state_dict(), "timm", architecture=model.arch)
    theirs = timm.models.convmixer.ConvMixer(8, 2, kernel_size=3, patch_size=2, num_classes=10, act_layer=torch.nn.ReLU)
    timm.models.load_checkpoint(theirs, str(path), weights_only=True)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(images), model(images))


def test_the_authors_layout_is_that_of_their_release_files(tmp_path: Path, tiny: MakeModel) -> None:
    model, path = tiny(depth=1), tmp_path / "w.pth.tar"
    write_layout(path, model.state_dict(), "authors", architecture=model.arch)
    content = torch.load(path, weights_only=True)
    assert list(content) == ["state_dict"]
    assert content["state_dict"]["6.weight"].shape == (10, 8)
    assert torch.equal(
        content["state_dict"]["3.0.fn.2.running_var"], model.state_dict()["blocks.0.depthwise_norm.running_var"]
    )


def test_mindspore_layout(tmp_path: Path, tiny: MakeModel) -> None:
    model, path = tiny(depth=1).to(torch.bfloat16), tmp_path / "w.ckpt"
    write_layout(path, model.state_dict(), "mindspore", architecture=model.arch)
    entries = read_checkpoint(path)
    norms = ["network.2", "network.3.0.fn.2", "network.3.3"]
    norm_names = {f"{norm}.{part}" for norm in norms for part in ("gamma", "beta", "moving_mean", "moving_variance")}
    others = ["network.0", "network.3.0.fn.0", "network.3.1", "network.6"]
    assert entries.keys() == norm_names | {f"{name}.{part}" for name in others for part in ("weight", "bias")}
    expected = model.get_buffer("blocks.0.pointwise_norm.running_mean").float().numpy()
    np.testing.assert_array_equal(entries["network.3.3.moving_mean"], expected)


def test_tensors_that_share_memory_or_lie_otherwise_in_it(tmp_path: Path, tiny: MakeModel) -> None:
    model = tiny()
    state = model.state_dict()
    both = torch.rand(2, 8)
    state |= {"stem.norm.weight": both[0], "stem.norm.bias": both[1], "head.weight": torch.rand(8, 10).T}
    for layout in ("native", "authors", "mindspore"):
        write_layout(tmp_path / "w", state, layout, architecture=model.arch)
        back = read_weights(tmp_path / "w").state
        assert all(
            torch.equal(back[name], state[name]) for name in ("stem.norm.weight", "stem.norm.bias", "head.weight")
        )


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, tiny: MakeModel, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    old, new, path = tiny(seed=1), tiny(seed=2), tmp_path / "w"
    write_weights(path, old.state_dict(), architecture=old.arch)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, no_space)
        with pytest.raises(UserError, match="cannot be written: No space left on device") as caught:
            write_weights(path, new.state_dict(), architecture=new.arch)
    assert caught.value.exit_code == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path, tiny: MakeModel) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        write_weights(tmp_path / "absent" / "w", tiny().state_dict(), architecture=tiny().arch)
