"""The end of an evaluation some of whose images could not be read."""

from __future__ import annotations

import logging

from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED
from convmixer.evaluation import name_unreadable
from convmixer.metrics import Score

logger = logging.getLogger(__name__)


def name_unreadable_images(score: Score, source: Source) -> int:
    """Name the images that are not in the score, and return the exit code."""
    if score.not_finite:
        logger.warning(
            f"{score.not_finite} of {score.count} images got logits that are no numbers; they count as wrong"
        )
    name_unreadable(score.bad, score, source)
    return RUN_FAILED if score.bad or score.not_finite else 0
