"""The depthwise operator against torch's convolution and its gradients in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.kernels.device.conftest import Near
from torch.nn.functional import conv2d

from convmixer.kernels import depthwise_launch, tiling
from convmixer.kernels.depthwise import depthwise, depthwise_conv2d, depthwise_weight_grad
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.model import make_activation

Shape = tuple[int, int, int, int, int]

SHAPES: list[Shape] = [(3, 1, 2, 5, 7), (5, 2, 3, 5, 7), (7, 17, 1, 4, 3), (9, 2, 1, 5, 18)]
LARGE = [(k, n, 3, h, w) for k in (3, 5, 7, 9) for n, h, w in ((1, 31, 33), (3, 1, 65), (2, 33, 1), (70, 16, 16))]


def problem(
    k: int, n: int, c: int, h: int, w: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """x, weight, bias and gradient: rounded to dtype, and the same numbers in float64."""
    shapes = ((n, c, h, w), (c, 1, k, k), (c,), (n, c, h, w))
    rounded = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    return rounded, [tensor.double() for tensor in rounded]


def check(shape: Shape, dtype: torch.dtype, device: torch.device, near: Near) -> None:
    inputs, exact = problem(*shape, dtype, device)
    for tensors in (inputs, exact):
        for tensor in tensors[:3]:
            tensor.requires_grad_()
    out = depthwise_conv2d(*inputs[:3])
    expected = conv2d(exact[0], exact[1], exact[2], padding="same", groups=shape[2])
    assert out.dtype == dtype
    near(out, expected, dtype)
    out.backward(inputs[3])
    expected.backward(exact[3])
    for tensor, reference in zip(inputs[:3], exact[:3], strict=True):
        assert tensor.grad is not None
        assert tensor.grad.dtype == dtype
        near(tensor.grad, reference.grad, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape: Shape, dtype: torch.dtype, device: torch.device, assert_near: Near) -> None:
    check(shape, dtype, device, assert_near)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", LARGE)
def test_values_and_gradients_of_larger_maps(
    shape: Shape, dtype: torch.dtype, device: torch.device, assert_near: Near
) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("bf16 products are wrong in Triton's interpreter")
    check(shape, dtype, device, assert_near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("k", "n", "h", "w", "activation"), [(3, 1, 5, 7, "relu"), (7, 17, 4, 3, "gelu_tanh"), (9, 2, 3, 18, "gelu")]
)
def test_what_is_fused_with_it(
    k: int,
    n: int,
    h: int,
    w: int,
    activation: str,
    with_bias: bool,
    dtype: torch.dtype,
    device: torch.device,
    assert_near: Near,
) -> None:
    check_fused((k, n, h, w), activation, with_bias, dtype, device, assert_near)


@pytest.mark.parametrize(("prefetch", "unroll"), [(0, True), (4, True), (2, False)])
@pytest.mark.parametrize(("k", "n", "h", "w"), [(3, 17, 2, 5), (7, 2, 9, 18), (9, 1, 3, 35)])
def test_every_form(
    k: int,
    n: int,
    h: int,
    w: int,
    prefetch: int,
    unroll: bool,
    device: torch.device,
    assert_near: Near,
) -> None:
    """Rows ahead of maps of fewer rows, images that tiles do not divide, one, two column tiles."""
    tiles = tiling.depthwise_tiles(n, w, torch.float32, k, fused=True)
    assert (-(-n // tiles.images), -(-w // tiles.columns)) == {3: (2, 1), 7: (1, 1), 9: (1, 2)}[k]
    tiles = replace(tiles, prefetch=prefetch, unroll=unroll)
    check_fused((k, n, h, w), "gelu", True, torch.float32, device, assert_near, tiles)


def check_fused(
    shape: tuple[int, int, int, int],
    activation: str,
    with_bias: bool,
    dtype: torch.dtype,
    device: torch.device,
    near: Near,
    tiles: tiling.DepthwiseTiles | None = None,
) -> None:
    """The input scale * act(x + bias) + shift, and behind the filter either the statistics or the residual's mix."""
    k, n, h, w = shape
    (x, weight, bias, _), (x64, weight64, bias64, _) = problem(k, n, 2, h, w, dtype, device)
    scale, shift, x_bias, out_scale, out_shift = torch.randn(5, 2, device=device)
    of_x = Normalise(scale, shift, activation, x_bias if with_bias else None)
    out, sums = depthwise_launch.depthwise(x, weight, bias, prologue=of_x, statistics=activation, tiles=tiles)
    of_h = Normalise(out_scale, out_shift, activation)
    mixed, _ = depthwise_launch.depthwise(x, weight, bias, prologue=of_x, mix=of_h, tiles=tiles)

    act = make_activation(activation)
    scale, shift, x_bias, out_scale, out_shift = (
        value.double()[:, None, None] for value in (scale, shift, x_bias, out_scale, out_shift)
    )
    z = scale * act(x64 + x_bias if with_bias else x64) + shift
    expected = conv2d(z, weight64, bias64, padding="same", groups=2)
    near(out, expected, dtype, 2)
    active = act(out.double())  # the sums are of what was rounded and written
    near(sums, torch.stack((active.sum((0, 2, 3)), active.square().sum((0, 2, 3)))), torch.float32)
    near(mixed, z + out_scale * act(expected) + out_shift, dtype, 2)


