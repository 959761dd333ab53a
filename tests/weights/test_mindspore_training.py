"""Checkpoints that a real MindSpore training run writes: Model.train with ModelCheckpoint, loss cells, averages."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.conftest import Command

from convmixer.api.classifier import load_model
from convmixer.arch import architecture
from convmixer.weights.mindspore_ckpt import read_checkpoint
from convmixer.weights.read import read_weights

pytestmark = pytest.mark.mindspore
CLASSES = 3
KINDS = ("WithLossCell", "model", "_backbone", "momentum", "safetensors", "ema of the zoo", "ema of all")


@dataclass
class Trained:
    """A checkpoint of training, images, and what MindSpore answers to them: by the network, and by its averages."""

    path: Path
    images: np.ndarray
    logits: np.ndarray
    averaged: np.ndarray | None
    wrapper: str


def _loss_cell(network: Any, name: str) -> Any:
    """A cell of the model zoo's kind, which holds the network under `name` and its loss beside it."""
    from mindspore import nn

    class NetWithLoss(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, network)
            self.criterion = nn.SoftmaxCrossEntropyWithLogits(reduction="mean")

        def construct(self, images: Any, labels: Any) -> Any:
            return self.criterion(getattr(self, name)(images), labels)

    return NetWithLoss()


def _step_with_averages(cell: Any, optimizer: Any, of_all: bool) -> Any:
    """One step of training that keeps averages: of the trained parameters as the model zoo does, or of all."""
    import mindspore as ms
    from mindspore import nn, ops

    class Averages(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.plain = ms.ParameterTuple(cell.get_parameters()) if of_all else optimizer.parameters
            self.averages = self.plain.clone(prefix="ema" if of_all else "_ema_weights")

        def construct(self) -> None:
            for average, parameter in zip(self.averages, self.plain, strict=True):
                ops.assign(average, 0.9 * average + 0.1 * parameter)

    class Step(nn.TrainOneStepWithLossScaleCell):
        def __init__(self) -> None:
            super().__init__(cell, optimizer, ms.Tensor(1024.0, ms.float32))
            self.ema_model = Averages()

        def construct(self, *inputs: Any) -> Any:
            loss = self.network(*inputs)
            gradients = self.grad(self.network, self.weights)(*inputs, ops.ones_like(loss))
            self.optimizer(gradients)
            self.ema_model()
            return loss

    return Step()


def _train(kind: str, folder: Path) -> Trained:
    import mindspore as ms
    from mindspore import dataset, nn
    from mindspore.train import CheckpointConfig, Model, ModelCheckpoint

    from convmixer.exporters.mindspore_cell import Network

    ms.set_seed(1)
    random = np.random.default_rng(0)
    images = random.standard_normal((16, 3, 8, 8)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[random.integers(0, CLASSES, 16)]
    network = Network(architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=CLASSES))
    name = kind if kind in ("model", "_backbone") else "model"
    if kind == "WithLossCell":
        cell = nn.WithLossCell(network, nn.SoftmaxCrossEntropyWithLogits(reduction="mean"))
    else:
        cell = _loss_cell(network, name)
    parameters = network.trainable_params()
    optimizer = nn.Momentum(parameters, 0.1, 0.9) if kind == "momentum" else nn.AdamWeightDecay(parameters, 1e-2)
    if kind.startswith("ema"):
        step = _step_with_averages(cell, optimizer, kind == "ema of all")
    else:
        step = nn.TrainOneStepCell(cell, optimizer)
    form = "safetensors" if kind == "safetensors" else "ckpt"
    numbers = ["epoch_num", "step_num"]
    config = CheckpointConfig(2, keep_checkpoint_max=1, append_info=numbers, format=form)
    checkpoint_manager = ModelCheckpoint(prefix="net", directory=str(folder), config=config)
    data = dataset.NumpySlicesDataset((images, labels), ["images", "labels"], shuffle=False).batch(8)
    Model(step).train(2, data, callbacks=[checkpoint_manager], dataset_sink_mode=False)
    (path,) = folder.glob(f"*.{form}")

    network.set_train(False)
    logits = network(ms.Tensor(images)).asnumpy()
    averaged = None
    if kind.startswith("ema"):
        for parameter, average in zip(step.ema_model.plain, step.ema_model.averages, strict=True):
            parameter.set_data(average)
        averaged = network(ms.Tensor(images)).asnumpy()
    wrapper = "network." if kind == "WithLossCell" else f"{name}.network."
    return Trained(path, images, logits, averaged, wrapper)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """The checkpoint of a kind of training, which is run once."""
    done: dict[str, Trained] = {}

    def of(kind: str) -> Trained:
        if kind not in done:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                done[kind] = _train(kind, tmp_path_factory.mktemp("mindspore"))
        return done[kind]

    return of


def _logits(path: Path, images: np.ndarray, **options: Any) -> np.ndarray:
    with torch.no_grad():
        return load_model(path, activation="gelu", **options)(torch.from_numpy(images)).numpy()


def _assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_mindspores(
    training: Callable[[str], Trained], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training(kind)
    entries = load_file(run.path) if kind == "safetensors" else read_checkpoint(run.path)
    # What a training run leaves beside the weights is in the file, or it tests nothing.
    assert {f"{run.wrapper}0.weight", "learning_rate", "epoch_num"} <= entries.keys()
    assert any(name.startswith(("moments.", "adam_v.")) for name in entries)
    _assert_near(_logits(run.path, run.images), run.logits if run.averaged is None else run.averaged)
    logged = capsys.readouterr().err
    assert "not used: " in logged
    assert ("averaged weights" in logged) == (run.averaged is not None)
    weights = read_weights(run.path)
    assert (weights.source, weights.shape.num_classes, weights.shape.depth) == ("mindspore", CLASSES, 2)


@pytest.mark.parametrize("kind", ["ema of the zoo", "ema of all"])
def test_the_plain_weights_beside_the_averages(training: Callable[[str], Trained], kind: str) -> None:
    run = training(kind)
    assert run.averaged is not None
    assert np.abs(run.averaged - run.logits).max() > 1e-3 * np.abs(run.logits).max()
    _assert_near(_logits(run.path, run.images, entry="model.network"), run.logits)


@pytest.mark.parametrize("kind", ["model", "ema of the zoo"])
def test_converted_and_read_back_by_mindspore(
    training: Callable[[str], Trained], convmixer: Command, here: Path, kind: str
) -> None:
    import mindspore as ms

    from convmixer.exporters.mindspore_cell import Network

    run = training(kind)
    for layout, name in (("timm", "a.safetensors"), ("mindspore", "a.ckpt"), ("native", "b.safetensors")):
        done = convmixer("convert", run.path, "--to", layout, "--output", name, "--activation", "gelu")
        assert done.code == 0, done.err
    expected = run.logits if run.averaged is None else run.averaged
    _assert_near(_logits(here / "a.safetensors", run.images), expected)
    _assert_near(_logits(here / "b.safetensors", run.images), expected)
    network = Network(architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=CLASSES))
    assert ms.load_checkpoint(str(here / "a.ckpt"), network, strict_load=True)
    _assert_near(network.set_train(False)(ms.Tensor(run.images)).asnumpy(), expected)


def test_training_goes_on_from_it(
    training: Callable[[str], Trained], convmixer: Command, toy: Path, toy_options: Any, here: Path
) -> None:
    """At a rate of almost nothing, so that what is saved is what was read."""
    run = training("model")
    options = toy_options(toy, base_lr=1e-9, warmup_lr=1e-9, min_lr=1e-9, epochs=1, pretrained=run.path)
    done = convmixer("train", *options, "--activation", "gelu")
    assert done.code == 0, done.err
    assert f"weights from {run.path} (mindspore)" in done.err
    (best,) = (here / "runs/best").glob("*/best.safetensors")
    found, start = read_weights(best).state, read_weights(run.path).state
    for name in ("stem.conv.weight", "blocks.1.pointwise.weight"):
        torch.testing.assert_close(found[name], start[name], rtol=1e-4, atol=1e-6)
