"""Folders as timm and transformers put them on the hub: config.json beside the weights, weights in several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.weights.conftest import MakeModel, as_timm

from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.weights.read import read_weights

# As timm 1.0 writes it (timm/models/_hub.py), for three classes.
CONFIG: dict[str, Any] = {
    "architecture": "convmixer_768_32",
    "num_classes": 3,
    "num_features": 8,
    "label_names": ["eel", "cat", "dog"],
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.25, 0.125],
        "std": [0.1, 0.2, 0.3],
        "num_classes": 3,
        "first_conv": "stem.0",
        "classifier": "head",
    },
}
INPUTS = Preprocessing(64, 0.9, "bilinear", (0.5, 0.25, 0.125), (0.1, 0.2, 0.3), exif=False)


@pytest.fixture
def state(tiny: MakeModel) -> dict[str, torch.Tensor]:
    return tiny(num_classes=3).state_dict()


@pytest.fixture
def hub(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A folder of timm's with a ConvMixer 8/2."""
    safetensors.torch.save_file(as_timm(state), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.mark.parametrize("named", ["", "model.safetensors"])
def test_preprocessing_and_names_of_timms_config(hub: Path, named: str) -> None:
    weights = read_weights(hub / named)
    assert weights.preprocessing == INPUTS
    assert weights.classes is not None
    assert weights.classes.names == ("eel", "cat", "dog")


def test_a_file_of_another_name_has_nothing_to_do_with_the_config(hub: Path) -> None:
    (hub / "model.safetensors").rename(hub / "mine.safetensors")
    assert read_weights(hub / "mine.safetensors").preprocessing is None


def test_transformers_wrapper(hub: Path, state: dict[str, torch.Tensor]) -> None:
    """TimmWrapperForImageClassification: its prefix, its names by number, what timm says in the same place."""
    safetensors.torch.save_file(as_timm(state, "timm_model."), hub / "model.safetensors")
    labels = {str(i): name for i, name in enumerate(CONFIG["label_names"])}
    config = {"model_type": "timm_wrapper", **CONFIG, "id2label": labels, "label_names": None}
    (hub / "config.json").write_text(json.dumps(config))
    weights = read_weights(hub)
    assert weights.preprocessing == INPUTS
    assert weights.classes is not None
    assert weights.classes.names == ("eel", "cat", "dog")
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(3)}
    (hub / "config.json").write_text(json.dumps(config))
    assert read_weights(hub).classes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: not used: no valid JSON"),
        ("[" * 100_000, "config.json: not used: no valid JSON"),
        ("[]", "config.json: not used: no JSON object"),
        (
            json.dumps({**CONFIG, "pretrained_cfg": {"input_size": [3, 64, 32]}}),
            "preprocessing is not used: input_size",
        ),
        (json.dumps({**CONFIG, "pretrained_cfg": {"mean": "0.5"}}), "its preprocessing is not used"),
        (json.dumps({**CONFIG, "pretrained_cfg": {"mean": [0.5], "std": [0.5]}}), "it is for 1 channels"),
        (json.dumps({**CONFIG, "pretrained_cfg": {"crop_pct": 1e-9}}), "out of bounds"),
        (json.dumps({**CONFIG, "pretrained_cfg": {"interpolation": "random"}}), "interpolation or std"),
        (
            json.dumps({**CONFIG, "label_names": ["a", "b"]}),
            "class names are not used: there are 2, the weights have 3",
        ),
        (json.dumps({**CONFIG, "label_names": ["a", "b", "a"]}), "some are there twice"),
        (json.dumps({**CONFIG, "label_names": [1, 2, 3]}), "they are no list of texts"),
    ],
)
def test_a_malformed_config_is_left_out_and_logged(
    hub: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (hub / "config.json").write_text(text)
    weights = read_weights(hub)
    assert message in capsys.readouterr().err
    assert weights.preprocessing is None or weights.classes is None


def test_missing_fields_are_the_defaults(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hub / "config.json").write_text(json.dumps({"pretrained_cfg": {"input_size": [3, 96, 96]}}))
    assert read_weights(hub).preprocessing == Preprocessing(96)
    (hub / "config.json").write_text("{}")
    weights = read_weights(hub)
    assert (weights.preprocessing, weights.classes, capsys.readouterr().err) == (None, None, "")


def test_the_activation_of_the_models_arguments(hub: Path) -> None:
    (hub / "config.json").write_text(json.dumps({**CONFIG, "model_args": {"act_layer": "relu"}}))
    assert read_weights(hub).activation == "relu"


def split(hub: Path, state: dict[str, torch.Tensor], kind: str) -> Path:
    """The weights in two files with an index, as transformers' save_pretrained splits them."""
    (hub / "model.safetensors").unlink()
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names, tensors = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)], as_timm(state)
    places: dict[str, str] = {}
    for i, shard in enumerate(names):
        held = {name: tensor for k, (name, tensor) in enumerate(tensors.items()) if k % 2 == i}
        places |= dict.fromkeys(held, shard)
        if kind == "safetensors":
            safetensors.torch.save_file(held, hub / shard)
        else:
            torch.save(held, hub / shard)
    index = hub / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("by_folder", [True, False])
def test_weights_in_several_files(hub: Path, state: dict[str, torch.Tensor], kind: str, by_folder: bool) -> None:
    index = split(hub, state, kind)
    weights = read_weights(hub if by_folder else index)
    assert weights.preprocessing == INPUTS
    assert weights.state.keys() == state.keys()
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index, places: places.update({"head.weight": "../other.safetensors"}), "names files of other folders"),
        (lambda index, places: places.update({"head.weight": "/etc/passwd"}), "names files of other folders"),
        (
            lambda index, places: places.update({"head.weight": "absent.safetensors"}),
            "absent.safetensors: no such file",
        ),
        (lambda index, places: places.update({"extra": "model-00001-of-00002.safetensors"}), "extra is not in model-0"),
        (lambda index, places: places.update({"head.weight": ["a"]}), "it has no weight_map"),
        (lambda index, places: places.update({f"w{i}": f"{i}.bin" for i in range(300)}), "names 302 files"),
    ],
)
def test_an_index_that_cannot_be_used(hub: Path, state: dict[str, torch.Tensor], change: Any, message: str) -> None:
    index = split(hub, state, "safetensors")
    content = json.loads(index.read_text())
    change(index, content["weight_map"])
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_weights(hub)
    assert "\n" not in str(caught.value)
