"""What the precision options resolve to, what autocast keeps in fp32, and the three ways of scaling the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convmixer.config.optimizer import OptimizerOptions
from convmixer.config.schema import Config
from convmixer.errors import UserError
from convmixer.model import create_model
from convmixer.precision import Precision
from convmixer.training.loss_scaler import LossScaler, ScalingMode
from convmixer.training.optimizer import create_optimizer, set_lr

CPU = torch.device("cpu")
GPU = torch.device("cuda")


def resolve(device: torch.device = CPU, **options: Any) -> tuple[Precision, LossScaler]:
    config = Config(**options)
    precision = Precision.of(config, device)
    return precision, LossScaler.of(config, precision)


@pytest.mark.parametrize(
    ("options", "dtype", "mode", "description"),
    [
        ({}, torch.float32, "none", "O0: fp32; no loss scaling needed"),
        (
            {"amp_dtype": "fp16", "is_dynamic_loss_scale": True},
            torch.float32,
            "none",
            "O0: fp32; amp_dtype: fp16 takes effect from O1 on; no loss scaling needed",
        ),
        (
            {"amp_level": "O2", "is_dynamic_loss_scale": True},
            torch.bfloat16,
            "none",
            "O2: bf16 autocast, parameters and BatchNorm in fp32; no loss scaling needed",
        ),
        (
            {"amp_level": "O3"},
            torch.bfloat16,
            "none",
            "O3: bf16 autocast, parameters and BatchNorm in fp32 all the same (autocast has no lower); "
            "no loss scaling needed",
        ),
        (
            {"amp_level": "O1", "amp_dtype": "fp16", "keep_bn_fp32": False},
            torch.float16,
            "fixed",
            "O1: fp16 autocast, parameters and BatchNorm in fp32 all the same (autocast has no lower); "
            "fixed loss scale 1024",
        ),
        (
            {"amp_level": "O2", "amp_dtype": "fp16", "is_dynamic_loss_scale": True, "loss_scale": 65536.0},
            torch.float16,
            "dynamic",
            "O2: fp16 autocast, parameters and BatchNorm in fp32; dynamic loss scale from 65536",
        ),
    ],
)
def test_options_on_a_cpu(options: dict[str, Any], dtype: torch.dtype, mode: str, description: str) -> None:
    precision, scaler = resolve(**options)
    assert (precision.dtype, scaler.mode) == (dtype, mode)
    assert f"{precision.description}; {scaler.description}" == description


@pytest.mark.skipif(torch.version.hip is not None, reason="compute capabilities are NVIDIA's")
@pytest.mark.parametrize(
    ("capability", "amp_dtype", "dtype"),
    [
        ((7, 0), "auto", torch.float16),
        ((7, 5), "fp16", torch.float16),
        ((8, 0), "auto", torch.bfloat16),
        ((9, 0), "bf16", torch.bfloat16),
        ((9, 0), "fp16", torch.float16),
    ],
)
def test_type_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], amp_dtype: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    precision, scaler = resolve(amp_level="O2", amp_dtype=amp_dtype, device=GPU)
    assert precision.dtype == dtype
    assert scaler.mode == ("none" if dtype == torch.bfloat16 else "fixed")


@pytest.mark.skipif(torch.version.hip is not None, reason="compute capabilities are NVIDIA's")
def test_bf16_on_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(UserError, match=r"amp_dtype: bf16 needs .* this one has 7\.5") as caught:
        resolve(amp_level="O2", amp_dtype="bf16", device=GPU)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({}, torch.float32),
        ({"amp_level": "O1"}, torch.bfloat16),
        ({"amp_level": "O3", "amp_dtype": "fp16"}, torch.float16),
    ],
)
def test_parameters_gradients_and_statistics_stay_fp32(options: dict[str, Any], output: torch.dtype) -> None:
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5).train()
    with resolve(**options)[0].autocast():
        logits = model(torch.randn(4, 3, 8, 8))
    logits.float().square().sum().backward()
    assert logits.dtype == output
    assert {grad_of(parameter).dtype for parameter in model.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_batchnorm_under_autocast_is_fp32_batchnorm_rounded(dtype: torch.dtype, training: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    norms = [nn.BatchNorm2d(16).train(training) for _ in range(2)]
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.fill_(0.3)
        norm.running_var.fill_(1.7)
    x = (3.0 + torch.randn(8, 16, 7, 7, generator=generator)).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        low = norms[0](x)
    full = norms[1](x.float())
    assert (low.dtype, full.dtype) == (dtype, torch.float32)
    # To the bit but where the two orders of summation fall on either side of a rounding.
    assert (low != full.to(dtype)).float().mean() < 0.001
    torch.testing.assert_close(norms[0].running_mean, norms[1].running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(norms[0].running_var, norms[1].running_var, rtol=1e-6, atol=1e-6)


def grad_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def one_weight() -> tuple[nn.Parameter, torch.optim.Optimizer]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = create_optimizer(model, OptimizerOptions(optimizer="momentum"))
    set_lr(optimizer, 0.1)
    (weight,) = model.parameters()
    return weight, optimizer


def scaled_step(scaler: LossScaler, weight: nn.Parameter, optimizer: torch.optim.Optimizer, slope: float) -> bool:
    optimizer.zero_grad()
    scaler.scale((slope * weight).sum()).backward()
    scaler.unscale_(optimizer)
    return scaler.step(optimizer)


def test_none_hands_the_loss_through() -> None:
    scaler = LossScaler()
    loss = torch.tensor(2.0)
    assert scaler.scale(loss) is loss
    assert (scaler.value, scaler.skips_non_finite, scaler.state_dict()) == (1.0, False, {})


@pytest.mark.parametrize("mode", ["none", "fixed", "dynamic"])
def test_the_step_is_that_of_the_unscaled_gradient(mode: ScalingMode) -> None:
    weight, optimizer = one_weight()
    scaler = LossScaler(mode, 1024.0)
    # Slope 0.5 twice, momentum 0.9: 1 - 0.1 * 0.5 - 0.1 * (0.45 + 0.5).
    assert [scaled_step(scaler, weight, optimizer, 0.5) for _ in range(2)] == [True, True]
    assert grad_of(weight).item() == 0.5
    assert weight.item() == pytest.approx(0.855)


def test_accumulated_batches_are_unscaled_once() -> None:
    weight, optimizer = one_weight()
    scaler = LossScaler("fixed", 512.0)
    for slope in (0.5, 0.25):
        scaler.scale((slope * weight).sum()).backward()
    assert grad_of(weight).item() == 384.0
    scaler.unscale_(optimizer)
    assert grad_of(weight).item() == 0.75


def test_scaling_saves_small_fp16_gradients() -> None:
    # 2^-26 is below the least fp16 number, 2^-24.
    cases: tuple[tuple[ScalingMode, float], ...] = (("none", 0.0), ("fixed", 2.0**-26))
    for mode, expected in cases:
        weight, optimizer = one_weight()
        scaler = LossScaler(mode, 1024.0)
        scaler.scale((weight.half() * torch.ones((), dtype=torch.half)).float().sum() * 2.0**-26).backward()
        scaler.unscale_(optimizer)
        assert grad_of(weight).item() == expected


def test_fixed_lets_non_finite_gradients_be_seen() -> None:
    weight, optimizer = one_weight()
    scaler = LossScaler("fixed", 1024.0)
    scaler.scale((float("inf") * weight).sum()).backward()
    scaler.unscale_(optimizer)
    assert grad_of(weight).item() == float("inf")
    assert not scaler.skips_non_finite


@pytest.mark.parametrize("slope", [float("inf"), float("nan")])
def test_dynamic_skips_a_non_finite_step_and_halves(slope: float) -> None:
    weight, optimizer = one_weight()
    scaler = LossScaler("dynamic", 1024.0)
    assert scaler.skips_non_finite
    assert scaled_step(scaler, weight, optimizer, 0.5) is True
    assert scaled_step(scaler, weight, optimizer, slope) is False
    assert weight.item() == pytest.approx(0.95)
    assert scaler.value == 512.0
    # The momentum has not seen the skipped step either.
    assert scaled_step(scaler, weight, optimizer, 0.5) is True
    assert weight.item() == pytest.approx(0.855)


def test_a_scale_that_fp32_rounds_is_no_skipped_step() -> None:
    weight, optimizer = one_weight()
    assert scaled_step(LossScaler("dynamic", 1000.1), weight, optimizer, 0.5) is True


def test_dynamic_scale_doubles_after_2000_good_steps_across_a_resume() -> None:
    weight, optimizer = one_weight()
    scaler = LossScaler("dynamic", 1024.0)
    for _ in range(1500):
        assert scaled_step(scaler, weight, optimizer, 0.0)
    resumed = LossScaler("dynamic", 8.0)
    resumed.load_state_dict(scaler.state_dict())
    assert resumed.value == 1024.0
    for _ in range(499):
        assert scaled_step(resumed, weight, optimizer, 0.0)
    assert resumed.value == 1024.0
    assert scaled_step(resumed, weight, optimizer, 0.0)
    assert resumed.value == 2048.0


def test_a_state_of_another_mode_leaves_the_scale() -> None:
    scaler = LossScaler("dynamic", 1024.0)
    scaler.load_state_dict(LossScaler().state_dict())
    assert scaler.value == 1024.0
    fixed = LossScaler("fixed", 256.0)
    fixed.load_state_dict(scaler.state_dict())
    assert fixed.value == 256.0


def test_a_run_that_is_never_finite_ends() -> None:
    weight, optimizer = one_weight()
    scaler = LossScaler("dynamic", 1024.0)
    # 1024 = 2^10 may be halved 24 times, to 2^-14; the 25th is the end.
    for _ in range(24):
        assert scaled_step(scaler, weight, optimizer, float("nan")) is False
    with pytest.raises(UserError, match=r"the loss scale fell to 3\.05176e-05") as caught:
        scaled_step(scaler, weight, optimizer, float("nan"))
    assert caught.value.exit_code == 1
    assert weight.item() == 1.0
