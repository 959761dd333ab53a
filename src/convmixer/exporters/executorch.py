"""A ConvMixer as an ExecuTorch program for phones, its operators in XNNPACK."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from convmixer.exporters.torch_program import exported_program
from convmixer.metadata import KEY, ModelMetadata, encode_metadata
from convmixer.model import ConvMixer


def write_pte(model: ConvMixer, metadata: ModelMetadata, path: Path) -> None:
    """Write the program; its method `forward` takes one image, float32 [1, channels, size, size], normalised.

    One, because a program sets the memory of its largest batch aside. Its method `convmixer` answers with the record,
    as bytes of JSON, which an app reads as any other tensor: uint8 [n].
    """
    program = exported_program(model, metadata.known_preprocessing.size, batch=1)
    record = torch.frombuffer(bytearray(encode_metadata(metadata).encode()), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on ExecuTorch's own use of torch
        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={KEY: record}
        ).to_executorch()
    path.write_bytes(lowered.buffer)
