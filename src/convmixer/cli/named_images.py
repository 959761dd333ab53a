"""The images that the words of a command line name, and what lies beside them in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from convmixer.config.inference import FindingOptions
from convmixer.data.folders import ignored_line
from convmixer.data.source import Source
from convmixer.data.unlabelled.opening import open_images

logger = logging.getLogger(__name__)


def named_images(words: Sequence[str], options: FindingOptions) -> Source:
    """The images; what is ignored beside them is logged. Raises UserError for a word that stands for nothing."""
    images = open_images(words, recursive=options.recursive, column=options.column)
    if images.ignored:
        logger.info(ignored_line(images.ignored, "the images"))
    return images
