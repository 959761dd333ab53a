"""The parity gate: an exported file must answer real images as the weights do, in its own runtime."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convmixer.backends.runtime import Runtime

# Maximum difference of a logit, as a fraction of the largest logit. Single precision differs by rounding only, 1e-6
# where it was measured; half by 5e-4 to 2e-3. int8 by 0.01 to 0.14 on networks whose accuracy it left as it was.
TOLERANCES = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.25}


@dataclass(frozen=True)
class Parity:
    """How an exported model's logits on `images` images compare with those of the weights.

    `difference`: the maximum of a logit, as a fraction of the weights' largest logit. `agreement`: fraction of the
    images with the same top-1 class. The rates are in images per second. `weights_top1` and `exported_top1`: fraction
    of right answers, None where the labels are not known.
    """

    images: int
    difference: float
    agreement: float
    weights_rate: float
    exported_rate: float
    weights_top1: float | None = None
    exported_top1: float | None = None

    @property
    def lost(self) -> float:
        """What the exported model has less of right answers; 0 where the labels are not known."""
        if self.weights_top1 is None or self.exported_top1 is None:
            return 0.0
        return self.weights_top1 - self.exported_top1

    def within(self, tolerance: float) -> bool:
        """False for a difference that is NaN, too."""
        return self.difference <= tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            name: value if value is not None and np.isfinite(value) else None for name, value in asdict(self).items()
        }


def compare(
    weights: Runtime, exported: Runtime, batches: Sequence[np.ndarray], labels: np.ndarray | None = None
) -> Parity:
    """Run both on the same crops: batches of uint8 [N, size, size, channels], at least one.

    `labels`: int64 [images], where they are known.
    """
    expected, weights_rate = _timed(weights, batches)
    found, exported_rate = _timed(exported, batches)
    scale = float(np.abs(expected).max())
    max_difference = float(np.abs(found - expected).max())
    agreement = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    difference = max_difference / scale if scale > 0 else float("nan")
    right = (None, None) if labels is None else (_top1(expected, labels), _top1(found, labels))
    return Parity(len(expected), difference, agreement, weights_rate, exported_rate, *right)


def _top1(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _timed(runtime: Runtime, batches: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Logits [images, classes], and images per second."""
    runtime.logits(batches[0][:1])  # what is made on the first call only is not timed
    start = time.perf_counter()
    logits = np.concatenate([runtime.logits(batch) for batch in batches])
    return logits, len(logits) / max(time.perf_counter() - start, 1e-9)


def table(name: str, parity: Parity, tolerance: float) -> str:
    """The comparison in lines, to be read."""
    rows = [
        ("", "weights", name),
        ("images", str(parity.images), str(parity.images)),
        ("images/s", f"{parity.weights_rate:.1f}", f"{parity.exported_rate:.1f}"),
        ("largest difference of a logit / largest logit", "", f"{parity.difference:.2g} (allowed {tolerance:g})"),
        ("same top-1 class", "", f"{parity.agreement:.2%}"),
    ]
    if parity.weights_top1 is not None:
        rows.append(("right top-1 class", f"{parity.weights_top1:.2%}", f"{parity.exported_top1:.2%}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)
    return "\n".join(line.rstrip() for line in lines)
