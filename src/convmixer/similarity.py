"""Which images look alike to a network: by the cosine of their feature vectors, block by block; NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1024  # rows of which all products with the others are in memory at once


def directions(features: np.ndarray, origin: np.ndarray | None = None) -> np.ndarray:
    """Unit vectors float32 [n, dim] of features [n, dim], as seen from `origin`, or from their mean.

    All features of a network lie in one corner of their space: seen from zero, any two images are alike.
    """
    centred = features - (features.mean(axis=0) if origin is None else origin)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return (centred / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def alike(vectors: np.ndarray, minimum: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of unit vectors [n, dim] whose cosine is at least `minimum`: lower index, higher index, cosine."""
    for first in range(0, len(vectors), _BLOCK):
        rows = vectors[first : first + _BLOCK]
        cosines = rows @ vectors[first:].T
        row, column = np.nonzero(cosines >= minimum)
        for left, right in zip(row[column > row].tolist(), column[column > row].tolist(), strict=True):
            yield first + left, first + right, min(float(cosines[left, right]), 1.0)


def nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of unit vectors [n, dim] the `count` nearest to each of the queries [q, dim]: their indices int64 [q, count] and
    cosines float32 [q, count], the nearest first."""
    indices, cosines = [], []
    for first in range(0, len(queries), _BLOCK):
        products = queries[first : first + _BLOCK] @ vectors.T
        order = np.argsort(-products, axis=1, kind="stable")[:, :count]
        indices.append(order)
        cosines.append(np.minimum(np.take_along_axis(products, order, axis=1), 1.0))
    return np.concatenate(indices), np.concatenate(cosines)
