"""Reading by content: every layout, and one plain line for everything that is no weight file."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.weights.conftest import MakeModel

from convmixer.arch import Architecture, Shape
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.model import create_model
from convmixer.weights.layouts import Layout
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_layout, write_weights

State = Mapping[str, torch.Tensor]
DATA = Path(__file__).parent / "data"
PAYLOAD_RAN = "payload_ran"


class Payload:
    """Makes a folder when it is unpickled by a loader that executes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (PAYLOAD_RAN,)


def refusal(path: Path) -> str:
    """The one line that refuses a file as wrong use."""
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def assert_same_state(state: State, expected: State, *, counters: bool = True) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        if counters or not name.endswith("num_batches_tracked"):
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("layout", ["native", "authors", "timm", "mindspore"])
@pytest.mark.parametrize("in_chans", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_every_layout_comes_back_equal(
    tmp_path: Path, tiny: MakeModel, layout: Layout, in_chans: int, num_classes: int
) -> None:
    model = tiny(in_chans=in_chans, num_classes=num_classes)
    path = tmp_path / "weights.bin"  # the name tells nothing
    write_layout(path, model.state_dict(), layout, architecture=model.arch)
    weights = read_weights(path)
    assert weights.source == layout
    assert weights.shape == Shape(8, 2, 3, 2, num_classes, in_chans)
    assert_same_state(weights.state, model.state_dict(), counters=layout != "mindspore")


def test_ours_tells_all(tmp_path: Path, tiny: MakeModel) -> None:
    model = tiny(num_classes=3, activation="gelu_tanh")
    preprocessing = Preprocessing(size=32, crop_pct=1.0, mean=(0.5, 0.25, 0.125), exif=True)
    classes = ClassMap(("cat", "dög", 'a "b"\n'))
    write_weights(
        tmp_path / "w",
        model.state_dict(),
        architecture=model.arch,
        classes=classes,
        preprocessing=preprocessing,
        extra={"epoch": 7, "top1": 0.5},
    )
    weights = read_weights(tmp_path / "w")
    assert weights.architecture == Architecture(8, 2, 3, 2, "gelu_tanh", 3, 3)
    assert (weights.classes, weights.preprocessing) == (classes, preprocessing)
    assert weights.metadata == {"epoch": 7, "top1": 0.5}


def test_a_bare_state_dict_does_not_give_its_activation(tmp_path: Path, tiny: MakeModel) -> None:
    torch.save(tiny().state_dict(), tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert (weights.activation, weights.architecture, weights.classes, weights.preprocessing) == (None,) * 4


def test_a_folder_gives_the_averaged_weights_where_it_has_them(tmp_path: Path, tiny: MakeModel) -> None:
    plain, averaged = tiny(seed=1), tiny(seed=2)
    folder = tmp_path / "step_00000012"
    folder.mkdir()
    write_weights(folder / "model.safetensors", plain.state_dict(), architecture=plain.arch)
    assert_same_state(read_weights(folder).state, plain.state_dict())
    write_weights(folder / "ema.safetensors", averaged.state_dict(), architecture=averaged.arch)
    assert_same_state(read_weights(folder).state, averaged.state_dict())
    assert str(folder) in refusal(tmp_path)


def test_a_training_checkpoint_of_timm(tmp_path: Path, tiny: MakeModel) -> None:
    plain, averaged = tiny(seed=1), tiny(seed=2)
    wrapped = {f"module.{name}": tensor for name, tensor in plain.state_dict().items()}
    content = {"epoch": 3, "arch": "convmixer_8_2", "args": argparse.Namespace(lr=0.01), "state_dict": wrapped}
    torch.save(content, tmp_path / "a.pth.tar")
    weights = read_weights(tmp_path / "a.pth.tar")
    assert_same_state(weights.state, plain.state_dict())
    assert weights.metadata == {"epoch": 3, "arch": "convmixer_8_2", "entry": "state_dict"}
    torch.save({**content, "state_dict_ema": averaged.state_dict()}, tmp_path / "b.pth.tar")
    assert_same_state(read_weights(tmp_path / "b.pth.tar").state, averaged.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_types_are_kept_as_stored(tmp_path: Path, tiny: MakeModel, dtype: torch.dtype, kind: str) -> None:
    state, path = tiny().to(dtype).state_dict(), tmp_path / "w"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert_same_state(read_weights(path).state, state)


def test_file_of_the_real_mindspore() -> None:
    weights, expected = read_weights(DATA / "tiny_mindspore.ckpt"), np.load(DATA / "tiny_mindspore.npz")
    assert (weights.source, weights.shape) == ("mindspore", Shape(8, 2, 3, 2, 10, 3))
    assert len(weights.state) == 32 + 5  # and a counter for each BatchNorm
    for ours, theirs in {
        "stem.conv.weight": "network.0.weight",
        "stem.norm.running_var": "network.2.moving_variance",
        "blocks.1.depthwise.weight": "network.4.0.fn.0.weight",
        "blocks.0.depthwise_norm.bias": "network.3.0.fn.2.beta",
        "blocks.1.pointwise_norm.weight": "network.4.3.gamma",
        "head.bias": "network.7.bias",
    }.items():
        np.testing.assert_array_equal(weights.state[ours].numpy(), expected[theirs])
    assert weights.state["stem.norm.num_batches_tracked"] == 0


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    assert refusal(path) == "no such file or folder."
    for content, kind in {
        b"": "an empty file",
        b"arch: convmixer_768_32\nset: ImageNet\n" * 99: "a text file",
        "größer\n".encode() * 200: "a text file",
        b"\n\nhello, this begins with line ends\n": "a text file",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "a Git LFS pointer",
        b"\x08\x0a\x12\x07pytorch": "an ONNX model",
        bytes(range(256)): "a file of unknown content",
    }.items():
        path.write_bytes(content)
        assert refusal(path).startswith(f"{kind}")
        assert "MindSpore .ckpt is read" in refusal(path)
    Image.new("RGB", (9, 9)).save(path, "JPEG")
    assert refusal(path).startswith("a JPEG image, not weights")


def test_other_networks_and_parts_are_refused(tmp_path: Path, tiny: MakeModel) -> None:
    path = tmp_path / "w"
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, path)
    assert refusal(path) == "holds 1 tensors, but not those of a ConvMixer."
    torch.save([torch.zeros(3)], path)
    assert refusal(path) == "holds a list, not a state_dict; no weights are in it."
    torch.save({"epoch": 3}, path)
    assert refusal(path) == "holds no tensors; no weights are in it."
    state = tiny().state_dict()
    del state["head.weight"]
    torch.save(state, path)
    assert refusal(path).startswith("lacks head.weight")
    torch.save({**tiny().state_dict(), "stem.conv.weight": torch.zeros(8, 3, 2, 3)}, path)
    assert refusal(path) == "stem.conv.weight has the shape [8, 3, 2, 3], which no ConvMixer has."


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "pickle of protocol 0"])
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, nested: bool) -> None:
    monkeypatch.chdir(tmp_path)
    content, path = ({"state_dict": {"0.weight": Payload()}} if nested else Payload()), tmp_path / "w.pth"
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, 0 if kind.endswith("0") else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    message = refusal(path)
    assert not Path(PAYLOAD_RAN).exists()
    if not kind.startswith("pickle"):
        assert f"refused: it asks to run or build {os.mkdir.__module__}.mkdir" in message
    # The payload is a live one: a loader that executes runs it.
    if kind.startswith("pickle"):
        pickle.loads(path.read_bytes())
        assert Path(PAYLOAD_RAN).exists()


