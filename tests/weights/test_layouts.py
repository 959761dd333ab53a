"""Names against lists written out by hand from the authors' module, timm's module and a MindSpore file."""

from __future__ import annotations

import subprocess
import sys

import pytest

from convmixer.weights.layouts import from_native, networks

OURS = ["stem.conv", "stem.norm", "blocks.0.depthwise", "blocks.0.depthwise_norm", "blocks.0.pointwise"]
OURS += ["blocks.0.pointwise_norm", "blocks.1.depthwise", "blocks.1.depthwise_norm", "blocks.1.pointwise"]
OURS += ["blocks.1.pointwise_norm", "head"]
MODULES = {
    "authors": ["0", "2", "3.0.fn.0", "3.0.fn.2", "3.1", "3.3", "4.0.fn.0", "4.0.fn.2", "4.1", "4.3", "7"],
    "timm": [
        *["stem.0", "stem.2", "blocks.0.0.fn.0", "blocks.0.0.fn.2", "blocks.0.1", "blocks.0.3"],
        *["blocks.1.0.fn.0", "blocks.1.0.fn.2", "blocks.1.1", "blocks.1.3", "head"],
    ],
}
TORCH_NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
MINDSPORE_NORM = ["gamma", "beta", "moving_mean", "moving_variance"]


def parameters(modules: list[str], norm: list[str], prefix: str = "") -> list[str]:
    """Names of all tensors: `norm` for the modules that are BatchNorm, by their place in the list, else two."""
    names = []
    for ours, module in zip(OURS, modules, strict=True):
        names += [f"{prefix}{module}.{part}" for part in (norm if ours.endswith("norm") else ["weight", "bias"])]
    return names


@pytest.mark.parametrize("layout", ["authors", "timm"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "network.", "net.0.model."])
def test_torch_layouts(layout: str, prefix: str) -> None:
    theirs, ours = parameters(MODULES[layout], TORCH_NORM, prefix), parameters(OURS, TORCH_NORM)
    (found,) = networks(theirs)
    assert (found.prefix, found.layout, found.names) == (prefix, layout, dict(zip(theirs, ours, strict=True)))
    assert found.whole
    if not prefix:
        assert from_native(ours, layout, 2) == dict(zip(ours, theirs, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["network.", "model.network.", ""])
def test_mindspore_layout_leaves_the_trainers_entries_out(prefix: str) -> None:
    theirs, ours = parameters(MODULES["authors"], MINDSPORE_NORM, prefix), parameters(OURS, TORCH_NORM[:4])
    trained = [name for name in theirs if "moving" not in name]
    copies = [f"{kind}.{name}" for kind in ("moment1", "adam_v", "_ema_weights") for name in trained]
    others = ["learning_rate", "epoch_num", "step_num", "scale_sense", "beta1_power", "global_step"]
    found = networks([*copies, *theirs, *others])
    (whole,) = [network for network in found if network.whole]
    assert (whole.layout, whole.names) == ("mindspore", dict(zip(theirs, ours, strict=True)))
    assert {network.prefix for network in found} == {
        prefix,
        f"moment1.{prefix}",
        f"adam_v.{prefix}",
        f"_ema_weights.{prefix}",
    }
    if prefix == "network.":
        back = from_native(parameters(OURS, TORCH_NORM), "mindspore", 2)
        assert back == dict(zip(ours, theirs, strict=True))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_our_own_layout(prefix: str) -> None:
    names = parameters(OURS, TORCH_NORM)
    (found,) = networks([prefix + name for name in names])
    assert (found.layout, found.names) == ("native", {prefix + name: name for name in names})
    assert from_native(names, "native", 2) == {name: name for name in names}


@pytest.mark.parametrize("stem", ["stem", "patch_embed"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("backbone", ["backbone.", ""])
def test_mmpretrain(stem: str, prefix: str, backbone: str) -> None:
    """Names of its backbones.ConvMixer and LinearClsHead; a backbone alone has no `backbone.`."""
    modules = [f"{backbone}{stem}.0", f"{backbone}{stem}.2"]
    modules += [f"{backbone}stages.{i}.{part}" for i in range(2) for part in ("0.fn.0", "0.fn.2", "1", "3")]
    theirs, ours = parameters([*modules, "head.fc"], TORCH_NORM, prefix), parameters(OURS, TORCH_NORM)
    (found,) = networks(theirs)
    assert (found.prefix, found.layout, found.names) == (prefix, "mmpretrain", dict(zip(theirs, ours, strict=True)))


def test_an_authors_network_whose_head_stands_elsewhere_or_that_is_called_blocks() -> None:
    modules = [*MODULES["authors"][:-1], "8"]  # a dropout stands before the head
    theirs, ours = parameters(modules, TORCH_NORM, "blocks."), parameters(OURS, TORCH_NORM)
    (found,) = networks(theirs)
    assert (found.prefix, found.layout, found.names) == ("blocks.", "authors", dict(zip(theirs, ours, strict=True)))


def test_several_networks_keep_their_names_apart() -> None:
    names = parameters(MODULES["timm"], TORCH_NORM)
    found = networks([f"{who}.{name}" for who in ("student", "teacher.module") for name in names])
    assert [(network.prefix, len(network.names)) for network in found] == [
        ("student.", len(names)),
        ("teacher.module.", len(names)),
    ]


def test_more_networks_than_are_reported_apart() -> None:
    with pytest.raises(ValueError, match="holds 17 networks"):
        networks([f"m{i}.3.0.fn.0.weight" for i in range(17)])


def test_other_networks_are_not_taken_for_a_convmixer() -> None:
    assert networks(["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]) == []
    assert networks(["features.0.weight", "features.3.weight", "classifier.1.weight"]) == []
    assert networks(["blocks.0.attn.qkv.weight", "blocks.0.norm1.weight", "head.weight"]) == []
    assert networks(["layers.0.depthwise.weight", "layers.0.pointwise.weight", "fc.weight"]) == []
    assert networks([]) == []


def test_unknown_and_doubled_names_keep_their_own() -> None:
    (found,) = networks(["0.weight", "00.weight", "3.0.fn.0.weight", "99.weight", "3.0.fn.7.weight", "module.0.weight"])
    mapped = ["stem.conv.weight", "00.weight", "blocks.0.depthwise.weight", "99.weight", "3.0.fn.7.weight"]
    assert list(found.names.values()) == mapped
    assert found.beside == ("module.0.weight",)


def test_names_and_mindspore_files_need_no_torch() -> None:
    code = "import sys, convmixer.weights.layouts, convmixer.weights.mindspore_ckpt; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
