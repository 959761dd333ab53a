"""Where the kernels do not apply torch's convolution answers, and the reason is said once."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

from convmixer.kernels import limits
from convmixer.kernels.depthwise import depthwise_conv2d

pytestmark = pytest.mark.skipif(limits._INTERPRETED, reason="in the interpreter the kernels apply to CPU tensors")


@pytest.fixture(autouse=True)
def _nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_logged", set())


def test_on_a_cpu_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    x, weight, bias = torch.randn(2, 3, 5, 7), torch.randn(3, 1, 5, 5), torch.randn(3)
    for _ in range(2):
        assert torch.equal(depthwise_conv2d(x, weight, bias), conv2d(x, weight, bias, padding="same", groups=3))
    assert capsys.readouterr().err == (
        "depthwise convolution: torch's own instead of our kernels: they need a CUDA GPU, this is cpu\n"
    )


# torch says that an even side costs it a copy.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("shape", "k", "dtype", "reason"),
    [
        ((1, 2, 4, 4), 4, torch.float32, "side 3, 5, 7, 9, this has 4"),
        ((1, 2, 4, 4), 11, torch.float32, "this has 11"),
        ((1, 2, 4, 4), 3, torch.float64, "fp16, bf16 and fp32, this is torch.float64"),
    ],
)
def test_reasons(
    shape: tuple[int, ...],
    k: int,
    dtype: torch.dtype,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(limits, "_INTERPRETED", True)
    monkeypatch.setattr(limits, "_TRITON", True)
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(2, 1, k, k, dtype=dtype)
    assert torch.equal(depthwise_conv2d(x, weight), conv2d(x, weight, padding="same", groups=2))
    assert reason in capsys.readouterr().err


def test_channels_last(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(limits, "_INTERPRETED", True)
    monkeypatch.setattr(limits, "_TRITON", True)
    x = torch.randn(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    out = depthwise_conv2d(x, torch.randn(3, 1, 3, 3))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert "channels_last" in capsys.readouterr().err


def test_without_triton(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(limits, "_TRITON", False)
    depthwise_conv2d(torch.randn(1, 2, 4, 4), torch.randn(2, 1, 3, 3))
    assert "Triton is not installed" in capsys.readouterr().err


def test_under_autocast_the_result_has_its_type() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = depthwise_conv2d(torch.randn(1, 2, 4, 4), torch.randn(2, 1, 3, 3), torch.randn(2))
    assert out.dtype == torch.bfloat16


def test_torch_compile_traces_the_fallback_in_one_graph(capsys: pytest.CaptureFixture[str]) -> None:
    x, weight = torch.randn(2, 3, 5, 7), torch.randn(3, 1, 5, 5)
    compiled = torch.compile(depthwise_conv2d, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, weight), depthwise_conv2d(x, weight))
    assert capsys.readouterr().err.count("\n") == 1
