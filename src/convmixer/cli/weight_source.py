"""The weights that convert and push read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from convmixer.arch import Architecture, ArchitectureHints
from convmixer.config.convert import SourceOptions
from convmixer.errors import UserError

if TYPE_CHECKING:
    from convmixer.weights.read import WeightFile

logger = logging.getLogger(__name__)


def open_checked(options: SourceOptions) -> tuple[WeightFile, Architecture]:
    """The weights of the command line and their architecture. Raises UserError where they are not a whole ConvMixer."""
    if options.weights is None:
        raise UserError("WEIGHTS: a weight file, a checkpoint folder or the name of published weights is needed")
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.model import ConvMixer
    from convmixer.weights.load import build, complete
    from convmixer.weights.read import read_weights

    weights = read_weights(options.weights, options.entry)
    architecture, notes = complete(weights, ArchitectureHints(options.arch, activation=options.activation))
    build(weights, architecture, ConvMixer)
    for line in notes:
        logger.info(line)
    return weights, architecture
