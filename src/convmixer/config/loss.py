"""Options of what the training minimises, and of how much each class counts in it."""

from __future__ import annotations

from typing import Literal

from convmixer.config.options import Options, option

BalanceKind = Literal["none", "weights", "sampler"]


class LossOptions(Options):
    """Loss"""

    loss: Literal["ce", "bce", "focal"] = option(
        "ce",
        "cross-entropy, binary cross-entropy (mean over the classes), or focal loss",
        other_names="criterion loss_fn bce_loss",
    )
    focal_gamma: float = option(
        2.0, "exponent of the focal loss: the higher, the less easy images count; 0: cross-entropy", ge=0, le=10
    )
    balance: BalanceKind = option(
        "none",
        "uneven classes: weigh the loss of the rare ones higher, or draw each class equally often",
        other_names="class_weights class_weight weighted_sampler sampler balanced oversample",
    )
