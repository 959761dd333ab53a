"""ExecuTorch's programs: known by their content, refused in a line where damaged or where the package is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from convmixer.backends.model_file import DeviceRequest
from convmixer.backends.opening import detect_format, open_model
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError

HEAD = b"\x3c\x00\x00\x00ET12eh00"


def opened(path: Path) -> None:
    open_model(str(path), lambda record, channels, size=None: record or Preprocessing(), DeviceRequest("CPU"))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(HEAD + bytes(100))
    assert detect_format(path) == "executorch"
    return path


def test_without_the_package(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(UserError, match=r"needs executorch, .*: pip install 'convmixer\[executorch\]'"):
        opened(damaged)


def test_a_damaged_file(damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("executorch", reason="EXECUTORCH needs executorch")
    with pytest.raises(UserError, match="ExecuTorch cannot load it"):
        opened(damaged)
    assert "program.cpp" not in capfd.readouterr().err
