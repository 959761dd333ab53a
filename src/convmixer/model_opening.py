"""A model file as the options of a command want it: on which device, with which preprocessing, run by what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from convmixer.arch import ArchitectureHints
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.inputs import overruled, preprocessing_for

if TYPE_CHECKING:
    import torch

    from convmixer.backends.model_file import ModelFile
    from convmixer.config.execution import PrecisionOptions

logger = logging.getLogger(__name__)
_HINTS = ("arch", "kernel_size", "patch_size", "activation")


def open_for_inference(resolved: Resolved[Any], images: int) -> ModelFile:
    """The model of `checkpoint`, run as is best for so many images. Raises UserError for what does not fit."""
    options = resolved.options
    if options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    return open_tuned(resolved, options.checkpoint, images, options.batch_size)


def open_tuned(resolved: Resolved[Any], path: str, images: int | None, batch_size: int) -> ModelFile:
    """A model file, run as is best for so many images (None: a server's) in batches of `batch_size`.

    Raises UserError as `open_model`.
    """
    options = resolved.options
    model = _open(resolved, path, ArchitectureHints(options.arch, activation=options.activation))
    tune_for(resolved, model, images, batch_size)
    return model


def open_for_evaluation(resolved: Resolved[Any], path: str, *, engine: str | None = None) -> ModelFile:
    """A model of the options' shape, preprocessing and device. `engine`: of an ONNX file. Raises UserError."""
    hints = ArchitectureHints(**{name: resolved.explicit(name) for name in _HINTS})
    model = _open(resolved, path, hints, engine)
    for line in overruled(resolved, model.preprocessing):
        logger.info(line)
    return model


def tune_for(resolved: Resolved[Any], model: ModelFile, images: int | None, batch_size: int) -> None:
    """Have a model run as is best for so many images, as the options allow. Raises UserError as `runtime.tune`."""
    from convmixer.backends.runtime import tune

    options = resolved.options
    is_required = resolved.is_explicit("execution") or resolved.is_explicit("compile")
    size = model.preprocessing.size
    tune(model.runtime, images, batch_size, size, options.requested_execution, is_required=is_required)


def _open(resolved: Resolved[Any], path: str, hints: ArchitectureHints, engine: str | None = None) -> ModelFile:
    # No engine is imported before the file shows which one it needs.
    from convmixer.backends.model_file import DeviceRequest
    from convmixer.backends.opening import open_model

    options = resolved.options
    return open_model(
        path,
        partial(preprocessing_for, resolved),
        DeviceRequest(
            options.device_target,
            options.device_id,
            resolved.is_explicit("device_target"),
            engine or str(getattr(options, "engine", DeviceRequest.engine)),
            native_code=options.native_code,
        ),
        hints,
        autocast=partial(_autocast, options),
        entry=options.entry,
    )


def _autocast(options: PrecisionOptions, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Maker of the context in which weights run in the precision of the options."""
    from convmixer.precision import Precision

    return Precision.of(options, device).autocast
