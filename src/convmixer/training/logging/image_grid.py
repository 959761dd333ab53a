"""What a summary can be asked to show of a run: its first augmented batch and the graph of its network."""

from __future__ import annotations

import numpy as np
import torch

from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer

MAX_IMAGES = 64


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
