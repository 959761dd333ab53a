"""What a summary can be asked to show of a run: its first augmented batch and the graph of its network."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.runs.folders import keep_record
from convmixer.runs.record import BATCH_PICTURE, BATCH_RECORD

MAX_IMAGES = 64
_SHOWN = 25  # of the first batch, in a report


def image_grid(images: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Up to 64 normalised images [N, C, H, W] side by side as they would be seen: uint8 [rows * H, columns * W, 3]."""
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    pixels = (images[:MAX_IMAGES].detach().float().cpu() * std + mean).mul(255).round().clamp(0, 255)
    tiles = pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    count, height, width, channels = tiles.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    filled = np.zeros((rows * columns, height, width, channels), np.uint8)
    filled[:count] = tiles
    grid = filled.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    picture = grid.reshape(rows * height, columns * width, channels)
    return np.repeat(picture, 3, axis=2) if channels == 1 else picture


def keep_first_batch(
    folder: Path,
    images: torch.Tensor,
    targets: torch.Tensor,
    preprocessing: Preprocessing,
    classes: Sequence[str],
) -> None:
    """Write the first images of a batch, normalised [N, C, H, W], side by side, and their targets [N, K] in words."""
    count = min(len(images), _SHOWN)
    grid = image_grid(images[:count], preprocessing)
    encoded = io.BytesIO()
    Image.fromarray(grid).save(encoded, "PNG")
    words = [_in_words(row, classes) for row in targets[:count].float().cpu().numpy()]
    record = {"side": images.shape[-1], "targets": words}
    if keep_record(folder / BATCH_PICTURE, encoded.getvalue()):
        keep_record(folder / BATCH_RECORD, json.dumps(record))


def _in_words(target: np.ndarray, classes: Sequence[str]) -> str:
    """`rose`, or of a mixed image `rose 70 % daisy 30 %`; what label smoothing spreads over all classes is left out."""
    share = target - target.min()
    share = share / max(float(share.sum()), 1e-9)
    best = [index for index in np.argsort(-share)[:2] if share[index] > 0.005]
    if len(best) < 2:
        return classes[int(target.argmax())]
    return " ".join(f"{classes[index]} {share[index]:.0%}" for index in best)


def graph_text(model: ConvMixer, size: int) -> str:
    """The operations of the network on one image of `size` pixels, one a line, with their shapes."""
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        program = torch.export.export(model, (torch.zeros(1, model.arch.in_chans, size, size, device=device),))
    finally:
        model.train(was_training)
    return program.graph_module.print_readable(print_output=False)