def test_a_whole_model_is_refused_with_the_way_out(tmp_path: Path, tiny: MakeModel) -> None:
    torch.save(tiny(), tmp_path / "model.pth")
    message = refusal(tmp_path / "model.pth")
    assert "convmixer.model.ConvMixer" in message
    assert "torch.save(model.state_dict(), path)" in message


def repacked(source: Path, target: Path, compression: int, **replaced: bytes) -> None:
    """The same archive with its members compressed, or with another content under the names given."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, replaced.get(Path(name).name, old.read(name)))


def test_zip_bombs_are_refused_before_they_are_read(
    tmp_path: Path, tiny: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the archive was read")

    honest, bomb = tmp_path / "honest.pth", tmp_path / "bomb.pth"
    torch.save({**tiny().state_dict(), "padding": torch.zeros(10_000_000)}, honest)
    repacked(honest, bomb, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    monkeypatch.setattr(torch, "load", never)
    assert refusal(bomb).startswith(f"refused: its {bomb.stat().st_size} bytes unpack to 40")

    # Members that claim the same bytes: the directory's sizes are raised by hand, nothing is compressed.
    content = bytearray(honest.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 60_000_000, 60_000_000)
    bomb.write_bytes(content)
    assert refusal(bomb).startswith(f"refused: its {len(content)} bytes unpack to")


def test_tensors_larger_than_the_file_are_refused(tmp_path: Path, tiny: MakeModel) -> None:
    state, path, honest = tiny().state_dict(), tmp_path / "w.pth", tmp_path / "honest.pth"
    torch.save({**state, "head.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    assert refusal(path).startswith("'head.weight' is not stored as a plain dense tensor")
    torch.save({**state, "head.weight": torch.zeros(10, 8).to_sparse()}, path)
    assert "asks to run or build torch._utils._rebuild_sparse_tensor" in refusal(path)
    # A storage that says it has more elements than its member of the archive.
    torch.save({"stem.conv.weight": torch.zeros(77)}, honest)
    with zipfile.ZipFile(honest) as archive:
        pickled = archive.read("honest/data.pkl")
    assert pickled.count(b"K\x4d") == 2
    repacked(honest, path, zipfile.ZIP_STORED, **{"data.pkl": pickled.replace(b"K\x4d", b"K\xff")})
    assert refusal(path).startswith("a truncated or damaged PyTorch file")


def test_archives_of_other_programs(tmp_path: Path, tiny: MakeModel) -> None:
    path = tmp_path / "w"
    np.savez(tmp_path / "arrays.npz", weight=np.zeros(3))
    assert refusal(tmp_path / "arrays.npz").startswith("a zip archive, but not one of torch.save")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")
    assert refusal(path).startswith("a TorchScript program, which is not run")


@pytest.mark.parametrize("kind", ["native", "authors", "legacy", "mindspore", "safetensors"])
def test_truncated_files(tmp_path: Path, tiny: MakeModel, kind: str) -> None:
    model, whole, cut = tiny(), tmp_path / "whole", tmp_path / "cut"
    if kind == "legacy":
        torch.save(model.state_dict(), whole, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        safetensors.torch.save_file(model.state_dict(), whole)
    else:
        write_layout(whole, model.state_dict(), kind, architecture=model.arch)  # type: ignore[arg-type]
    content = whole.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 600):
        cut.write_bytes(content[:length])
        assert "damaged" in refusal(cut)
    cut.write_bytes(content[:20])
    refusal(cut)


def flipped(whole: bytes, trial: int) -> bytes:
    """The content with one bit turned: in its first 400 bytes, or on odd trials anywhere."""
    rng, content = random.Random(trial), bytearray(whole)
    content[rng.randrange(len(content) if trial % 2 else 400)] ^= 1 << rng.randrange(8)
    return bytes(content)


@pytest.mark.parametrize("layout", ["authors", "timm", "mindspore"])
def test_no_damage_crashes(tmp_path: Path, tiny: MakeModel, layout: Layout) -> None:
    model, path, refused = tiny(), tmp_path / "w", 0
    write_layout(path, model.state_dict(), layout, architecture=model.arch)
    whole = path.read_bytes()
    for trial in range(60):
        path.write_bytes(flipped(whole, trial))
        try:
            read_weights(path)
        except UserError:
            refused += 1
    assert refused > 0


def test_damage_to_our_files_is_found(tmp_path: Path, tiny: MakeModel) -> None:
    """What is read in spite of a turned bit is what was written; most of it is refused by its SHA-256."""
    model, path, by_sha = tiny(num_classes=2), tmp_path / "w", 0
    preprocessing, classes = Preprocessing(size=32), ClassMap(("cat", "dog"))
    write_weights(path, model.state_dict(), architecture=model.arch, classes=classes, preprocessing=preprocessing)
    whole = path.read_bytes()
    for trial in range(120):
        path.write_bytes(flipped(whole, trial))
        try:
            weights = read_weights(path)
        except UserError as error:
            by_sha += "SHA-256" in str(error)
        else:
            assert_same_state(weights.state, model.state_dict())
            assert weights.classes in (classes, None)  # None: the name of the record itself was hit
            assert weights.preprocessing in (preprocessing, None)
    assert by_sha > 40


def test_a_record_that_does_not_fit_its_tensors(tmp_path: Path, tiny: MakeModel) -> None:
    model, path = tiny(), tmp_path / "w"
    write_weights(path, model.state_dict(), architecture=Architecture(8, 2, 5, 2, num_classes=10))
    assert "its record says convmixer_8_2 (kernel 5, patch 2)" in refusal(path)
    safetensors.torch.save_file(model.state_dict(), path, {"convmixer": '{"format": 3}'})
    assert "not of format 2" in refusal(path)
    safetensors.torch.save_file(model.state_dict(), path, {"convmixer": "{"})
    assert refusal(path).startswith("a damaged weight file")


def test_a_folder_of_runs_means_the_best_of_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, classes in (("26-01-01_000000_a", 3), ("26-01-02_000000_a", 4)):
        model = create_model("convmixer_8_1", kernel_size=3, patch_size=2, num_classes=classes)
        (tmp_path / name).mkdir()
        write_weights(tmp_path / name / "best.safetensors", model.state_dict(), architecture=model.arch)
    assert read_weights(tmp_path).shape.num_classes == 4
    assert "26-01-02_000000_a" in capsys.readouterr().err
    assert read_weights(tmp_path / "26-01-01_000000_a").shape.num_classes == 3
