"""MINDIR and AIR in the real MindSpore; what is said without it needs none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import Command
from tests.exporters.conftest import lively_model, metadata_of
from tests.project import PHOTOS, needs_photos

from convmixer.arch import VARIANTS
from convmixer.backends.mindspore_runtime import open_mindspore, side_file
from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.errors import UserError
from convmixer.exporters.mindspore import build_cell, export_mindspore
from convmixer.metadata import decode_metadata, encode_metadata
from convmixer.model import ConvMixer
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_layout

needs_mindspore = pytest.mark.mindspore


def images_of(model: ConvMixer, count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, model.arch.in_chans), dtype=np.uint8)


def as_it_says(record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
    """The file's own preprocessing, as a command without further options has it."""
    return record or Preprocessing(size=size or 224)


def difference(model: ConvMixer, path: Path, images: np.ndarray) -> float:
    """Largest difference of MindSpore's logits from torch's, as a share of the largest logit."""
    opened = open_mindspore(str(path), as_it_says)
    wanted = TorchRuntime(model, opened.preprocessing, torch.device("cpu")).logits(images)
    found = opened.runtime.logits(images)
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.fixture
def tiny() -> ConvMixer:
    return lively_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)


@pytest.fixture
def exported(tiny: ConvMixer, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.mindir"
    export_mindspore(tiny, metadata_of(tiny), path, "MINDIR")
    return path


@needs_mindspore
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"activation": "gelu"},
        {"activation": "gelu_tanh"},
        {"kernel_size": 5, "patch_size": 3},
        {"in_chans": 1},
    ],
    ids=str,
)
def test_mindspore_answers_as_torch_does(options: dict[str, Any], tmp_path: Path) -> None:
    model = lively_model("convmixer_8_2", **{"kernel_size": 3, "patch_size": 2, "num_classes": 5, **options})
    export_mindspore(model, metadata_of(model), tmp_path / "a.mindir", "MINDIR")
    assert difference(model, tmp_path / "a.mindir", images_of(model, 3)) < 1e-6


@needs_mindspore
@needs_photos
@pytest.mark.parametrize("arch", VARIANTS)
def test_the_variants_answer_as_torch_does_on_a_photo(arch: str, tmp_path: Path) -> None:
    """At 224 pixels; 1e-5 is the tolerance of an export in single precision."""
    model = lively_model(arch)
    inputs = Preprocessing()
    export_mindspore(model, metadata_of(model, classes=None, preprocessing=inputs), tmp_path / "a.mindir", "MINDIR")
    (batch,) = read_batches(Files([PHOTOS / "n01440764_tench.JPEG"]), inputs, 1, threads=0)
    assert difference(model, tmp_path / "a.mindir", batch.images) < 1e-5


@needs_mindspore
def test_a_file_takes_any_number_of_images(tiny: ConvMixer, exported: Path) -> None:
    runtime = open_mindspore(str(exported), as_it_says).runtime
    images = images_of(tiny, 3)
    whole = runtime.logits(images)
    np.testing.assert_allclose(whole, np.concatenate([runtime.logits(images[i : i + 1]) for i in range(3)]), atol=1e-6)


@needs_mindspore
def test_names_and_preprocessing_stand_beside_the_file(tiny: ConvMixer, exported: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.mindir", "tiny.mindir.json"]
    assert exported.stat().st_mode == side_file(exported).stat().st_mode
    assert decode_metadata(side_file(exported).read_text()) == metadata_of(tiny)
    opened = open_mindspore(str(exported), as_it_says)
    assert (opened.classes, opened.num_classes, opened.architecture) == (metadata_of(tiny).classes, 5, tiny.arch)
    assert opened.preprocessing == metadata_of(tiny).preprocessing


@needs_mindspore
def test_a_file_without_a_record_says_its_shapes(exported: Path) -> None:
    side_file(exported).unlink()
    opened = open_mindspore(str(exported), as_it_says)
    assert (opened.classes, opened.num_classes, opened.preprocessing.size) == (None, 5, 16)


@needs_mindspore
def test_a_softmax_of_others_is_undone(tiny: ConvMixer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The logits are those of the weights, but for a number that each image's have in common."""
    import mindspore

    inputs = mindspore.Tensor(shape=[None, 3, 16, 16], dtype=mindspore.float32)
    cell = mindspore.nn.SequentialCell([build_cell(tiny), mindspore.nn.Softmax(axis=1)]).set_train(False)
    mindspore.export(cell, inputs, file_name=str(tmp_path / "soft"), file_format="MINDIR")
    opened = open_mindspore(str(tmp_path / "soft.mindir"), lambda *_, **__: metadata_of(tiny).known_preprocessing)
    assert "soft.mindir: answers with probabilities, as of a Softmax" in capsys.readouterr().err
    images = images_of(tiny, 3)
    found = opened.runtime.logits(images)
    expected = TorchRuntime(tiny, metadata_of(tiny).known_preprocessing, torch.device("cpu")).logits(images)
    shift = found - expected
    np.testing.assert_allclose(shift, shift[:, :1].repeat(5, axis=1), atol=1e-4)


@needs_mindspore
def test_a_fixed_batch_of_others_is_filled_up(tiny: ConvMixer, tmp_path: Path) -> None:
    import mindspore

    inputs = mindspore.Tensor(np.zeros((2, 3, 16, 16), np.float32))
    mindspore.export(build_cell(tiny), inputs, file_name=str(tmp_path / "two"), file_format="MINDIR")
    (tmp_path / "two.mindir.json").write_text(encode_metadata(metadata_of(tiny)))
    assert difference(tiny, tmp_path / "two.mindir", images_of(tiny, 3)) < 1e-6


@needs_mindspore
def test_our_checkpoint_in_mindspore_and_back(tiny: ConvMixer, tmp_path: Path) -> None:
    """MindSpore reads the .ckpt that we write bit by bit, and we read the one that it writes."""
    import mindspore

    state = tiny.state_dict()
    write_layout(tmp_path / "ours.ckpt", state, "mindspore", architecture=tiny.arch)
    cell = build_cell(lively_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5, activation="relu"))
    assert mindspore.load_checkpoint(str(tmp_path / "ours.ckpt"), cell, strict_load=True).keys()
    mindspore.save_checkpoint(cell, str(tmp_path / "theirs.ckpt"))
    found = read_weights(tmp_path / "theirs.ckpt")
    assert found.source == "mindspore"
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items() if "num_batches" not in name)
    logits = cell(mindspore.Tensor(images_of(tiny, 1).transpose(0, 3, 1, 2).astype(np.float32))).asnumpy()
    assert np.isfinite(logits).all()


