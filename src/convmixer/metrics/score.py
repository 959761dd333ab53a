"""Cross-entropy, top-k counts and the answer to each image of a split, which add up over batches and processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

# The answer to an image: its place in the split, its label, the most likely class (-1 where there is a NaN among the
# logits), and the probabilities of that class and of the label.
ANSWER = np.dtype(
    [("index", "i8"), ("label", "i4"), ("predicted", "i4"), ("probability", "f4"), ("label_probability", "f4")]
)


@dataclass
class Score:
    """Sums over the images seen so far; `results()` has the means. `not_finite`: images with a NaN among the logits."""

    loss_sum: float = 0.0
    top1: int = 0
    top5: int = 0
    count: int = 0
    not_finite: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    _answers: list[np.ndarray] = field(default_factory=list)

    def add(self, logits: np.ndarray, labels: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits [N, classes] and labels int [N]; `indices`: places in the split, None: the next ones."""
        labels = np.asarray(labels)
        if indices is None:
            indices = np.arange(self.count, self.count + len(labels))
        logits, rows = logits.astype(np.float64), np.arange(len(labels))
        with np.errstate(invalid="ignore", over="ignore"):  # infinities make the loss NaN, which is not news
            shifted = logits - logits.max(axis=1, keepdims=True)
            of_label = shifted[rows, labels]
            log_sum = np.log(np.exp(shifted).sum(axis=1))
            self.loss_sum += float((log_sum - of_label).sum())
            probabilities = np.exp(-log_sum), np.exp(of_label - log_sum)  # the largest logit is shifted to 0
        # The rank of the label counts the greater logits, and the equal ones before it, as a stable sort would.
        own = logits[rows, labels][:, None]
        before = np.arange(logits.shape[1])[None, :] < labels[:, None]
        rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
        finite = np.isfinite(logits).all(axis=1)
        self.top1 += int(((rank < 1) & finite).sum())
        # With fewer than five classes every answer would count, hence 1.0; with NaN among the logits none does.
        self.top5 += int(((rank < 5) & finite).sum())
        self.count += len(labels)
        self.not_finite += int((~finite).sum())
        answers = np.empty(len(labels), ANSWER)
        answers["index"], answers["label"] = indices, labels
        answers["predicted"] = np.where(finite, logits.argmax(axis=1), -1)
        answers["probability"], answers["label_probability"] = probabilities
        self._answers.append(answers)

    @classmethod
    def merged(cls, parts: Iterable[Score]) -> Score:
        """The score of the parts together."""
        total = cls()
        for part in parts:
            total.loss_sum += part.loss_sum
            total.top1 += part.top1
            total.top5 += part.top5
            total.count += part.count
            total.not_finite += part.not_finite
            total.bad.extend(part.bad)
            total._answers.extend(part._answers)
        return total

    def answers(self) -> np.ndarray:
        """The answers to all images that could be read, `ANSWER` [count], in the order of the split."""
        together = np.concatenate([np.empty(0, ANSWER), *self._answers])
        return together[np.argsort(together["index"], kind="stable")]

    def results(self) -> dict[str, float]:
        """`Loss`, `Top1-Acc` and `Top5-Acc` as means over the images; zeros where there was none."""
        count = max(self.count, 1)
        return {
            "Loss": round(self.loss_sum / count, 4),
            "Top1-Acc": round(self.top1 / count, 6),
            "Top5-Acc": round(self.top5 / count, 6),
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 [N, classes] of logits [N, classes]."""
    with np.errstate(invalid="ignore"):  # NaN and infinity give NaN
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        total: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return total
