"""The losses against hand calculation, torch's cross-entropy of indices, timm and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from convmixer.config.schema import Config
from convmixer.data.balance import class_weights
from convmixer.training.loss import create_loss, focal_by_image, soft_cross_entropy


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


def random_batch(classes: int = 10, smoothing: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = 3.0 * torch.randn(32, classes, generator=generator)
    labels = torch.randint(classes, (32,), generator=generator)
    return logits, mixup_target(labels, classes, lam=0.3, smoothing=smoothing)


def test_cross_entropy_stays_what_it_was() -> None:
    assert create_loss(Config()) is soft_cross_entropy


def test_binary_cross_entropy_by_hand_and_as_timm_has_it() -> None:
    loss = create_loss(Config(loss="bce"))
    # log(1 + exp(-2)) = 0.126928 for the class that it is, log 2 for the other: their mean.
    by_hand = loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert by_hand.item() == pytest.approx((0.126928 + 0.693147) / 2, abs=1e-6)
    logits, targets = random_batch()
    torch.testing.assert_close(loss(logits, targets), BinaryCrossEntropy(smoothing=0)(logits, targets))


def test_focal_loss_by_hand_and_as_torchvision_has_it() -> None:
    # p = 1/2 and gamma 2: log 2 / 4, whatever the target is.
    loss = create_loss(Config(loss="focal"))
    assert loss(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]])).item() == pytest.approx(0.693147 / 4, abs=1e-6)
    # p = 0.880797, (1 - p)^2 = 0.014209, -log p = 0.126928.
    assert loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.0018035, abs=1e-6)
    # The softmax of z and 0 is the sigmoid of z.
    z, labels = torch.linspace(-4, 4, 9), torch.tensor([0.0, 1, 1, 0, 0, 1, 0, 1, 1])
    for gamma in (0.0, 0.5, 2.0, 5.0):
        expected = sigmoid_focal_loss(z, labels, alpha=-1, gamma=gamma)
        both, targets = torch.stack((z, torch.zeros(9)), 1), torch.stack((labels, 1 - labels), 1)
        torch.testing.assert_close(focal_by_image(both, targets, gamma), expected, rtol=1e-5, atol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, targets = random_batch()
    loss = create_loss(Config(loss="focal", focal_gamma=0))
    torch.testing.assert_close(loss(logits, targets), soft_cross_entropy(logits, targets))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_a_sure_answer_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    focal_by_image(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), gamma).mean().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_weights_of_mixed_and_smoothed_targets_by_hand() -> None:
    # 3 images of class 0 and 1 of class 1: 2/3 and 2. Equal logits have the loss log 2 whatever the target is, so that
    # the weight of an image is what is seen: that of its class, and for 1/4 and 3/4 of the classes 1/6 + 3/2.
    weights = class_weights(np.array([0, 0, 0, 1]), 2)
    for smoothing in (0.0, 0.1):
        loss = create_loss(Config(balance="weights", label_smoothing=smoothing), weights)
        for share, expected in ((1.0, 2 / 3), (0.0, 2.0), (0.25, 1 / 6 + 3 / 2)):
            shares = torch.tensor([[share, 1 - share]])
            value = loss(torch.zeros(1, 2), (1 - smoothing) * shares + smoothing / 2)
            assert value.item() == pytest.approx(expected * 0.693147, abs=1e-5)


def test_weights_with_each_loss_against_torch() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = class_weights(labels.numpy(), 3)
    by_class = torch.tensor([6 / 9, 2.0, 1.0])
    logits = random_batch(3)[0][:6]
    targets = functional.one_hot(labels, 3).float()
    expected = {
        "ce": functional.cross_entropy(logits, labels, weight=by_class, reduction="sum") / 6,
        "bce": functional.binary_cross_entropy_with_logits(logits, targets, weight=by_class[labels][:, None]),
        "focal": (by_class[labels] * focal_by_image(logits, targets, 2.0)).mean(),
    }
    for name, value in expected.items():
        loss = create_loss(Config.model_validate({"loss": name}), weights)
        torch.testing.assert_close(loss(logits, targets), value)


def test_micro_batches_and_processes_together_have_the_loss_of_the_whole_batch() -> None:
    weights = class_weights(np.array([0] * 50 + [1, 2, 3, 4, 5, 6, 7, 8, 9]), 10)
    logits, targets = random_batch()
    loss = create_loss(Config(balance="weights", label_smoothing=0.1), weights)
    parts = [loss(logits[i : i + 8], targets[i : i + 8]) for i in range(0, 32, 8)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, targets))