@needs_mindspore
def test_air_passes_on_why_mindspore_refuses(tiny: ConvMixer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"AIR: MindSpore refuses the export: .*Ascend") as caught:
        export_mindspore(tiny, metadata_of(tiny), tmp_path / "tiny.air", "AIR")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _without_weights(path: Path) -> None:
    """As cut between two parts: still a message, but of a network that lacks what its operators read."""
    from mindspore.train.mind_ir_pb2 import ModelProto

    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    del model.graph.parameter[:]
    path.write_bytes(model.SerializeToString())


def _image(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, "PNG")


def _other_names(path: Path) -> None:
    record = decode_metadata(side_file(path).read_text())
    side_file(path).write_text(encode_metadata(replace(record, classes=ClassMap(("a", "b")))))


@needs_mindspore
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "no such file"),
        (_cut, "a truncated or damaged file"),
        (_without_weights, "a truncated or damaged file"),
        (_image, "a truncated or damaged file, or no MINDIR"),
        (lambda path: path.write_bytes(b""), r"takes \[\] and gives \[\]"),
        (lambda path: side_file(path).write_text("{}"), r"tiny\.mindir\.json: cannot be used: its record"),
        (lambda path: side_file(path).write_text("[" * 100_000), "cannot be used: its record is malformed"),
        (_other_names, "names 2 classes, but the model answers in 5"),
    ],
)
def test_what_cannot_be_used_is_one_line(exported: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(exported)
    with pytest.raises(UserError, match=message) as caught:
        open_mindspore(str(exported), as_it_says)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@needs_mindspore
def test_another_size_than_the_files_is_refused(exported: Path) -> None:
    with pytest.raises(UserError, match="takes images of 16 x 16 pixels, --image_size says 32"):
        open_mindspore(str(exported), lambda record, channels, size=None: Preprocessing(size=32))


def test_without_mindspore_the_extra_is_named(tiny: ConvMixer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mindspore", None)
    with pytest.raises(UserError) as caught:
        export_mindspore(tiny, metadata_of(tiny), tmp_path / "tiny.mindir", "MINDIR")
    assert str(caught.value) == (
        "a MINDIR or AIR file needs mindspore, which is not installed: pip install 'convmixer[mindspore]'"
    )
    assert caught.value.exit_code == 2


@needs_mindspore
def test_a_trained_network_scores_the_same_in_mindspore(
    convmixer: Command, toy_run: Any, toy: Path, here: Path
) -> None:
    """From training over export to the commands that run the file."""
    best = toy_run.best / "best.safetensors"
    done = convmixer("export", "--file_format", "MINDIR", "--pretrained", best, "--data_url", toy)
    assert done.code == 0, done.err
    path = here / done.out.strip()
    on = ("--data_url", toy, "--batch_size", 4)
    assert convmixer("eval", "--pretrained", path, *on).out == convmixer("eval", "--pretrained", best, *on).out
    files = ("infer", toy / "val/red", "--checkpoint")
    assert convmixer(*files, path).out == convmixer(*files, best).out


@needs_mindspore
def test_air_by_the_command_leaves_nothing(convmixer: Command, toy_run: Any, toy: Path, here: Path) -> None:
    best = toy_run.best / "best.safetensors"
    done = convmixer("export", "--file_format", "AIR", "--pretrained", best, "--data_url", toy)
    assert (done.code, list(here.iterdir())) == (2, [])
    assert done.error.startswith("AIR: MindSpore refuses the export: ")
