"""ONNX files of other programs, written in ONNX's own text form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

Write = Callable[..., Path]


@pytest.fixture
def write_model(tmp_path: Path) -> Write:
    """`write_model("float[1, 3, 8, 8] data", classes="3")`: a model that answers with the means of the channels.

    `before`: a node whose output `ready` takes the input's place.
    """

    def write(
        inputs: str = "float[n, 3, 8, 8] data",
        outputs: str = "float[n, 3] out",
        name: str = "m.onnx",
        before: str = "",
        axes: str = "2, 3",
    ) -> Path:
        first = "ready" if before else inputs.split(",  ")[0].split()[-1]
        model = onnx.parser.parse_model(f"""
            <ir_version: 8, opset_import: ["": 17]>
            channel_means ({inputs}) => ({outputs})
            {{
                {before}
                out = ReduceMean <axes = [{axes}], keepdims = 0> ({first})
            }}
        """)
        onnx.save_model(model, tmp_path / name)
        return tmp_path / name

    return write
