"""From file to model: what the file does not say is taken or asked for, what does not fit is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.weights.conftest import MakeModel

from convmixer.api.classifier import load_model
from convmixer.arch import VARIANTS, Activation, Architecture, ArchitectureHints, Shape
from convmixer.errors import UserError
from convmixer.weights.layouts import Layout
from convmixer.weights.load import complete, load_into
from convmixer.weights.read import WeightFile, read_weights
from convmixer.weights.write import write_layout, write_weights

DATA = Path(__file__).parent / "data"


def weight_file(arch: Architecture, activation: Activation | None = None, source: Layout = "authors") -> WeightFile:
    """A file of that shape, without its tensors."""
    return WeightFile({}, Shape.of(arch), activation, None, None, source, Path("w.pth"))


def test_load_model_gives_back_the_function(tmp_path: Path, tiny: MakeModel) -> None:
    model, path = tiny(activation="relu", in_chans=1), tmp_path / "w"
    write_weights(path, model.state_dict(), architecture=model.arch)
    generator = torch.get_rng_state()
    loaded = load_model(path)
    assert torch.equal(torch.get_rng_state(), generator)
    assert loaded.arch == model.arch
    assert not loaded.training
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    loaded.train()(images).sum().backward()
    assert loaded.stem.conv.weight.grad is not None


def test_mindspores_logits() -> None:
    """The tanh form of GELU gives what the real MindSpore computed; the exact one does not."""
    expected = np.load(DATA / "tiny_mindspore.npz")
    images, logits = torch.from_numpy(expected["images"]), torch.from_numpy(expected["logits"])
    with torch.no_grad():
        tanh = load_model(DATA / "tiny_mindspore.ckpt", "convmixer_8_2")(images)
        exact = load_model(DATA / "tiny_mindspore.ckpt", activation="gelu")(images)
    max_value = logits.abs().max()
    assert (tanh - logits).abs().max() < 1e-6 * max_value
    assert (exact - logits).abs().max() > 3e-5 * max_value


@pytest.mark.parametrize("name", VARIANTS)
def test_named_variants_are_known_by_their_shapes(name: str) -> None:
    weights = weight_file(dataclasses.replace(VARIANTS[name], num_classes=17, in_chans=1))
    arch, notes = complete(weights)
    assert arch == dataclasses.replace(VARIANTS[name], num_classes=17, in_chans=1)
    assert name in notes[0]
    assert arch.activation in notes[0]


def test_where_the_activation_comes_from() -> None:
    other = Architecture(768, 32, kernel_size=9, patch_size=7)
    with pytest.raises(UserError, match=r"kernel 9, patch 7\) does not say its activation; give --activation \(relu"):
        complete(weight_file(other))
    assert complete(weight_file(other), ArchitectureHints(activation="relu"))[0].activation == "relu"
    assert complete(weight_file(other, "gelu_tanh"))[0].activation == "gelu_tanh"
    # The file knows better than a name, but an option that contradicts it is a mistake.
    assert (
        complete(weight_file(VARIANTS["convmixer_768_32"], "gelu"), ArchitectureHints("convmixer_768_32"))[0].activation
        == "gelu"
    )
    with pytest.raises(UserError, match="trained with activation gelu, not relu"):
        complete(weight_file(other, "gelu"), ArchitectureHints(activation="relu"))
    with pytest.raises(UserError, match="'swish' is none of relu, gelu, gelu_tanh"):
        complete(weight_file(other), ArchitectureHints(activation="swish"))  # type: ignore[arg-type]
    small = Architecture(256, 8, kernel_size=5, patch_size=2)
    assert complete(weight_file(small), ArchitectureHints("convmixer_256_8"))[0] == small


def test_gelu_of_mindspore_is_the_tanh_form() -> None:
    large, relu = VARIANTS["convmixer_1536_20"], VARIANTS["convmixer_768_32"]
    arch, notes = complete(weight_file(large, source="mindspore"))
    assert arch.activation == "gelu_tanh"
    assert "tanh" in notes[-1]
    assert (
        complete(weight_file(large, source="mindspore"), ArchitectureHints("convmixer_1536_20"))[0].activation
        == "gelu_tanh"
    )
    assert (
        complete(weight_file(large, source="mindspore"), ArchitectureHints(activation="gelu"))[0].activation == "gelu"
    )
    assert complete(weight_file(relu, source="mindspore"))[0].activation == "relu"
    assert complete(weight_file(large))[0].activation == "gelu"


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("convmixer_768_31", {}, r"those of convmixer_768_32 \(kernel 9, patch 7\), not of convmixer_768_31"),
        ("convmixer_768_32", {}, r"those of convmixer_768_32 \(kernel 9, patch 7\), not of convmixer_768_32"),
        ("convmixer_768_32_ks9_p8", {}, "not of convmixer_768_32_ks9_p8"),
        (None, {"num_classes": 10}, "its num_classes is 1000, not 10 as asked for"),
        (None, {"kernel_size": 7}, "its kernel_size is 9, not 7 as asked for"),
        ("resnet50", {}, "'resnet50' is not a ConvMixer"),
    ],
)
def test_contradictions_name_both_sides(arch: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        complete(weight_file(Architecture(768, 32, kernel_size=9, patch_size=7)), ArchitectureHints(arch, **options))


def test_agreement_is_no_contradiction() -> None:
    weights = weight_file(Architecture(768, 32, kernel_size=9, patch_size=7))
    complete(weights, ArchitectureHints("convmixer_768_32_ks9_p7", num_classes=1000))
    complete(weights, ArchitectureHints("convmixer_768_32", kernel_size=9, in_chans=None))
    complete(weight_file(Architecture(768, 32, kernel_size=9), "relu"), ArchitectureHints("convmixer_768_32"))


def read_back(tmp_path: Path, state: dict[str, torch.Tensor]) -> WeightFile:
    torch.save(state, tmp_path / "w.pth")
    return read_weights(tmp_path / "w.pth")


def test_a_missing_or_added_name_is_refused_with_both_lists(tmp_path: Path, tiny: MakeModel) -> None:
    model = tiny()
    state = model.state_dict()
    del state["blocks.1.pointwise.bias"]
    state["blocks.1.pointwise.scale\n"] = torch.zeros(8)
    weights = read_back(tmp_path, state)
    with pytest.raises(UserError) as caught:
        load_into(model, weights)
    lists = "lacks blocks.1.pointwise.bias; adds 'blocks.1.pointwise.scale\\n'."
    assert str(caught.value) == f"{tmp_path / 'w.pth'}: {lists}"

    deeper = tiny(depth=3)
    with pytest.raises(UserError, match=r"adds blocks.2.depthwise.bias, .* and 8 more\.$"):
        load_into(model, read_back(tmp_path, deeper.state_dict()))


def test_shapes_and_kinds_that_do_not_fit_are_named(tmp_path: Path, tiny: MakeModel) -> None:
    model = tiny()
    state = {**model.state_dict(), "blocks.0.pointwise.bias": torch.zeros(9)}
    with pytest.raises(UserError, match=r"holds blocks.0.pointwise.bias float \[9\], not float \[8\]"):
        load_into(model, read_back(tmp_path, state))
    state = {**model.state_dict(), "head.bias": torch.zeros(10, dtype=torch.int32)}
    with pytest.raises(UserError, match=r"holds head.bias integer \[10\], not float \[10\]"):
        load_into(model, read_back(tmp_path, state))


def test_a_small_file_that_claims_a_huge_network_takes_no_memory(tmp_path: Path) -> None:
    """A stem of a million channels asks for pointwise convolutions of 4 TB."""
    state = {"0.weight": torch.zeros(10**6, 1, 1, 1), "3.0.fn.0.weight": torch.zeros(1, 1, 3, 3)}
    torch.save({**state, "6.weight": torch.zeros(2, 1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"lacks .* and \d+ more; adds nothing\."):
        load_model(tmp_path / "w.pth", activation="relu")


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path: Path, tiny: MakeModel) -> None:
    model, other = tiny(seed=1), tiny(seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {**other.state_dict(), "head.bias": torch.zeros(9)}
    with pytest.raises(UserError):
        load_into(model, read_back(tmp_path, state))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("layout", ["native", "authors", "timm", "mindspore"])
def test_a_head_of_another_size(tmp_path: Path, tiny: MakeModel, layout: Layout) -> None:
    pretrained, model = tiny(seed=1, num_classes=1000), tiny(seed=2, num_classes=10)
    write_layout(tmp_path / "w", pretrained.state_dict(), layout, architecture=pretrained.arch)
    weights, head = read_weights(tmp_path / "w"), model.head.weight.clone()
    with pytest.raises(UserError, match="its head has 1000 classes, the model 10"):
        load_into(model, weights)
    (note,) = load_into(model, weights, replace_head=True)
    assert "1000" in note
    assert "10." in note
    assert torch.equal(model.head.weight, head)
    assert torch.equal(
        model.state_dict()["blocks.1.pointwise.weight"], pretrained.state_dict()["blocks.1.pointwise.weight"]
    )


def test_a_head_that_fits_is_kept(tmp_path: Path, tiny: MakeModel) -> None:
    pretrained, model = tiny(seed=1), tiny(seed=2)
    weights = read_back(tmp_path, pretrained.state_dict())
    assert load_into(model, weights, replace_head=True) == []
    assert torch.equal(model.head.weight, pretrained.head.weight)


def test_half_precision_files_fill_a_float32_model(tmp_path: Path, tiny: MakeModel) -> None:
    model = tiny(seed=1)
    weights = read_back(tmp_path, tiny(seed=2).half().state_dict())
    load_into(model, weights)
    assert model.stem.conv.weight.dtype is torch.float32
    assert torch.equal(model.stem.conv.weight, weights.state["stem.conv.weight"].float())
