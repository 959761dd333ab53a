"""The notebook runs from its first to its last cell, and what it is stored with is what it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.project import ROOT, SRC

NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cells: list[dict[str, Any]]) -> str:
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell["outputs"])


def kinds(cells: list[dict[str, Any]]) -> list[list[str]]:
    """What each cell shows: the names of its outputs' media types, or `text`."""
    return [sorted({kind for output in cell["outputs"] for kind in output.get("data", {"text": ""})}) for cell in cells]


def test_it_is_stored_as_it_was_run_and_small() -> None:
    cells = code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert NOTEBOOK.stat().st_size < 200_000
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/tmp/|/home/|/root/|/work/", text)
    assert '"output_type": "error"' not in text


@pytest.mark.slow
def test_its_cells_train_look_and_export(tmp_path: Path) -> None:
    paths = [str(SRC), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(ROOT / "scripts/run_tutorial.py"), str(tmp_path / "run.ipynb")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    cells = code_cells(tmp_path / "run.ipynb")
    text = printed(cells)
    assert kinds(cells) == kinds(code_cells(NOTEBOOK))
    trained, evaluated, exported = re.findall(r"(?:accuracy:|top-1|file:) ([\d.]+)%", text)
    assert trained == evaluated == exported
    assert float(trained) >= 98.0
    assert "same class on 100% of 32 images" in text
    assert "same digits: True" in text
    assert "probabilities less than 0.00001 apart: True" in text
