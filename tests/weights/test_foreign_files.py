"""Weights as other programs' training saves them: wrapped, averaged, beside an optimizer, with values of their own."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.weights.conftest import MakeModel, as_timm
from torch.optim.swa_utils import AveragedModel

from convmixer.api.classifier import load_model
from convmixer.errors import UserError
from convmixer.weights.load import load_into
from convmixer.weights.read import WeightFile, read_weights

State = Mapping[str, torch.Tensor]
Read = Callable[..., WeightFile]


@pytest.fixture
def one(tiny: MakeModel) -> State:
    return tiny(seed=1).state_dict()


@pytest.fixture
def other(tiny: MakeModel) -> State:
    return tiny(seed=2).state_dict()


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def saved(content: Any, entry: str | None = None, **options: Any) -> WeightFile:
        torch.save(content, tmp_path / "w.pth", **options)
        return read_weights(tmp_path / "w.pth", entry)

    return saved


def assert_same(weights: WeightFile, expected: State) -> None:
    assert weights.state.keys() == expected.keys()
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in expected.items())


def others_of(message: pytest.CaptureFixture[str]) -> str:
    return message.readouterr().err


def test_an_averaged_model(tiny: MakeModel, read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torch.optim.swa_utils.AveragedModel of two different models, and torch's own logits of it."""
    averaged = AveragedModel(tiny(seed=1, activation="relu"), use_buffers=True)
    averaged.update_parameters(tiny(seed=1))
    averaged.update_parameters(tiny(seed=2))
    weights = read(averaged.state_dict())
    assert_same(weights, averaged.module.state_dict())
    assert "not used: n_averaged" in others_of(capsys)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "w.pth", activation="relu")(images), averaged.eval()(images))


@pytest.mark.parametrize("prefix", ["model.", "net.", "model.backbone.", "timm_model.", "_forward_module.module.net."])
def test_a_lightning_checkpoint(read: Read, one: State, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**as_timm(one, prefix), "loss.weight": torch.ones(10)},
        "hyper_parameters": {"lr": 0.1, "name": "x"},
        "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
    }
    weights = read(content)
    assert_same(weights, one)
    assert weights.metadata["entry"] == "state_dict"
    assert "not used: hyper_parameters, callbacks, optimizer_states, loss.weight" in others_of(capsys)


@pytest.mark.parametrize("key", ["model_state_dict", "net", "params", "weights", "model"])
def test_entries_of_any_name(read: Read, one: State, key: str) -> None:
    assert_same(read({key: as_timm(one), "optimizer": {"state": {}, "param_groups": []}}), one)
    assert_same(read({"checkpoint": {key: as_timm(one)}, "epoch": 1}), one)


@pytest.mark.parametrize("key", ["ema", "state_dict_ema", "model_ema", "ema_model", "swa_model", "averaged"])
def test_averages_come_first_and_are_logged(
    read: Read, one: State, other: State, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"model": as_timm(one), key: as_timm(other, "module.")}
    assert_same(read(content), other)
    assert f"the averaged weights ({key}.module) are taken" in others_of(capsys)
    assert_same(read(content, "model"), one)
    # In one mapping too, and told by its counter where no name says it.
    assert_same(read({**as_timm(one, "net."), **as_timm(other, f"{key}.")}), other)
    assert_same(read({"a": as_timm(one), "b": {**as_timm(other, "module."), "n_averaged": torch.tensor(2)}}), other)


def test_programs_that_put_the_averages_in_the_usual_place(read: Read, one: State, other: State) -> None:
    """mmengine's EMAHook and Lightning's WeightAveraging swap them: what is called ema there is the plain network."""
    mmengine = {"state_dict": as_timm(one), "ema_state_dict": as_timm(other, "module."), "message_hub": {}}
    assert_same(read(mmengine), one)
    assert_same(read(mmengine, "ema_state_dict"), other)
    lightning = {
        "state_dict": as_timm(one, "net."),
        "current_model_state": as_timm(other, "net."),
        "averaging_state": {},
    }
    assert_same(read(lightning), one)


def test_two_networks_are_refused_unless_one_is_named(read: Read, one: State, other: State) -> None:
    flat = {**as_timm(one, "student."), **as_timm(other, "teacher.")}
    nested = {"student": as_timm(one, "module.backbone."), "teacher": as_timm(other, "backbone.")}
    with pytest.raises(UserError, match="several networks, student, teacher; --entry NAME picks one"):
        read(flat)
    with pytest.raises(UserError, match=r"student\.module\.backbone, teacher\.backbone; --entry NAME picks one"):
        read(nested)
    with pytest.raises(UserError, match="no network under 'head'; it holds student, teacher"):
        read(flat, "head")
    for content in (flat, nested):
        assert_same(read(content, "teacher"), other)
        assert_same(read(content, "student"), one)


def test_a_network_that_is_there_twice_is_one(read: Read, one: State) -> None:
    assert_same(read({**as_timm(one, "model."), **as_timm(one, "wrapped.model.")}), one)


