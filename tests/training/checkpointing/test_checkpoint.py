"""Checkpoint folders: whole or not there, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import file_size_limit

from convmixer.arch import architecture
from convmixer.errors import UserError
from convmixer.model import ConvMixer
from convmixer.runs.checkpoints import checkpoints, step_of, written_at
from convmixer.training.checkpointing.checkpoint import find_damage, keep_newest, load_checkpoint, save_checkpoint

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
    assert find_damage(folder) is None
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
        assert find_damage(folder) == f"{name} has changed since it was written"
    (folder / name).write_bytes(whole[:-1])
    assert find_damage(folder) == f"{name} has {len(whole) - 1} of {len(whole)} bytes"
    (folder / name).unlink()
    assert find_damage(folder) == f"{name} is missing"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"step": 1}', '{"files": 3}', '{"files": {"state.pt": 3}}'])
def test_a_manifest_that_is_none(tmp_path: Path, content: str | None) -> None:
    folder = save(tmp_path, 1)
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    assert find_damage(folder) == "manifest.json is missing or broken"


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("survived", [0, 1])
def test_a_crash_while_a_step_is_saved_again_leaves_one_of_both_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    first = save(tmp_path, 2)
    before = (first / "model.safetensors").read_bytes()
    rename = Path.rename
    calls: list[Path] = []

    def crash(path: Path, target: Path) -> Path:
        if len(calls) == survived:
            raise Crash
        calls.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(Crash):
            save(tmp_path, 2)
    (found,) = checkpoints(tmp_path)
    assert step_of(found) == 2
    assert find_damage(found) is None
    assert (found / "model.safetensors").read_bytes() == before
    assert load_checkpoint(found)[2]["step"] == 2
    # The next save puts it in order, and what is done with afterwards goes.
    assert checkpoints(tmp_path) == [found]
    assert save(tmp_path, 2) == first
    keep_newest(tmp_path, 1)
    assert list(tmp_path.iterdir()) == [first]


def test_a_second_rename_that_fails_gives_the_old_one_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save(tmp_path, 2)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(UserError, match=r"step_00000002.*Disk quota exceeded"):
            save(tmp_path, 2)
    assert list(tmp_path.iterdir()) == [first]
    assert find_damage(first) is None


def changed(folder: Path, *, sealed: bool, **changes: object) -> None:
    """Change entries of a manifest; `sealed`: with the hash that whoever tampers can compute too."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    if sealed:
        del manifest["sha256"]
        manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest))


def test_a_manifest_that_was_changed_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    changed(folder, sealed=False, run={"summary": "/elsewhere"})
    assert find_damage(folder) == "manifest.json has changed since it was written"
    changed(folder, sealed=True)
    assert find_damage(folder) is None


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_manifest_must_name_every_member(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, 1)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files[name]
    changed(folder, sealed=True, files=files)
    assert find_damage(folder) == f"manifest.json does not name {name}"
    changed(folder, sealed=True, files={})
    assert find_damage(folder) == "manifest.json does not name model.safetensors"


def test_a_manifest_names_its_own_folder_only(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    changed(folder, sealed=True, files=files | {"../secret": {"bytes": 1, "sha256": ""}})
    assert find_damage(folder) == "manifest.json names a file of another folder"


def test_averaged_weights_that_no_manifest_names_are_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files["ema.safetensors"]
    changed(folder, sealed=True, files=files)
    assert find_damage(folder) is None
    assert load_checkpoint(folder)[1] is None


def test_older_manifests_stay_readable_and_newer_ones_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    # The first checkpoints of this program: no hash of its own, no time, no folders of the run.
    old = {"format": 1, "step": 1, "files": manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(old, indent=1))
    os.utime(folder / "manifest.json", (1e9, 1e9))
    assert find_damage(folder) is None
    assert written_at(folder) == 1e9
    changed(folder, sealed=True, sha256="", format=3)
    assert find_damage(folder) == "manifest.json is of a format that this convmixer does not know"


def test_the_time_of_writing_survives_a_copy(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    assert abs(written_at(folder) - time.time()) < 60
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(tmp_path / "copy/manifest.json", (1e9, 1e9))
    assert written_at(tmp_path / "copy") == written_at(folder)


@pytest.mark.parametrize("limit", [500, 5_000, 100_000])
def test_a_disk_that_refuses_is_called_by_its_name(tmp_path: Path, limit: int) -> None:
    """At the weights, at the beginning and in the middle of the state: torch.save has errors of its own for it."""
    older, state = save(tmp_path, 1), {"moments": torch.zeros(50_000)}
    with file_size_limit(limit), pytest.raises(UserError, match=r"step_00000002.*File too large") as caught:
        save_checkpoint(tmp_path, 2, {"model.safetensors": weights(0)}, state, {"architecture": NETWORK})
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == [older]


def test_a_full_disk_says_so(small_disk: Callable[[str], Path]) -> None:
    root, state = small_disk("64k"), {"moments": torch.zeros(50_000)}
    older = save(root, 1)
    with pytest.raises(UserError, match=r"step_00000002: .*: No space left on device"):
        save_checkpoint(root, 2, {"model.safetensors": weights(0)}, state, {"architecture": NETWORK})
    assert list(root.iterdir()) == [older]
    assert find_damage(older) is None
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    with pytest.raises(UserError, match=r"step_00000002: .*: Read-only file system"):
        save(root, 2)


@pytest.mark.parametrize("call", [1, 4, 6])
def test_a_folder_that_is_deleted_in_the_middle_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    fsync, calls = os.fsync, []

    def delete(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call:
            shutil.rmtree(tmp_path / "run")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", delete)
    assert find_damage(save(tmp_path / "run", 1)) is None
    assert len(calls) > call


def test_checkpoints_of_later_steps_do_not_push_out_the_one_just_saved(tmp_path: Path) -> None:
    """As a run has them that was resumed at an older step."""
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    (tmp_path / ".step_00000009.partial").mkdir()
    keep_newest(tmp_path, 1, saved=2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [2, 3, 4, 5]
    assert not (tmp_path / ".step_00000009.partial").exists()


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (tmp_path / "step_00000002" / "state.pt").write_bytes(b"broken")
    assert find_damage(save(tmp_path, 2)) is None


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
    assert find_damage(older) is None
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
