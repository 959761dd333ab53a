from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup, mixup_target, rand_bbox

from convmixer.augment.mixup import cut_at_once, draw_mixing, mix, soft_targets
from convmixer.config.augment import AugmentOptions, MixingMode

SIDE, SAMPLES = 24, 1500


def settings_of(mixup: float, cutmix: float, mode: MixingMode = "batch", prob: float = 1.0) -> AugmentOptions:
    return AugmentOptions(
        mixup=mixup,
        cutmix=cutmix,
        mixup_mode=mode,
        mixup_prob=prob,
        switch_prob=0.3,
    )


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(("mixup", "cutmix", "prob"), [(0.5, 0.0, 1.0), (0.0, 0.5, 0.7), (0.2, 1.0, 0.9)])
def test_shares_as_timm(
    mode: MixingMode, mixup: float, cutmix: float, prob: float, same_distribution: Callable[[object, object], bool]
) -> None:
    """The lam of an image in its target, after the correction for boxes that reach over the border."""
    np.random.seed(3)
    timm_mixup = Mixup(mixup, cutmix, None, prob, 0.3, mode, label_smoothing=0.0, num_classes=2)
    labels = torch.tensor([0, 1])
    theirs = [timm_mixup(torch.zeros(2, 1, SIDE, SIDE), labels)[1][0, 0].item() for _ in range(SAMPLES)]
    settings = settings_of(mixup, cutmix, mode, prob)
    draws = [draw_mixing(settings, 2, SIDE, SIDE, seed=0, step=step, rank=0) for step in range(SAMPLES)]
    assert same_distribution(theirs, [draw.lam[0] for draw in draws if draw is not None])
    cut = np.mean([any(cut.start == 0 for cut in draw.cuts) for draw in draws if draw is not None])
    assert cut == pytest.approx(prob * (0.0 if not cutmix else 0.3 if mixup else 1.0), abs=0.05)


def test_boxes_are_as_large_and_anywhere_as_timms(same_distribution: Callable[[object, object], bool]) -> None:
    np.random.seed(3)
    shape = (1, SIDE, SIDE + 9)
    theirs = np.array([rand_bbox(shape, np.random.beta(1, 1)) for _ in range(2 * SAMPLES)])
    draws = [
        draw_mixing(settings_of(0.0, 1.0), 2, *shape[1:], seed=0, step=step, rank=0) for step in range(2 * SAMPLES)
    ]
    cuts = [cut for draw in draws if draw is not None for cut in draw.cuts]
    ours = np.array([(cut.top, cut.bottom, cut.left, cut.right) for cut in cuts])
    for edge in range(4):
        assert same_distribution(theirs[:, edge], ours[:, edge])
    for boxes in (theirs, ours):
        inner = boxes[(boxes[:, 0] > 0) & (boxes[:, 1] < SIDE)]
        assert ((inner[:, 1] - inner[:, 0]) % 2).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 0.8), (0.8, 0.8)])
def test_pixels_and_targets_hold_the_same_shares(mode: MixingMode, batch: int, mixup: float, cutmix: float) -> None:
    """Image i is white in channel i and black in the others: the mean of a channel is the lam of its image."""
    images = torch.eye(batch)[:, :, None, None].expand(batch, batch, SIDE, SIDE + 7).contiguous()
    kept = images.clone()
    for step in range(10):
        mixing = draw_mixing(settings_of(mixup, cutmix, mode), batch, SIDE, SIDE + 7, seed=0, step=step, rank=0)
        assert mixing is not None
        shares = mix(images, mixing).mean((2, 3))
        targets = soft_targets(torch.arange(batch), batch, 0.0, mixing)
        torch.testing.assert_close(shares, targets, rtol=0, atol=1e-5)
        torch.testing.assert_close(targets.sum(1), torch.ones(batch))
        assert torch.equal(images, kept)
        if mode == "pair":
            np.testing.assert_array_equal(mixing.lam, mixing.lam[::-1])
        if mode == "batch":
            assert len(set(mixing.lam.tolist())) == 1


