"""Checkpoint folders: whole or not there, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from convmixer.arch import architecture
from convmixer.errors import UserError
from convmixer.model import ConvMixer
from convmixer.train.checkpoint import checkpoints, fault_of, keep_newest, load_checkpoint, save_checkpoint, step_of

NETWORK = architecture("convmixer_4_1", kernel_size=3, patch_size=2, num_classes=3)
FILES = ["ema.safetensors", "manifest.json", "model.safetensors", "state.pt"]


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return ConvMixer(NETWORK).state_dict()


def save(root: Path, step: int) -> Path:
    both = {"model.safetensors": weights(step), "ema.safetensors": weights(step + 1)}
    return save_checkpoint(root, step, both, {"step": step, "moments": [torch.ones(2)]}, {"architecture": NETWORK})


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    assert folder == tmp_path / "step_00000007"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert fault_of(folder) is None
    model, ema, state = load_checkpoint(folder)
    assert ema is not None
    assert all(torch.equal(model[name], tensor) for name, tensor in weights(7).items())
    assert all(torch.equal(ema[name], tensor) for name, tensor in weights(8).items())
    assert state["step"] == 7
    assert torch.equal(state["moments"][0], torch.ones(2))


def test_without_averaged_weights(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, {"model.safetensors": weights(0)}, {}, {"architecture": NETWORK})
    assert load_checkpoint(folder)[1] is None


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (20, 3, 100):
        save(tmp_path, step)
    for name in ("step_1", "step_00000009.old", ".step_00000050.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_00000004").write_text("no folder")
    assert [step_of(path) for path in checkpoints(tmp_path)] == [3, 20, 100]
    assert checkpoints(tmp_path / "nowhere") == []
    keep_newest(tmp_path, 2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [20, 100]
    keep_newest(tmp_path, 5)
    assert len(checkpoints(tmp_path)) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "state.pt"])
def test_any_flipped_bit_and_any_lost_byte_are_found(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 1)
    whole = (folder / name).read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert fault_of(folder) == f"{name} has changed since it was written"
    (folder / name).write_bytes(whole[:-1])
    assert fault_of(folder) == f"{name} has {len(whole) - 1} of {len(whole)} bytes"
    (folder / name).unlink()
    assert fault_of(folder) == f"{name} is missing"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"step": 1}', '{"files": 3}', '{"files": {"state.pt": 3}}'])
def test_a_manifest_that_is_none(tmp_path: Path, content: str | None) -> None:
    folder = save(tmp_path, 1)
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    assert fault_of(folder) == "manifest.json is missing or broken"


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (tmp_path / "step_00000002" / "state.pt").write_bytes(b"broken")
    assert fault_of(save(tmp_path, 2)) is None


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_older_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    older = save(tmp_path, 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", refuse)
        else:
            patch.setattr(Path, "rename", refuse)
        with pytest.raises(UserError, match=r"step_00000002.*No space left on device") as caught:
            save(tmp_path, 2)
    assert caught.value.exit_code == 1
    assert fault_of(older) is None
    assert checkpoints(tmp_path) == [older]
    assert list(tmp_path.iterdir()) == [older]


def test_what_a_killed_process_left_is_no_checkpoint_and_in_nobodys_way(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    partial = tmp_path / ".step_00000002.partial"
    shutil.copytree(folder, partial)
    (partial / "old").write_text("")
    assert checkpoints(tmp_path) == [folder]
    assert sorted(path.name for path in save(tmp_path, 2).iterdir()) == FILES
    assert not partial.exists()


def test_the_manifest_names_its_format_and_step(tmp_path: Path) -> None:
    manifest = json.loads((save(tmp_path, 12) / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"]) == (2, 12)
