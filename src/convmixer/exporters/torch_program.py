"""A ConvMixer as torch's own files: the program of torch.export, and that program compiled by AOTInductor."""

from __future__ import annotations

from pathlib import Path

import torch

from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.metadata import KEY, ModelMetadata, encode_metadata
from convmixer.model import ConvMixer


def exported_program(model: ConvMixer, size: int, *, batch: int | None = None) -> torch.export.ExportedProgram:
    """The network in evaluation mode, float32 [N, channels, size, size], normalised -> logits [N, classes].

    `batch`: the only N that it takes; None: any.
    """
    # A batch of one would be taken for a constant.
    images = torch.zeros(batch or 2, model.arch.in_chans, size, size)
    shapes = None if batch is not None else ({0: torch.export.Dim("batch")},)
    return torch.export.export(model.eval(), (images,), dynamic_shapes=shapes)


def write_program(model: ConvMixer, metadata: ModelMetadata, path: Path) -> None:
    """Write what torch.export.load reads: for any batch, the record among its extra files.

    `path` must end in .pt2, as torch names such files. It holds no pickle of anything but an empty tuple of examples.
    """
    program = exported_program(model, metadata.known_preprocessing.size)
    program.example_inputs = None
    torch.export.save(program, path, extra_files={KEY: encode_metadata(metadata)})


def write_compiled(model: ConvMixer, metadata: ModelMetadata, path: Path) -> None:
    """Write machine code for processors of this kind, for any batch; the record is among the package's metadata.

    `path` must end in .pt2. Raises UserError (exit 1) where torch cannot compile here: it needs a C++ compiler.
    """
    program = exported_program(model, metadata.known_preprocessing.size)
    settings = {"aot_inductor.metadata": {KEY: encode_metadata(metadata)}}
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
    except Exception as error:  # torch has many of its own, and those of the compiler that it calls
        raise UserError(
            f"AOTI: torch cannot compile the network here ({first_line(error)}); convmixer doctor tries the compiler",
            exit_code=RUN_FAILED,
        ) from None