def test_pixels_as_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same lam, same box: the same pixels as timm's mixing of a batch."""
    images = torch.rand(6, 3, SIDE, SIDE)
    for settings in (settings_of(0.5, 0.0), settings_of(0.0, 0.5)):
        mixing = draw_mixing(settings, 6, SIDE, SIDE, seed=0, step=4, rank=0)
        assert mixing is not None
        timm_mixup = Mixup(num_classes=10, label_smoothing=0.1)
        lam = float(mixing.lam[0])
        monkeypatch.setattr(timm_mixup, "_params_per_batch", lambda lam=lam, cuts=mixing.cuts: (lam, bool(cuts)))
        for cut in mixing.cuts:
            edges = (cut.top, cut.bottom, cut.left, cut.right)
            monkeypatch.setattr(
                "timm.data.mixup.cutmix_bbox_and_lam", lambda *_, edges=edges, lam=lam, **__: (edges, lam)
            )
        labels = torch.tensor([3, 1, 4, 1, 5, 9])
        theirs, targets = timm_mixup(images.clone(), labels)
        torch.testing.assert_close(mix(images, mixing), theirs, rtol=0, atol=1e-6)
        torch.testing.assert_close(soft_targets(labels, 10, 0.1, mixing), targets, rtol=0, atol=1e-6)


def test_targets_as_timm() -> None:
    labels = torch.tensor([2, 0, 1, 2])
    torch.testing.assert_close(soft_targets(labels, 3, 0.1), mixup_target(labels, 3, 1.0, 0.1))
    # 0.1 / 3 for each class, and 0.9 more for the right one.
    torch.testing.assert_close(
        soft_targets(labels, 3, 0.1)[1], torch.tensor([0.93333, 0.03333, 0.03333]), atol=1e-4, rtol=0
    )
    mixing = draw_mixing(settings_of(0.5, 0.0, "elem"), 4, SIDE, SIDE, seed=0, step=0, rank=0)
    assert mixing is not None
    theirs = mixup_target(labels, 3, torch.from_numpy(mixing.lam)[:, None], 0.1)
    torch.testing.assert_close(soft_targets(labels, 3, 0.1, mixing), theirs)


def test_drawn_from_seed_step_and_rank() -> None:
    def lam(seed: int, step: int, rank: int) -> float:
        mixing = draw_mixing(settings_of(0.5, 0.5), 4, SIDE, SIDE, seed=seed, step=step, rank=rank)
        assert mixing is not None
        return float(mixing.blend[0] + 2 * mixing.lam[0])

    assert lam(0, 0, 0) == lam(0, 0, 0)
    assert len({lam(0, 0, 0), lam(1, 0, 0), lam(0, 1, 0), lam(0, 0, 1)}) == 4


def test_nothing_is_drawn_where_mixing_is_off() -> None:
    assert draw_mixing(AugmentOptions(), 4, SIDE, SIDE, seed=0, step=0, rank=0) is None
    mixing = draw_mixing(settings_of(0.5, 0.5, prob=0.0), 4, SIDE, SIDE, seed=0, step=0, rank=0)
    assert mixing is not None
    assert mixing.lam.tolist() == [1, 1, 1, 1]
    assert mixing.cuts == ()


@pytest.mark.parametrize("mode", ["elem", "pair"])
def test_cutting_at_once_is_cutting_one_by_one(mode: MixingMode) -> None:
    options = AugmentOptions(cutmix=1.0, mixup_mode=mode)
    images = torch.randn(12, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    for step in range(20):
        mixing = draw_mixing(options, 12, 10, 14, seed=0, step=step, rank=0)
        assert mixing is not None
        assert torch.equal(cut_at_once(images, images.flip(0), mixing.cuts), mix(images, mixing))
