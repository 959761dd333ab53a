"""Classes of uneven size: the weight of each in the loss, or an order of images that draws each equally often."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from convmixer.config.checks import MAX_IMBALANCE
from convmixer.config.loss import BalanceKind
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.source import Source
from convmixer.randomness import Stream, hashes


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The weight of each class, float64 [num_classes], inverse to its number of images; `labels` int64 [n].

    n / (classes that have images * images of the class), so that the mean over the images is 1: labels 0, 0, 0, 1 give
    2/3 and 2. A class without images has 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return np.divide(len(labels), np.count_nonzero(counts) * counts, out=np.zeros(num_classes), where=counts > 0)


class BalancedOrder:
    """An order of `BatchSampler` that draws each class equally often, images of the rare ones several times per epoch.

    The classes take turns from epoch to epoch without end. What a class gives is one permutation of its images after
    the other, each drawn from (seed, its number): within a class no image is drawn twice more often than another, and
    all have been drawn before one comes again. The draws of an epoch are then shuffled. All of it is a pure function of
    (seed, epoch) and the number of draws per epoch, so nothing has to be kept to resume it.

    A draw of an image is its index plus the number of images times how often its class was gone through before in the
    epoch: what is drawn by that number, crop and augmentation, is another each time.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self._count = len(labels)
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def epoch(self, sampler: BatchSampler, epoch: int) -> np.ndarray:
        """int64 [images that the steps of an epoch take], each number once, an image as often as it is drawn."""
        return _order(self, sampler.seed, epoch, sampler.steps_per_epoch * sampler.global_batch)

    def _draws(self, seed: int, epoch: int, count: int) -> np.ndarray:
        turns = np.arange(epoch * count, (epoch + 1) * count)
        order, classes = np.empty(count, dtype=np.int64), len(self._members)
        for number, members in enumerate(self._members):
            places = np.flatnonzero(turns % classes == number)
            if not len(places):
                continue  # more classes than draws: its turn comes in a later epoch
            passes, within = np.divmod(turns[places] // classes, len(members))
            found = np.arange(passes[0], passes[-1] + 1)
            permuted = np.argsort(hashes(Stream.BALANCE, seed, found[:, None], members), axis=1, kind="stable")
            again = passes - passes[0]
            order[places] = members[permuted[again, within]] + again * self._count
        shuffled = np.argsort(hashes(Stream.BALANCED_ORDER, seed, epoch, np.arange(count)), kind="stable")
        return order[shuffled]


@lru_cache(maxsize=2)
def _order(order: BalancedOrder, seed: int, epoch: int, count: int) -> np.ndarray:
    draws = order._draws(seed, epoch, count)
    draws.setflags(write=False)
    return draws


def balance_remark(source: Source, balance: BalanceKind) -> str | None:
    """A line on the rarest and the most frequent class and what is done about them; None where nothing is to be said.

    Classes that have no image at all do not count.
    """
    counts = np.bincount(source.labels, minlength=len(source.classes))
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    rare, frequent = (int(present[pick(counts[present])]) for pick in (np.argmin, np.argmax))
    names = source.classes.names
    numbers = f"training images per class: {counts[rare]} ({names[rare]}) to {counts[frequent]} ({names[frequent]})"
    if balance == "weights":
        weights = class_weights(source.labels, len(source.classes))
        return f"{numbers}; they count {weights[rare]:.3g} and {weights[frequent]:.3g} times in the loss"
    if balance == "sampler":
        return f"{numbers}; each class is drawn equally often, the images of the rare ones again and again"
    if counts[frequent] > MAX_IMBALANCE * counts[rare]:
        return f"{numbers}; --balance weights or --balance sampler helps the rare ones"
    return None
