"""The fused network against the module itself in float64: logits, gradients, running statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.kernels.device.conftest import Near
from tests.networks import randomise_batch_norm
from torch import nn

from convmixer.arch import Activation
from convmixer.kernels import limits
from convmixer.kernels.batch_norm import running_moments, scale_and_shift
from convmixer.kernels.block import fused_forward, reason_against_fused
from convmixer.kernels.block_operators import block, block_backward
from convmixer.kernels.plan import Plan
from convmixer.model import Block, ConvMixer, create_model

# Every form at least once, and those of the products with each that says what is kept.
PLANS = (
    "",
    "products=triton",
    "keep=mixed",
    "keep=inputs",
    "products=triton keep=mixed",
    "products=triton keep=inputs erf=long",
    "ends=torch",
    "depthwise=16x4x2 block_grad=16x8x1 products=triton pointwise=16x32x16x4x2 pointwise_grad=32x16x16x4x1",
)


def network(
    device: torch.device, activation: Activation = "gelu", k: int = 3, dim: int = 3, depth: int = 1
) -> ConvMixer:
    """A small network, every BatchNorm's scale, shift and running statistics random and far from 1 and 0."""
    model = create_model(f"convmixer_{dim}_{depth}", kernel_size=k, patch_size=2, activation=activation, num_classes=4)
    randomise_batch_norm(model)
    return model.to(device)


def exact(model: ConvMixer) -> ConvMixer:
    return copy.deepcopy(model).double()


