"""Options of finding images that look alike to a network."""

from __future__ import annotations

from convmixer.config.inference import ImageOptions, ModelUseOptions, WeightOptions
from convmixer.config.options import Options, option


class LikenessOptions(Options):
    """Likeness"""

    query: tuple[str, ...] = option(
        (),
        "look for the nearest to these images, as DATA names them; left out: for pairs in DATA that look alike",
        other_names="to like for",
        path=True,
    )
    neighbours: int = option(5, "of each query, the nearest", other_names="k n topk neighbors", ge=1)
    min_similarity: float = option(
        0.99, "of a pair: cosine of the feature vectors, seen from their mean", other_names="threshold", ge=-1, le=1
    )
    json_file: str | None = option(None, "JSON file of what is found", also="json", path=True, other_names="output o")


class SimilarOptions(ModelUseOptions, LikenessOptions, WeightOptions, ImageOptions):
    """Options of `similar`."""