def values_of_training() -> dict[str, Any]:
    return {
        "epoch": 3,
        "top1": np.float64(0.5),
        "loss": np.float32(1.5),
        "step": np.int64(2**40),
        "best": np.bool_(True),
        "run": np.str_("käse"),
        "big": np.array(7, ">i4")[()],
        "out": Path("/runs/x"),
        "win": Path("a") / "b",
        "args": argparse.Namespace(lr=np.float32(0.1), out=Path("/x")),
        "when": datetime.datetime(2026, 1, 1),
        "history": collections.defaultdict(list, {"loss": [1.0, np.float64(2.0)]}),
        "rng": np.arange(624, dtype=np.uint32),
        "seen": {1, 2},
        "fixed": frozenset("a"),
        "raw": b"\x00\xff",
        "grown": bytearray(b"\x00\xff"),
        "none": None,
    }


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_plain_values_beside_the_tensors(
    read: Read, tmp_path: Path, one: State, kind: str, protocol: int, nested: bool
) -> None:
    content = {**({"state_dict": as_timm(one)} if nested else as_timm(one)), **values_of_training()}
    if kind == "pickle":
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol))
        weights = read_weights(tmp_path / "w.pkl")
    else:
        weights = read(content, pickle_protocol=protocol, _use_new_zipfile_serialization=kind == "zip")
    assert_same(weights, one)
    values = {name: weights.metadata[name] for name in ("epoch", "top1", "loss", "step", "best", "run", "big", "out")}
    assert values == {
        "epoch": 3,
        "top1": 0.5,
        "loss": 1.5,
        "step": 2**40,
        "best": True,
        "run": "käse",
        "big": 7,
        "out": "/runs/x",
    }
    assert weights.metadata["win"] == "a/b"
    assert {type(value) for value in values.values()} <= {int, float, bool, str}


class Payload:
    """Makes a folder when it is unpickled by a loader that executes."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("payload_ran",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_nothing_is_run_in_any_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: State, kind: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": as_timm(one), "value": np.float64(1), "args": argparse.Namespace(x=Payload())}
    path = tmp_path / "w"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError, match=f"asks to run or build {os.mkdir.__module__}.mkdir"):
        read_weights(path)
    assert not Path("payload_ran").exists()


def test_a_payload_in_a_tensors_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pickle.dump keeps a tensor's memory as a file of torch.save within the file."""
    monkeypatch.chdir(tmp_path)

    class Storage:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (pickle.dumps(Payload(), 4),)

    Path("w.pkl").write_bytes(pickle.dumps({"0.weight": Storage()}, 4))
    with pytest.raises(UserError, match=f"asks to run or build {os.mkdir.__module__}.mkdir"):
        read_weights("w.pkl")
    assert not Path("payload_ran").exists()


def test_a_dtype_that_lies_reads_no_foreign_memory(read: Read, one: State) -> None:
    """NumPy's own reader would take these bytes for the address of an object."""

    class Scalar:
        def __reduce__(self) -> Any:
            return np.float64(0).__reduce__()[0], (np.dtype("O"), b"\x41" * 8)

    weights = read({"state_dict": as_timm(one), "value": Scalar()})
    assert "value" not in weights.metadata


def test_a_file_without_a_head(read: Read, tiny: MakeModel, one: State) -> None:
    weights = read({name: tensor for name, tensor in as_timm(one).items() if not name.startswith("head")})
    assert (weights.headless, weights.shape.num_classes) == (True, 0)
    model = tiny(seed=3)
    with pytest.raises(UserError, match="has no head, so it answers in no classes"):
        load_into(model, weights)
    with pytest.raises(UserError, match="has no head, so it answers in no classes"):
        load_model(weights.path, activation="relu")
    head = model.head.weight.clone()
    (note,) = load_into(model, weights, replace_head=True)
    assert "has no head; the new one has 10 classes" in note
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.get_parameter("blocks.1.pointwise.weight"), one["blocks.1.pointwise.weight"])


class Separable(torch.nn.Module):
    """A MobileNet's blocks under names like ours."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3)
        self.blocks = torch.nn.ModuleList()
        for width in (8, 16):
            block = torch.nn.Module()
            block.depthwise = torch.nn.Conv2d(width, width, 3, groups=width)
            block.pointwise = torch.nn.Conv2d(width, 2 * width, 1)
            self.blocks.append(block)
        self.fc = torch.nn.Linear(32, 10)


def test_other_networks_are_called_so(read: Read, one: State) -> None:
    names = as_timm(one)
    squeezed = {f"blocks.{i}.se.weight": torch.zeros(8) for i in range(2)}
    for content, reason in (
        (Separable().state_dict(), "it lacks stem.conv.weight and has stem.weight"),
        ({**names, "blocks.0.1.weight": torch.zeros(16, 8, 1, 1)}, "no pointwise convolution that keeps the channels"),
        ({**names, "blocks.0.0.fn.0.weight": torch.zeros(8, 8, 3, 3)}, "is no depthwise convolution"),
        ({**names, **squeezed}, "its blocks also have blocks.0.se.weight, blocks.1.se.weight"),
    ):
        with pytest.raises(UserError, match=f"another network than a ConvMixer: .*{reason}"):
            read(content)
    with pytest.raises(UserError, match="not those of a ConvMixer"):
        read({"layer1.0.conv1.weight": torch.zeros(8, 8, 3, 3), "fc.weight": torch.zeros(10, 8)})


def test_names_that_are_no_part_of_an_unwrapped_network_are_refused(read: Read, one: State, tiny: MakeModel) -> None:
    """They may be what the network computes with; counters are not."""
    weights = read({**as_timm(one), "pos_embed": torch.zeros(1, 8), "n_seen": torch.tensor(3)})
    with pytest.raises(UserError, match=r"lacks nothing; adds pos_embed\.$"):
        load_into(tiny(), weights)
