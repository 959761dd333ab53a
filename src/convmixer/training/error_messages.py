"""Errors of the libraries below, turned into what the user can do about them."""

from __future__ import annotations

import torch

from convmixer.backends.autotune import trial
from convmixer.distributed.processes import lost_peer
from convmixer.errors import RUN_FAILED, UserError
from convmixer.training.loading.train_batch import BatchLoader


def explain(
    error: RuntimeError, loader: BatchLoader, *, image_size: int, processes: int, recompute: bool
) -> UserError | None:
    """The UserError (exit 1) that a RuntimeError in the training loop stands for, or None for one of our own making."""
    return (
        out_of_memory(error, loader.sampler.batch_size, image_size, recompute=recompute)
        or loader.explain(error)
        or (lost_peer(error) if processes > 1 else None)
    )


def out_of_memory(error: RuntimeError, batch_size: int, image_size: int, *, recompute: bool) -> UserError | None:
    """The UserError (exit 1) of a training step that the memory of its device does not hold; None for another error.

    `recompute`: whether the blocks are computed again already.
    """
    if not trial.out_of_memory(error):
        return None
    on_gpu = isinstance(error, torch.OutOfMemoryError)
    first = "" if recompute else "use --recompute (about half the memory, up to a third more time), "
    return UserError(
        f"out of {'GPU ' if on_gpu else ''}memory with batch_size {batch_size} at {image_size} pixels; {first}"
        "lower --batch_size (and raise --accumulate by as much), use --amp_level O1, or lower --image_size",
        exit_code=RUN_FAILED,
    )
