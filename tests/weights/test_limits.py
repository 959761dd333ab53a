"""Files that ask for far more time or memory than they have bytes are refused in seconds, under a limit of 1 GB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.project import SRC_AND_TESTS, project_environment
from tests.weights import hostile

HERE = Path(__file__).parent

TOO_MANY = "than a ConvMixer"
WIDE = "lacks blocks.0.depthwise.bias"
EXPECTED = {
    "members.pth": TOO_MANY,
    "tensors.pth": TOO_MANY,
    "lists.pth": TOO_MANY,
    "tensors.safetensors": TOO_MANY,
    "tensors.ckpt": "holds more than 20,000 tensors",
    "blocks.safetensors": "its 19000 blocks lack their tensors",
    "networks.safetensors": "holds 19000 networks",
    "wide.safetensors": WIDE,
    "model.safetensors": WIDE,
    "dims.ckpt": "more dimensions than fit an array",
    "parts.ckpt": "more parts than any that MindSpore writes",
    "bytearray.pth": "holds a value of another program",
    "paths.pth": "holds a list",
    "sets.pth": "holds a list",
    "dictionaries.pth": "makes dictionaries as torch.save never does",
    "storages.pickle": "unpacks to more than it holds",
    "numbers.pth": "more large numbers than any weights",
    "encoded.pth": "unpacks to more than it holds",
    "copies.pth": "asks to run or build torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "model.safetensors.index.json": "larger than 8 MB",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("hostile")
    hostile.write_all(folder)
    limits = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = project_environment(PYTHONPATH=SRC_AND_TESTS, **limits)
    done = subprocess.run(
        [sys.executable, HERE / "hostile.py", folder], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_is_refused_for_what_it_is(results: list[dict[str, object]]) -> None:
    assert {str(result["file"]) for result in results} == EXPECTED.keys()
    for result in results:
        assert EXPECTED[str(result["file"])] in str(result["outcome"])
    assert {result["use"] for result in results if result["file"] == "wide.safetensors"} == {
        "load_model",
        "resolve_run",
    }


def test_each_takes_less_than_ten_seconds_and_a_gigabyte(results: list[dict[str, object]]) -> None:
    assert max(float(str(result["seconds"])) for result in results) < 10
    assert max(int(str(result["growth"])) for result in results) < 2**30
