"""Errors of the libraries below, turned into what the user can do about them."""

from __future__ import annotations

import torch

from convmixer.distributed import lost_peer
from convmixer.errors import RUN_FAILED, UserError
from convmixer.train.feed import Feed


def explain(error: RuntimeError, feed: Feed, *, image_size: int, processes: int) -> UserError | None:
    """The UserError (exit 1) that a RuntimeError in the training loop stands for, or None for one of our own making."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            f"out of GPU memory with batch_size {feed.plan.batch_size} at {image_size} pixels; "
            "lower --batch_size (and raise --accumulate by as much), use --amp_level O1, or lower --image_size",
            exit_code=RUN_FAILED,
        )
    return feed.explain(error) or (lost_peer(error) if processes > 1 else None)