def check_training(model: ConvMixer, images: torch.Tensor, near: Near, factor: float = 1.0, plan: str = "") -> None:
    """Logits, every gradient and every buffer after one training pass over images, fp32 or fp16.

    The gradient of the images too, where they ask for one.
    """
    reference = exact(model).train()
    model.train()
    dtype = images.dtype
    images64 = images.detach().double().requires_grad_()
    with torch.autocast(images.device.type, dtype=torch.float16, enabled=dtype == torch.float16):
        logits = fused_forward(model, images, Plan.parse(plan))
    expected = reference(images64)
    near(logits, expected, dtype, factor)
    grad = torch.randn_like(expected)
    logits.backward(grad.to(logits.dtype))
    expected.backward(grad)
    if images.requires_grad:
        near(images.grad, images64.grad, dtype, factor)
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == parameter.dtype
        near(parameter.grad, other.grad, dtype, factor)
    for (name, buffer), expected in zip(model.named_buffers(), reference.buffers(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert torch.equal(buffer, expected)
        else:
            near(buffer, expected, dtype, factor)


def block_arguments(batch: int, height: int, width: int, k: int, device: torch.device) -> list[torch.Tensor]:
    """x [C, N, H, W], its bias, scale and shift, and the six parameters of a block of three channels, all random."""
    shapes = (3, batch, height, width), (3,), (3,), (3,), (3, 1, k, k), (3,), (3,), (3,), (3, 3, 1, 1), (3,)
    return [torch.randn(shape, device=device).requires_grad_() for shape in shapes]


def reference_block(
    x: torch.Tensor, x_bias: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, *parameters: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """h2 with its bias, and the sums of act(h2) and its square, by torch's own operators, for gelu and eps 1e-5."""
    weight, bias, norm_weight, norm_bias, pointwise_weight, pointwise_bias = parameters
    x = x + x_bias[:, None, None, None]
    z = scale[:, None, None] * nn.functional.gelu(x.transpose(0, 1)) + shift[:, None, None]
    h1 = nn.functional.conv2d(z, weight, bias, padding="same", groups=3)
    normed = nn.functional.batch_norm(nn.functional.gelu(h1), None, None, norm_weight, norm_bias, training=True)
    h2 = nn.functional.conv2d(z + normed, pointwise_weight, pointwise_bias).transpose(0, 1)
    activated = nn.functional.gelu(h2)
    return h2, torch.stack((activated.sum((1, 2, 3)), activated.square().sum((1, 2, 3))))


def check_inference(model: ConvMixer, images: torch.Tensor, near: Near, plan: str = "") -> None:
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        logits = fused_forward(model, images, Plan.parse(plan))
        near(logits, exact(model)(images.double()), images.dtype)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("activation", "depth"), [("relu", 1), ("gelu", 2), ("gelu_tanh", 1)])
def test_training(activation: Activation, depth: int, device: torch.device, assert_near: Near) -> None:
    """Maps of 5 x 7."""
    check_training(
        network(device, activation, depth=depth), torch.randn(2, 3, 10, 14, device=device), assert_near, factor=2
    )


@pytest.mark.parametrize("plan", PLANS[1:])
def test_every_form_in_training(plan: str, device: torch.device, assert_near: Near) -> None:
    """Two blocks, so that a bias passes from one to the next, and a pixel beyond the last patch."""
    images = torch.randn(2, 3, 7, 9, device=device)
    check_training(network(device, dim=2, depth=2), images, assert_near, factor=2, plan=plan)


@pytest.mark.parametrize(
    ("activation", "plan"),
    [
        ("gelu", ""),
        ("relu", "keep=mixed products=triton"),
        *(pytest.param(act, plan, marks=pytest.mark.slow) for act in ("relu", "gelu") for plan in PLANS[1:]),
    ],
)
def test_every_form_in_fp16(activation: Activation, plan: str, device: torch.device, assert_near: Near) -> None:
    """Logits against float64, and each gradient no further from it than four times plain autocast's, or rounding."""
    model = network(device, activation, dim=4).train()
    images = torch.randn(4, 3, 6, 6, device=device)
    reference, eager = exact(model), copy.deepcopy(model)
    grad = torch.randn(4, 4, device=device)
    expected = reference(images.double())
    expected.backward(grad.double())
    for forward in (lambda x: fused_forward(model, x, Plan.parse(plan)), eager):
        with torch.autocast(device.type, dtype=torch.float16):
            logits = forward(images)
        logits.backward(grad.to(logits.dtype))
        assert_near(logits, expected.detach(), torch.float16, 4)
    for (name, ours), plain, exact_one in zip(
        model.named_parameters(), eager.parameters(), reference.parameters(), strict=True
    ):
        grads = [tensor.grad for tensor in (ours, plain, exact_one) if tensor.grad is not None]
        max_value = float(grads[2].abs().max())
        error, other = (float((grad - grads[2]).abs().max()) / max_value for grad in grads[:2])
        assert error <= max(4 * other, 4e-3), name


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_maps_made_again_change_no_bit(activation: Activation, device: torch.device) -> None:
    """Activation checkpointing: logits, gradients and statistics as where h1 was kept; statistics move once."""
    images = torch.randn(3, 3, 6, 10, device=device)
    model = network(device, activation, dim=2, depth=2).train()
    models = model, copy.deepcopy(model)
    plans = Plan(keep="halves"), Plan(keep="inputs")
    found = [fused_forward(module, images, plan) for module, plan in zip(models, plans, strict=True)]
    for logits in found:
        logits.square().sum().backward()
    assert torch.equal(*found)
    for one, other in zip(*(module.parameters() for module in models), strict=True):
        assert torch.equal(one.grad, other.grad)
    for (name, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert models[1].get_buffer("blocks.0.depthwise_norm.num_batches_tracked") == 1


def test_images_that_want_a_gradient_get_it(device: torch.device, assert_near: Near) -> None:
    images = torch.randn(2, 3, 10, 14, device=device, requires_grad=True)
    check_training(network(device), images, assert_near, factor=2)


def test_rows_that_16_does_not_divide_are_reported_once(
    device: torch.device, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_logged", set())
    model = network(device, dim=1)
    with torch.no_grad():
        for width in (32, 44, 44):
            fused_forward(model, torch.randn(1, 3, 2, width, device=device))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "rows of" in line] == [
        "fused ConvMixer: rows of 22 values, which 16 does not divide, are loaded and stored value by value; "
        "images 32 pixels wide have rows of 16"
    ]


@pytest.mark.parametrize("plan", ["products=triton", "ends=torch"])
def test_inference_in_other_forms(plan: str, device: torch.device, assert_near: Near) -> None:
    check_inference(network(device, dim=6), torch.randn(1, 3, 10, 15, device=device), assert_near, plan)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_inference(activation: Activation, device: torch.device, assert_near: Near) -> None:
    """A batch of 1; BatchNorm's shift is far from 0, so that a shifted border would show."""
    check_inference(network(device, activation, dim=6), torch.randn(1, 3, 10, 14, device=device), assert_near)


def test_training_and_inference_in_fp16(device: torch.device, assert_near: Near) -> None:
    model = network(device, k=5)
    check_inference(model.half(), torch.randn(2, 3, 6, 8, device=device, dtype=torch.float16), assert_near)
    check_training(model.float(), torch.randn(2, 3, 6, 8, device=device).half(), assert_near, factor=8)


def test_maps_wider_than_a_tile(device: torch.device, assert_near: Near) -> None:
    model = network(device, k=5, dim=2)
    check_training(model, torch.randn(2, 3, 4, 70, device=device), assert_near, factor=2)
    check_inference(model.eval(), torch.randn(1, 3, 4, 70, device=device), assert_near)


@pytest.mark.parametrize("plan", ["", "products=triton"])
@pytest.mark.parametrize(
    ("batch", "height", "width", "k"),
    [(1, 5, 7, 3), *(pytest.param(1, 31, 33, k, marks=pytest.mark.slow) for k in (3, 5, 7, 9))],
)
def test_a_block_of_one_image(
    batch: int, height: int, width: int, k: int, plan: str, device: torch.device, assert_near: Near
) -> None:
    """By itself: in a network, the mean of one image's last normalised map has no gradient.

    x's bias has none: it is the sum of x's, which the block that made x takes.
    """
    inputs = block_arguments(batch, height, width, k, device)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    (h2, sums), expected = block(*inputs, 1e-5, "gelu", plan)[:2], reference_block(*exact_inputs)
    grads = [torch.randn_like(tensor) for tensor in expected]
    assert_near(h2 + inputs[-1].detach()[:, None, None, None], expected[0], torch.float32)
    assert_near(sums, expected[1], torch.float32)
    torch.autograd.backward((h2, sums), [grad.float() for grad in grads])
    torch.autograd.backward(expected, grads)
    assert inputs[1].grad is None
    for index, (tensor, other) in enumerate(zip(inputs, exact_inputs, strict=True)):
        if index != 1:
            assert_near(tensor.grad, other.grad, torch.float32, 5)


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 5, 7, 9])
@pytest.mark.parametrize(("batch", "height", "width"), [(2, 31, 33), (3, 16, 16), (19, 5, 7)])
def test_all_sides_and_sizes(
    k: int, batch: int, height: int, width: int, device: torch.device, assert_near: Near
) -> None:
    model = network(device, k=k)
    check_training(model, torch.randn(batch, 3, 2 * height, 2 * width, device=device), assert_near, factor=5)
    check_inference(model.eval(), torch.randn(batch, 3, 2 * height, 2 * width, device=device), assert_near)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_move_as_batch_norms(
    momentum: float | None, device: torch.device, assert_near: Near
) -> None:
    """Over two batches; a momentum of None averages over all."""
    model = network(device)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = momentum
    reference = exact(model).train()
    model.train()
    with torch.no_grad():
        for images in torch.randn(2, 2, 3, 4, 6, device=device):
            fused_forward(model, images)
            reference(images.double())
    for (name, buffer), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert buffer.item() == 2
        else:
            assert_near(buffer, other, torch.float32)


@pytest.mark.parametrize("keep", ["mixed", "halves", "inputs"])
def test_the_operator_is_well_formed(keep: str, device: torch.device) -> None:
    """torch's own checks of schema, shape functions and the registered gradient."""
    model = network(device)
    layer = model.blocks[0]
    assert isinstance(layer, Block)
    scale, shift, _ = scale_and_shift(
        running_moments(model.stem.norm), model.stem.norm.weight, model.stem.norm.bias, 1e-5
    )
    norm = layer.depthwise_norm
    arguments = (
        torch.randn(3, 1, 3, 4, device=device, requires_grad=True),
        None if keep == "mixed" else torch.randn(3, device=device),
        scale.detach().requires_grad_(),
        shift.detach().requires_grad_(),
        *(layer.depthwise.weight, layer.depthwise.bias, norm.weight, norm.bias),
        *(layer.pointwise.weight, layer.pointwise.bias, 1e-5, "gelu", f"keep={keep}"),
    )
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(block, arguments, test_utils=checks)
    with torch.no_grad():
        h2, sums, h1, mixed, moments = block(*arguments)
        tensors = arguments[:-3]
        backward = (torch.randn_like(h2), sums, *tensors, h1, mixed, h2, moments, *arguments[-3:])
        torch.library.opcheck(block_backward, backward, test_utils=("test_schema", "test_faketensor"))


def test_torch_compile_takes_the_training_pass_whole(device: torch.device) -> None:
    model = network(device).train()
    images = torch.randn(2, 3, 4, 6, device=device)
    eager = copy.deepcopy(model)
    compiled = torch.compile(fused_forward, fullgraph=True, backend="aot_eager")
    for module, forward in ((model, compiled), (eager, fused_forward)):
        forward(module, images).square().sum().backward()
    for parameter, other in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), eager.state_dict())


def test_a_frozen_trunk_and_a_gradient_in_evaluation_are_left_to_torch(device: torch.device) -> None:
    model, images = network(device), torch.randn(1, 3, 4, 4, device=device)
    assert reason_against_fused(model, images) == "they have no gradient in evaluation mode"
    with torch.no_grad():
        assert reason_against_fused(model, images) is None
    model.train()
    assert reason_against_fused(model, images) is None
    model.blocks.eval()
    assert "frozen" in str(reason_against_fused(model, images))
    fused_forward(model, images).sum().backward()
    assert model.stem.conv.weight.grad is not None
