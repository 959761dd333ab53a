"""Inputs that fuzzing found, each of which once crashed, hung, filled the memory or broke the terminal's line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.project import SRC_AND_TESTS, project_environment

from convmixer.arch import Architecture
from convmixer.config.command import Command
from convmixer.config.loading import parse
from convmixer.config.schema import Config
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.sources.cifar10 import open_cifar10
from convmixer.errors import UserError
from convmixer.metadata import KEY
from convmixer.model import ConvMixer
from convmixer.policies.spec import parse_policy
from convmixer.training.checkpointing.checkpoint import find_damage
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights

TRAIN = Command("train", "", Config, takes_config=True)
ARCHITECTURE = Architecture(8, 2, kernel_size=3, patch_size=2, num_classes=3)


def refusal(call: Callable[..., object], *given: object) -> str:
    """The message that refuses it, fit for a terminal."""
    with pytest.raises(UserError) as caught:
        call(*given)
    message = str(caught.value)
    assert len(message) < 4000
    lines = message.split("\n")
    assert len(lines) <= 2
    assert all(line.isprintable() for line in lines)
    return message


def recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return refusal(parse, TRAIN, ["--config", str(path)])


@pytest.mark.parametrize("text", ["[" * 3000, "{a: " * 3000, "epochs: " + "[" * 3000])
def test_yaml_nested_too_deeply(tmp_path: Path, text: str) -> None:
    assert "nested too deeply" in recipe(tmp_path, text)


@pytest.mark.parametrize("value", ["2001-99-99", "1" * 5000, "2001-12-14t21:59:43.10-99:00"])
def test_yaml_values_that_its_reader_cannot_make(tmp_path: Path, value: str) -> None:
    assert "not valid YAML: " in recipe(tmp_path, f"epochs: {value}")


def test_yaml_aliases_that_stand_for_more_than_any_memory(tmp_path: Path) -> None:
    bomb = "\n  - &a0 [x, x]\n" + "".join(f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 6)}]\n" for i in range(1, 23))
    for key in ("arch", "beta", "data_url"):
        assert f"{key}: expected a single value" in recipe(tmp_path, f"{key}:{bomb}")
    assert "expected a single value" in recipe(tmp_path, "beta: &a [*a]\n")


def test_yaml_numbers_of_more_digits_than_python_prints(tmp_path: Path) -> None:
    for key in ("arch", "epochs", "base_lr"):
        assert "more than 63 bits" in recipe(tmp_path, f"{key}: 0x{'f' * 5000}")
    assert "more than 63 bits" in recipe(tmp_path, f"beta: [0.9, -0x{'f' * 5000}]")


def test_yaml_that_is_no_recipe_by_its_size(tmp_path: Path) -> None:
    assert "larger than 64 KiB" in recipe(tmp_path, "# " + "x" * 70_000)


def test_yaml_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for tag in ("apply", "new"):
        assert "not valid YAML" in recipe(tmp_path, f"epochs: !!python/object/{tag}:posix.mkdir [ran]\n")
    assert not (tmp_path / "ran").exists()


def test_control_characters_never_reach_the_terminal(tmp_path: Path) -> None:
    assert r"\x1b[31m" in refusal(parse, TRAIN, ["-\x1b[31m"])
    assert r"\x07" in refusal(parse, TRAIN, ["--epochs=\x07"])
    assert r"a\x1bb" in recipe(tmp_path, '"a\\eb": 1\n')
    refusal(parse, TRAIN, ["--config", "a\n\n\nb"])
    refusal(parse, TRAIN, ["--" + "x" * 100_000])


def test_a_pickled_name_never_reaches_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(b"\x80\x02cposix\nmkd\x0cr\nX\x03\x00\x00\x00ran\x85R.")
    with pytest.raises(UserError) as caught:
        open_cifar10(str(tmp_path), train=False)
    assert r"posix.mkd\x0cr" in str(caught.value)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return ConvMixer(ARCHITECTURE).state_dict()


def test_a_record_nested_too_deeply(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "w", {KEY: "[" * 100_000})
    assert "its record is malformed" in refusal(read_weights, tmp_path / "w")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 10**9},
        {"size": 0},
        {"size": "8"},
        {"crop_pct": 1e-300},
        {"crop_pct": float("nan")},
        {"interpolation": "magic"},
        {"mean": (0.5,) * 2},
        {"mean": ()},
        {"std": (0.0, 1.0, 1.0)},
        {"std": ("a", "b", "c")},
        {"exif": 3},
    ],
)
def test_preprocessing_that_no_image_can_be_brought_to(
    tmp_path: Path, state: dict[str, torch.Tensor], changes: dict[str, object]
) -> None:
    """With the right SHA-256, as whoever makes a hostile file can compute it."""
    hostile = Preprocessing(**{"size": 8, **changes})  # type: ignore[arg-type]
    write_weights(tmp_path / "w", state, architecture=ARCHITECTURE, preprocessing=hostile)
    assert "its record is malformed" in refusal(read_weights, tmp_path / "w")


@pytest.mark.parametrize("value", [[], [3], "x", 3, None])
def test_preprocessing_that_is_no_mapping(value: object) -> None:
    with pytest.raises(TypeError):
        Preprocessing.from_dict(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["[" * 100_000, '{"files": ' * 20_000, '{"files": {"a": 3}}', '{"files": 3}', "{}"])
def test_manifests_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert find_damage(tmp_path) == "manifest.json is missing or broken"


def test_a_name_in_a_manifest_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b"):
        files = {name: {"bytes": 1, "sha256": ""}}
        (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "step": 1, "files": files}))
        assert find_damage(tmp_path) is not None


@pytest.mark.parametrize("spec", ["n" + "9" * 400, "n100000000", "m" + "9" * 400, "mmax" + "9" * 400, "m٣", "m²"])
def test_policies_of_numbers_beyond_all_bounds(spec: str) -> None:
    refusal(parse_policy, f"rand-{spec}")


def test_small_files_of_many_pixels_fill_no_more_memory_than_they_must(tmp_path: Path) -> None:
    """A transparent palette of 9,000 x 9,000 pixels in 10 kB once took 13 bytes a pixel, and takes 5."""
    Image.new("P", (9000, 9000)).save(tmp_path / "bomb.png", transparency=0)
    content = (tmp_path / "bomb.png").read_bytes()
    assert len(content) < 12_000
    program = (
        "import sys; from convmixer.data.decode import decode_image; from tests.fuzz.guard import peak\n"
        "content = sys.stdin.buffer.read()\n"
        "before = peak(); decode_image(content); print(peak() - before)"
    )
    environment = project_environment(PYTHONPATH=SRC_AND_TESTS)
    done = subprocess.run(
        [sys.executable, "-c", program], input=content, capture_output=True, env=environment, check=True
    )
    assert 81 * 10**6 < int(done.stdout) < 512 * 2**20
