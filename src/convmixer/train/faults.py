"""Errors of the libraries below, turned into what the user can do about them."""

from __future__ import annotations

import re

import torch

from convmixer.errors import RUN_FAILED, UserError
from convmixer.train.feed import Feed

_LOST_PEER = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out|socket", re.IGNORECASE)


def explain(error: RuntimeError, feed: Feed, *, image_size: int, processes: int) -> UserError | None:
    """The UserError (exit 1) that a RuntimeError in the training loop stands for, or None for one of our own making."""
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            f"out of GPU memory with batch_size {feed.plan.batch_size} at {image_size} pixels; "
            "lower --batch_size (and raise --accumulate by as much), use --amp_level O1, or lower --image_size",
            exit_code=RUN_FAILED,
        )
    explained = feed.explain(error)
    if explained is None and processes > 1 and _LOST_PEER.search(str(error)):
        reason = str(error).strip().splitlines()[0][:160]
        return UserError(f"another process of the run is gone or silent: {reason}", exit_code=RUN_FAILED)
    return explained
