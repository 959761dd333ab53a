"""`convmixer push`: the folder that it makes, read by timm and by us, and the upload."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from tests.conftest import Command

from convmixer import load_model
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer, create_model
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights

CLASSES = ClassMap(("lily", "rose", "tulip"))
INPUTS = Preprocessing(size=28, crop_pct=0.9, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3)


def save(model: ConvMixer, path: Path) -> Path:
    write_weights(
        path, model.state_dict(), architecture=model.arch, classes=CLASSES, preprocessing=INPUTS, extra={"top1": 0.75}
    )
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return save(create_model("convmixer_8_2", num_classes=3), tmp_path / "small.safetensors")


def test_timm_loads_the_folder_and_answers_as_we_do(convmixer: Command, here: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = save(create_model("convmixer_1024_20", num_classes=3), tmp_path / "best.safetensors")
    done = convmixer("push", source, "--repo", "me/flowers", "--dry_run")
    assert (done.code, done.err) == (0, "written to flowers\n")
    theirs = timm.create_model(f"local-dir:{here / 'flowers'}", pretrained=True).eval()
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), load_model("flowers")(images), rtol=0, atol=1e-5)
    found = timm.data.resolve_data_config(model=theirs)
    assert tuple(found["input_size"]) == (3, 28, 28)
    assert (found["crop_pct"], found["interpolation"]) == (0.9, "bilinear")
    assert (tuple(found["mean"]), tuple(found["std"])) == (INPUTS.mean, INPUTS.std)
    assert theirs.pretrained_cfg["label_names"] == list(CLASSES.names)


def test_we_read_the_folder_with_all_that_the_file_said(convmixer: Command, small: Path) -> None:
    convmixer("push", small, "--repo", "me/small", "--dry_run", "--output", "folder")
    found = read_weights("folder")
    assert (found.source, found.activation, found.classes, found.preprocessing) == ("timm", "gelu", CLASSES, INPUTS)


def test_a_network_that_timm_cannot_build_is_logged(convmixer: Command, small: Path, here: Path) -> None:
    done = convmixer("push", small, "--repo", "me/small", "--dry_run")
    assert "timm cannot build convmixer_8_2" in done.err
    card = (here / "small/README.md").read_text()
    assert "timm.create_model" not in card
    assert "library_name" not in yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize(
    ("arch", "options", "name"),
    [
        ("convmixer_768_32", {}, "convmixer_768_32"),
        ("convmixer_1024_20", {"num_classes": 7, "in_chans": 1}, "convmixer_1024_20_ks9_p14"),
        ("convmixer_1536_20", {}, "convmixer_1536_20"),
        ("convmixer_768_32", {"activation": "gelu"}, None),
        ("convmixer_1024_20", {"patch_size": 7}, None),
    ],
)
def test_timm_names_only_what_it_builds(arch: str, options: dict[str, Any], name: str | None) -> None:
    from convmixer.arch import architecture
    from convmixer.exporters.hub import timm_name

    assert timm_name(architecture(arch, **options)) == name
    if name is not None:
        assert timm.is_model(name)


def test_the_card_tells_what_was_measured(convmixer: Command, small: Path, here: Path) -> None:
    convmixer("push", small, "--repo", "me/small", "--dry_run", "--license", "mit")
    card = (here / "small/README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert "ConvMixer 8/2, kernel 9, patch 7, activation gelu" in card
    # 8 (3 7 7 + 1) stem + 16 norm + 2 (8 (81 + 1) + 16 + 8 (8 + 1) + 16) blocks + 3 (8 + 1) head
    assert "2,747 parameters" in card
    assert "top-1 on the evaluation images of its training run: 0.7500" in card
    assert "hf download me/small" in card


def test_the_recipe_goes_along_without_the_places_of_this_machine(convmixer: Command, toy_run: Any, here: Path) -> None:
    best, options = toy_run.best / "best.safetensors", toy_run.summary / "config.yaml"
    done = convmixer("push", best, "--repo", "me/toy", "--dry_run", "--recipe", options)
    assert done.code == 0, done.err
    text = (here / "toy/recipe.yaml").read_text()
    assert "base_lr: 0.02" in text
    assert str(toy_run.summary.parents[2]) not in text
    assert "data_url" not in text
    assert "ckpt_root_dir" not in text


def test_weights_without_a_preprocessing_get_imagenets_and_a_note(
    convmixer: Command, here: Path, tmp_path: Path
) -> None:
    torch.save(create_model("convmixer_8_2").state_dict(), tmp_path / "plain.pth")
    done = convmixer("push", tmp_path / "plain.pth", "--repo", "me/a", "--dry_run", "--activation", "gelu")
    assert "says no preprocessing; ImageNet's at 224 pixels" in done.err
    assert json.loads((here / "a/config.json").read_text())["pretrained_cfg"]["crop_pct"] == 0.96


class FakeApi:
    """What push asks of huggingface_hub's HfApi."""

    calls: list[tuple[str, Any]]

    def __init__(self, endpoint: str | None = None) -> None:
        FakeApi.calls = [("endpoint", endpoint)]

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", (repo, private, exist_ok)))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> str:
        self.calls.append(("upload", (repo_id, sorted(path.name for path in folder_path.iterdir()))))
        return f"https://huggingface.co/{repo_id}/commit/1"


def test_upload(convmixer: Command, small: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = convmixer("push", small, "--repo", "me/small", "--private")
    assert (done.code, done.out) == (0, "https://huggingface.co/me/small/commit/1\n")
    assert FakeApi.calls == [
        ("endpoint", "http://127.0.0.1:9"),
        ("create", ("me/small", True, True)),
        ("upload", ("me/small", ["README.md", "config.json", "model.safetensors"])),
    ]
    assert list(here.iterdir()) == []


def test_an_upload_that_fails_is_two_lines(convmixer: Command, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = convmixer("push", small, "--repo", "me/small")
    assert done.code == 1
    assert done.error == ("me/small: cannot be uploaded: [Errno 111] Connection refused.\n`hf auth login` logs in.")


def test_without_huggingface_hub_the_extra_is_named(
    convmixer: Command, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = convmixer("push", small, "--repo", "me/small")
    assert (done.code, done.error) == (
        2,
        "push needs huggingface_hub, which is not installed: pip install 'convmixer[hub]'; --dry_run works without",
    )
    assert convmixer("push", small, "--repo", "me/small", "--dry_run").code == 0


@pytest.mark.parametrize("repo", [None, "small", "me/small/x", "me/sm all"])
def test_a_repository_needs_a_name(convmixer: Command, small: Path, repo: str | None) -> None:
    done = convmixer("push", small, *(() if repo is None else ("--repo", repo)))
    assert done.code == 2
    assert done.error.startswith("--repo: a repository is named user/name")


def test_a_folder_with_something_in_it_is_left_alone(convmixer: Command, small: Path, here: Path) -> None:
    (here / "small").mkdir()
    (here / "small/notes").touch()
    done = convmixer("push", small, "--repo", "me/small", "--dry_run")
    assert (done.code, done.error) == (2, "small: is there already; name an empty or new folder with --output")
