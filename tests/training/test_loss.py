"""The loss against hand calculation, torch's cross-entropy of indices, and timm."""

from __future__ import annotations

import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch.nn import functional

from convmixer.training.loss import soft_cross_entropy


def test_loss_by_hand() -> None:
    # log(1 + exp(-2)) = 0.126928: 0.9 * 0.126928 + 0.1 * 2.126928, and log 2 for two equal logits.
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    assert soft_cross_entropy(logits[:1], torch.tensor([[0.9, 0.1]])).item() == pytest.approx(0.326928, abs=1e-6)
    loss = soft_cross_entropy(logits, torch.tensor([[0.9, 0.1], [0.3, 0.7]]))
    assert loss.item() == pytest.approx((0.326928 + 0.693147) / 2, abs=1e-6)


def test_gradient_by_hand() -> None:
    # (softmax - target) / batch: softmax of equal logits is 0.5.
    logits = torch.zeros(2, 2, requires_grad=True)
    soft_cross_entropy(logits, torch.tensor([[0.9, 0.1], [0.3, 0.7]])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.2, 0.2], [0.1, -0.1]]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_agrees_with_torch_and_timm(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 5.0 * torch.randn(64, 1000, generator=generator)
    labels = torch.randint(1000, (64,), generator=generator)
    targets = mixup_target(labels, 1000, lam=1.0, smoothing=smoothing)
    loss = soft_cross_entropy(logits, targets)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels, label_smoothing=smoothing))
    torch.testing.assert_close(loss, SoftTargetCrossEntropy()(logits, targets))


def test_low_precision_logits_are_scored_in_fp32() -> None:
    logits = torch.randn(8, 1000, generator=torch.Generator().manual_seed(4)).bfloat16()
    targets = mixup_target(torch.arange(8), 1000, lam=1.0, smoothing=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_cross_entropy(logits, targets)
    exact = -(targets.double() * logits.double().log_softmax(1)).sum(1).mean()
    assert loss.dtype == torch.float32
    # bf16 would be off by about 2e-2 here.
    assert loss.item() == pytest.approx(exact.item(), abs=2e-6)
