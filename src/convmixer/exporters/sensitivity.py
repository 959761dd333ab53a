"""Which layers int8 harms: each is quantised alone, and the logits are compared with those in single precision."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import onnx
import onnxruntime

from convmixer.exporters.format import WriteSettings
from convmixer.exporters.onnx import INPUT, OUTPUT, kept_layers, network_graph
from convmixer.exporters.quantise import quantise
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer

logger = logging.getLogger(__name__)

# A network of 32 blocks is quantised 33 times: the ranges are those of so many batches, the logits those of as many.
_BATCHES = 4
_SHOWN = 10
_SKIPPED_PART = 8  # of the layers every eighth is proposed to be skipped, one at least


def layer_sensitivity(
    model: ConvMixer, metadata: ModelMetadata, settings: WriteSettings, batches: Sequence[np.ndarray]
) -> dict[str, float]:
    """Layer in int8 -> maximum difference of a logit, as a fraction of the largest, with it alone in int8; worst first.

    `batches`: crops uint8 [N, size, size, channels]. Computed by ONNX Runtime.
    """
    inputs = metadata.known_preprocessing
    graph = network_graph(model, replace(metadata, precision="fp32")).SerializeToString()
    images = [inputs.normalise(batch) for batch in batches[:_BATCHES]]
    calibration = list(islice(settings.calibration(), _BATCHES))
    expected = _logits(graph, images)
    found: dict[str, float] = {}
    for layer in kept_layers(onnx.ModelProto.FromString(graph), settings.int8_skip):
        # From bytes each time: the quantiser changes what it is given.
        alone = quantise(onnx.ModelProto.FromString(graph), INPUT, iter(calibration), inputs, [layer])
        difference = np.abs(_logits(alone.SerializeToString(), images) - expected).max()
        found[layer] = float(difference / np.abs(expected).max())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def tell(sensitivity: Mapping[str, float], skipped: Sequence[str]) -> None:
    """Log the layers, worst first, and the option that leaves the worst out of int8, beside those that it has named."""
    logger.warning("the layers in int8, each alone, by the largest difference of a logit / largest logit:")
    for layer, difference in list(sensitivity.items())[:_SHOWN]:
        logger.warning(f"  {difference:.2g}  {layer}")
    if len(sensitivity) > _SHOWN:
        logger.warning(f"  and {len(sensitivity) - _SHOWN} with less")
    worst = list(sensitivity)[: max(len(sensitivity) // _SKIPPED_PART, 1)]
    logger.warning(f"--int8_skip {' '.join([*skipped, *worst])} leaves the worst in single precision")


def _logits(graph: bytes, images: Sequence[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT], {INPUT: batch})[0] for batch in images])
