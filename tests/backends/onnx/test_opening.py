"""What a file holds is told by its content first."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.backends.onnx.conftest import Write

from convmixer.backends.opening import detect_format


def test_an_onnx_file_by_any_name(write_model: Write) -> None:
    assert detect_format(write_model(name="model.bin")) == "onnx"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("model.bin", b"\x0a\x050.1.0\x12\x09MindSpore", "mindir"),
        ("model.mindir", b"damaged", "mindir"),
        ("model.onnx", b"damaged", "onnx"),
        ("model.onnx", b"", "onnx"),
        ("model.pth", b"\x80\x02}q", "weights"),
        # A MindSpore checkpoint begins with the same byte as a MINDIR file.
        ("model.ckpt", b"\x0a\x20\x0a\x0aglobal_step\x12", "weights"),
    ],
)
def test_other_files(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect_format(tmp_path / name) == kind


def test_what_is_no_file_is_left_to_the_readers(tmp_path: Path) -> None:
    (tmp_path / "step_1.onnx").mkdir()
    assert detect_format(tmp_path / "step_1.onnx") == "weights"
    assert detect_format(tmp_path / "missing.onnx") == "onnx"
    assert detect_format(tmp_path / "convmixer_768_32.in1k") == "weights"
