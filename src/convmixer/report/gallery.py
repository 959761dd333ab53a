"""The pictures of a report: which images are shown, and what the network looked at in them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from convmixer.backends.torch_inside import maps_of_crops
from convmixer.class_activation import overlaid
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.data.source import Source
from convmixer.model import ConvMixer
from convmixer.printable import printable
from convmixer.runs.record import Predictions

MISTAKES, HITS = 24, 12
_SIDE = 144  # of a picture, in pixels


@dataclass(frozen=True)
class Picture:
    """An evaluation image: its crop and what spoke for the answer, as data for the page; names are fit to be shown."""

    path: str
    label: str
    predicted: str
    probability: float
    label_probability: float
    image: str
    attention: str


def surest_mistakes(found: Predictions, limit: int = MISTAKES) -> np.ndarray:
    """Places of wrong answers, those with the least probability for the label first: a wrong label looks like that."""
    wrong = np.flatnonzero((found.labels != found.predicted) & (found.predicted >= 0))
    order = np.lexsort((-found.probability[wrong], found.label_probability[wrong]))
    return wrong[order][:limit]


def hits(found: Predictions, limit: int = HITS) -> np.ndarray:
    """Places of right answers, class after class, the surest of each."""
    right = np.flatnonzero(found.labels == found.predicted)
    right = right[np.argsort(-found.probability[right], kind="stable")]
    rank = np.zeros(len(right), dtype=np.int64)
    seen: dict[int, int] = {}
    for place, label in enumerate(found.labels[right].tolist()):
        rank[place] = seen.get(label, 0)
        seen[label] = rank[place] + 1
    return right[np.argsort(rank, kind="stable")][:limit]


def pictures(
    places: np.ndarray,
    found: Predictions,
    classes: Sequence[str],
    source: Source,
    index: dict[str, int],
    model: ConvMixer,
    preprocessing: Preprocessing,
) -> list[Picture]:
    """The images at `places` that can still be read; `index`: their places in the source, by path."""
    shown = [int(place) for place in places if found.paths[place] in index]
    crops: dict[int, np.ndarray] = {}
    wanted = np.array([index[found.paths[place]] for place in shown], dtype=np.int64)
    for batch in read_batches(source, preprocessing, 8, indices=wanted, threads=2):
        crops |= dict(zip(batch.indices.tolist(), batch.images, strict=True))
    known = [place for place in shown if index[found.paths[place]] in crops]
    if not known:
        return []
    stack = np.stack([crops[index[found.paths[place]]] for place in known])
    maps = maps_of_crops(model, preprocessing, stack, found.predicted[known])
    return [
        Picture(
            printable(found.paths[place]),
            printable(classes[found.labels[place]]),
            printable(classes[found.predicted[place]]),
            float(found.probability[place]),
            float(found.label_probability[place]),
            as_data(crop),
            as_data(overlaid(crop, map_)),
        )
        for place, crop, map_ in zip(known, stack, maps, strict=True)
    ]


def as_data(pixels: np.ndarray, side: int = _SIDE) -> str:
    """uint8 [H, W, C] as the address of a small JPEG inside the page; tiny ones are enlarged without blurring them."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    how = Image.Resampling.NEAREST if max(image.size) * 2 <= side else Image.Resampling.LANCZOS
    scale = side / max(image.size)
    image = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)), how)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
