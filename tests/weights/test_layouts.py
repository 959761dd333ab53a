"""Names against lists written out by hand from the authors' module, timm's module and a MindSpore file."""

from __future__ import annotations

import subprocess
import sys

import pytest

from convmixer.weights.layouts import from_ours, to_ours

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
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "network."])
def test_torch_layouts(layout: str, prefix: str) -> None:
    theirs, ours = parameters(MODULES[layout], TORCH_NORM, prefix), parameters(OURS, TORCH_NORM)
    assert to_ours(theirs) == (layout, dict(zip(theirs, ours, strict=True)))
    if not prefix:
        assert from_ours(ours, layout, 2) == dict(zip(ours, theirs, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["network.", ""])
def test_mindspore_layout_leaves_the_trainers_entries_out(prefix: str) -> None:
    theirs, ours = parameters(MODULES["authors"], MINDSPORE_NORM, prefix), parameters(OURS, TORCH_NORM[:4])
    moments = [f"moment1.{name}" for name in theirs] + [f"adam_v.{name}" for name in theirs]
    others = ["learning_rate", "epoch_num", "step_num", "scale_sense", "beta1_power", "global_step"]
    assert to_ours([*moments, *theirs, *others]) == ("mindspore", dict(zip(theirs, ours, strict=True)))
    if prefix:
        back = from_ours(parameters(OURS, TORCH_NORM), "mindspore", 2)
        assert back == dict(zip(ours, theirs, strict=True))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_our_own_layout(prefix: str) -> None:
    names = parameters(OURS, TORCH_NORM)
    assert to_ours([prefix + name for name in names]) == ("ours", {prefix + name: name for name in names})
    assert from_ours(names, "ours", 2) == {name: name for name in names}


def test_other_networks_are_not_taken_for_a_convmixer() -> None:
    assert to_ours(["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]) is None
    assert to_ours(["features.0.weight", "features.3.weight", "classifier.1.weight"]) is None
    assert to_ours(["blocks.0.attn.qkv.weight", "blocks.0.norm1.weight", "head.weight"]) is None
    assert to_ours([]) is None


def test_unknown_and_doubled_names_keep_their_own() -> None:
    names = ["0.weight", "module.0.weight", "3.0.fn.0.weight", "99.weight", "3.0.fn.7.weight"]
    found = to_ours(names)
    assert found is not None
    mapped = ["stem.conv.weight", "module.0.weight", "blocks.0.depthwise.weight", "99.weight", "3.0.fn.7.weight"]
    assert list(found[1].values()) == mapped


def test_names_and_mindspore_files_need_no_torch() -> None:
    code = "import sys, convmixer.weights.layouts, convmixer.weights.mindspore_ckpt; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
