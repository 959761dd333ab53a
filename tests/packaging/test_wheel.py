"""The built wheel, installed into a folder of its own, trains the digits: recipes and data are in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.project import ROOT


@pytest.mark.slow
def test_wheel_trains_the_digits(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    assert subprocess.run(pip, timeout=100).returncode == 0
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    run = [
        sys.executable,
        "-c",
        "import sys, convmixer.cli.main as m; print(m.__file__); sys.exit(m.main(sys.argv[1:]))",
    ]
    done = subprocess.run(
        [*run, "train", "--epochs=1"], cwd=here, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert len(list((here / "runs/best").glob("*/best.safetensors"))) == 1


@pytest.mark.slow
def test_wheel_has_what_it_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {path.name for path in (ROOT / "src/convmixer/configs").glob("*.yaml")} == {
        Path(name).name for name in names if name.startswith("convmixer/configs/")
    }
    assert "convmixer/data/digits.npz" in names
    page = {f"convmixer/web/{path.name}" for path in (ROOT / "src/convmixer/web").glob("*.*")}
    assert "convmixer/web/index.html" in page <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"convmixer"}
