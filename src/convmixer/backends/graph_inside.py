"""The inside of a graph that pools and then applies a linear head, whatever engine runs it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from convmixer.backends.graph_runtime import GraphRuntime
from convmixer.backends.inside import are_maps
from convmixer.backends.padding import filled_up
from convmixer.errors import UserError

# `features`: the graph gives the pooled features and the logits. `maps`: it gives the head at each position, as rows.
Part = Literal["features", "maps"]


class GraphInside:
    """That of the graph of `runtime`; an engine's class says in `_open` how a part of it is run."""

    def __init__(self, runtime: GraphRuntime) -> None:
        self._runtime = runtime
        self._opened: dict[Part, Callable[[np.ndarray], list[np.ndarray]]] = {}
        self._is_proven = False

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._ask("features", image) for image in images]
        pooled, logits = (np.concatenate(values).reshape(len(images), -1) for values in zip(*rows, strict=True))
        undo = self._runtime.undo
        return pooled, logits if undo is None else undo(logits)

    def class_maps(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        maps = []
        for image, label in zip(images, classes.tolist(), strict=True):
            (rows,) = self._ask("maps", image)
            side = math.isqrt(len(rows))
            whole = rows.reshape(side, side, -1)
            self._prove(whole, image)
            maps.append(whole[..., label])
        return np.stack(maps)

    def _open(self, part: Part) -> Callable[[np.ndarray], list[np.ndarray]]:
        """What runs a part on a batch. Raises LookupError for a graph that is not made so, and UserError."""
        raise NotImplementedError

    def _prove(self, whole: np.ndarray, image: np.ndarray) -> None:
        """Raise UserError where these are not the maps of the first image; of the others they then are, too."""
        if not self._is_proven:
            _, logits = self._ask("features", image)
            if not are_maps(whole, logits.reshape(-1), self._runtime.metadata):
                raise UserError(
                    f"{self._runtime.path}: its head is not linear, and has no exact maps of what it looked at"
                )
            self._is_proven = True

    def _ask(self, part: Part, image: np.ndarray) -> list[np.ndarray]:
        """The outputs for one image, float32; of a file whose batch is fixed, the rest of the batch is empty."""
        if part not in self._opened:
            try:
                self._opened[part] = self._open(part)
            except LookupError:
                raise UserError(
                    f"{self._runtime.path}: does not pool and then apply one linear layer; "
                    "what is inside cannot be told"
                ) from None
        size = self._runtime.form.batch or 1
        found = self._opened[part](filled_up(self._runtime.inputs(image[None]), size))
        return [value[: len(value) // size].astype(np.float32, copy=False) for value in found]