def test_channels_first_in_memory_gives_the_same_and_keeps_its_layout(device: torch.device) -> None:
    x, weight, bias, _ = problem(3, 2, 3, 5, 7, torch.float32, device)[0]
    across = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert across.stride() != x.stride()
    out = depthwise_conv2d(across, weight, bias)
    assert out.stride() == across.stride()
    assert torch.equal(out, depthwise_conv2d(x, weight, bias))


def test_images_beyond_one_tile_and_sums_in_parts(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, assert_near: Near
) -> None:
    """35 images are three tiles of 16, of which the weight gradient's two parts take two and one."""
    assert tiling.depthwise_tiles(35, 3, torch.float32, 3).images == 16
    monkeypatch.setattr(tiling, "weight_grad_splits", lambda channels, groups: min(2, groups))
    check((3, 35, 1, 3, 2), torch.float32, device, assert_near)


def test_weight_in_fp32_with_an_input_in_fp16(device: torch.device, assert_near: Near) -> None:
    """As under autocast: the filter is rounded on the way, its gradient stays fp32."""
    inputs, exact = problem(5, 2, 3, 5, 7, torch.float16, device)
    weight = inputs[1].float().requires_grad_()
    out = depthwise_conv2d(inputs[0], weight, inputs[2].float())
    assert out.dtype == torch.float16
    assert_near(out, conv2d(exact[0], exact[1], exact[2], padding="same", groups=3), torch.float16)
    out.backward(inputs[3])
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_a_gradient_in_another_layout(device: torch.device) -> None:
    x, weight, bias, grad = problem(3, 2, 3, 5, 7, torch.float32, device)[0]
    x.requires_grad_()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        (got,) = torch.autograd.grad(depthwise_conv2d(x, weight, bias), x, grad.contiguous(memory_format=layout))
        found.append(got)
    assert torch.equal(*found)


def test_gradient_of_the_gradient(device: torch.device, assert_near: Near) -> None:
    inputs, exact = problem(3, 1, 2, 4, 5, torch.float32, device)
    seconds = []
    for x, weight, _, grad in (inputs, exact):
        weight.requires_grad_()
        x.requires_grad_()
        apply = depthwise_conv2d if x.dtype == torch.float32 else lambda x, w: conv2d(x, w, padding="same", groups=2)
        (first,) = torch.autograd.grad(apply(x, weight), x, grad, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), weight)[0])
    assert_near(seconds[0], seconds[1], torch.float32)


# torch's own check looks at the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_operators_are_well_formed(device: torch.device) -> None:
    """torch's own checks: schema, shape function, registered gradient, tracing with symbolic shapes."""
    x, weight, bias, grad = problem(3, 1, 2, 3, 4, torch.float32, device)[0]
    x.requires_grad_()
    torch.library.opcheck(depthwise, (x, weight, bias, False))
    torch.library.opcheck(depthwise_weight_grad, (x.detach(), grad, 3))


def test_torch_compile_takes_the_operator_whole(device: torch.device) -> None:
    x, weight, bias, grad = problem(3, 1, 2, 4, 5, torch.float32, device)[0]
    x.requires_grad_()
    compiled = torch.compile(depthwise_conv2d, fullgraph=True, backend="aot_eager")
    for apply in (compiled, depthwise_conv2d):
        out = apply(x, weight, bias)
        (got,) = torch.autograd.grad(out, x, grad)
        if apply is compiled:
            first = out, got
    assert torch.equal(first[0], out)
    assert torch.equal(first[1], got)
