"""torch's .pt2 files: what others exported is run, what could do more than compute is refused before torch reads it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.opening import detect_format, open_model
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError

CHOSEN = Preprocessing(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


class Means(nn.Module):
    """Means of the channels times a weight, as logits or as probabilities."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.weight, self.softmax = nn.Parameter(torch.tensor([1.0, 2.0, 3.0])), softmax

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3)) * self.weight
        return means.softmax(1) if self.softmax else means


def exported(path: Path, batch: int | None = None, **options: Any) -> Path:
    shapes = ({0: torch.export.Dim("n")},) if batch is None else None
    program = torch.export.export(Means(**options), (torch.zeros(batch or 2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def opened(path: Path, request: DeviceRequest = DeviceRequest("CPU")) -> ModelFile:  # noqa: B008  (frozen)
    return open_model(str(path), lambda record, channels, size=None: record or CHOSEN, request)


def expected() -> np.ndarray:
    return ((IMAGES / 255 - 0.5) / 0.25).mean(axis=(1, 2)) * [1, 2, 3]


@pytest.mark.parametrize("batch", [None, 2])
def test_a_program_of_others(tmp_path: Path, batch: int | None) -> None:
    path = exported(tmp_path / "m.pt2", batch)
    model = opened(path)
    assert (detect_format(path), model.num_classes, model.classes) == ("torch_program", 3, None)
    np.testing.assert_allclose(model.runtime.logits(IMAGES), expected(), atol=1e-5)


def test_probabilities_and_another_name(tmp_path: Path) -> None:
    path = exported(tmp_path / "m.pt2", softmax=True).rename(tmp_path / "model.bin")
    found, logits = opened(path).runtime.logits(IMAGES), expected()
    np.testing.assert_allclose(found - found[:, :1], logits - logits[:, :1], atol=1e-4)


def test_weights_of_torch_save_are_no_program(tmp_path: Path) -> None:
    torch.save({"stem.conv.weight": torch.zeros(3)}, tmp_path / "w.pt")
    assert detect_format(tmp_path / "w.pt") == "weights"


Change = Callable[[dict[str, bytes]], None]


def changed(path: Path, change: Change, *more: tuple[str, bytes]) -> Path:
    """The archive with its members changed, and more behind them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (*members.items(), *more):
            archive.writestr(name, content)
    return path


class Planted:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def in_graph(old: str, new: str) -> Change:
    def change(members: dict[str, bytes]) -> None:
        text = members["m/models/model.json"].decode()
        assert old in text
        members["m/models/model.json"] = text.replace(old, new).encode()

    return change


def test_what_could_run_anything_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    archive = io.BytesIO()
    torch.save((Planted(trap),), archive)

    def examples(members: dict[str, bytes]) -> None:
        members["m/data/sample_inputs/model.pt"] = archive.getvalue()

    def pickled_weight(members: dict[str, bytes]) -> None:
        name = "m/data/weights/model_weights_config.json"
        config = json.loads(members[name])
        config["config"]["weight"]["use_pickle"] = True
        members[name] = json.dumps(config).encode()
        members["m/data/weights/weight_0"] = archive.getvalue()

    def pickled_constant(members: dict[str, bytes]) -> None:
        name = "m/data/constants/model_constants_config.json"
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
        members[name] = json.dumps({"config": {"weight": entry}}).encode()
        members["m/data/constants/opaque_obj_0"] = pickle.dumps(Planted(trap))

    def old_weights(members: dict[str, bytes]) -> None:
        members["m/data/weights/model.pt"] = archive.getvalue()

    for change, message in (
        (examples, "its examples are a pickle"),
        (pickled_weight, "a part of its weights is a pickle"),
        (pickled_constant, "a part of its weights is a pickle"),
        (old_weights, "its weights are a pickle, of an older torch"),
        (in_graph("torch.ops.aten.mul.Tensor", "torch.os.system"), "it calls torch.os.system, which is no operator"),
        (
            in_graph("torch.ops.aten.mul.Tensor", "torch.ops.aten.from_file.default"),
            "it calls torch.ops.aten.from_file",
        ),
        (in_graph("Symbol(", "__import__('os').getpid() or Symbol("), "it computes a size by "),
        (in_graph('"guards_code": []', '"guards_code": ["1"]'), "it holds code of Python"),
    ):
        path = changed(exported(tmp_path / "m.pt2"), change)
        with pytest.raises(UserError, match=message):
            opened(path)
        assert not trap.exists()


@pytest.mark.parametrize("name", ["m/models/MODEL.json", "other/models/model.json"])
def test_archives_that_two_readers_could_read_differently(tmp_path: Path, name: str) -> None:
    path = changed(exported(tmp_path / "m.pt2"), lambda members: None, (name, b"{}"))
    with pytest.raises(UserError, match="it is packed as torch packs no file"):
        opened(path)


@pytest.mark.parametrize("part", ["graph", "half", "none"])
def test_damaged_files(tmp_path: Path, part: str) -> None:
    path = exported(tmp_path / "m.pt2")
    if part == "graph":
        changed(path, in_graph('"nodes": [', '"nodes": [[], '))
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if part == "half" else b"PK\x03\x04")
    with pytest.raises(UserError) as refusal:
        opened(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert len(str(refusal.value).splitlines()) <= 2


def test_machine_code_is_run_only_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m.aoti.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data/aotinductor/model/x.wrapper.so", b"not a library")
        archive.writestr("m/data/aotinductor/model/x.wrapper_metadata.json", b"{}")
        archive.writestr("m/archive_format", b"pt2")
    assert detect_format(path) == "torch_program"
    with pytest.raises(UserError, match="is machine code, which can do whatever you can do; --native_code runs it"):
        opened(path)
    with pytest.raises(UserError, match="was compiled by another program"):
        opened(path, DeviceRequest("CPU", native_code=True))
