"""A model file as the options of a command want it: opened, evaluated on labelled images, applied to others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from convmixer.arch import ArchitectureHints
from convmixer.config.evaluation import TestTimeAugmentation
from convmixer.config.resolved import Resolved
from convmixer.config.schema import EvalConfig
from convmixer.data.classes import ClassMap
from convmixer.data.folders import ignored_line
from convmixer.data.holdout import held_out_part
from convmixer.data.imagenet import imagenet_classes
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.reader import read_batches
from convmixer.data.source import Source, seeded_subset
from convmixer.data.splits import find_splits, open_unnamed
from convmixer.errors import RUN_FAILED, UserError
from convmixer.evaluation import check_any_readable, evaluate
from convmixer.inputs import overruled, preprocessing_for
from convmixer.machine import workers
from convmixer.metrics.score import Score
from convmixer.prediction import Prediction, predict
from convmixer.terminal.progress import Progress
from convmixer.test_time_augmentation import augmented

if TYPE_CHECKING:
    import torch

    from convmixer.backends.model_file import ModelFile
    from convmixer.config.execution import PrecisionOptions

logger = logging.getLogger(__name__)
_HINTS = ("arch", "kernel_size", "patch_size", "activation")


def evaluate_model(resolved: Resolved[EvalConfig]) -> tuple[Score, Source]:
    """The score of `pretrained` on the evaluation images that the options name, and these.

    Raises UserError where data and model do not fit, and (exit 1) where no image can be read.
    """
    config = resolved.options
    if config.pretrained is None:
        raise UserError("--pretrained: a weight file or a checkpoint folder is needed")
    model = open_for_evaluation(resolved, config.pretrained)
    return evaluate_opened(
        resolved,
        model,
        config.pretrained,
        tta=config.tta,
        tune=lambda images: _tune(resolved, model, images, config.batch_size),
    )


def open_for_evaluation(resolved: Resolved[Any], path: str, *, engine: str | None = None) -> ModelFile:
    """A model of the options' shape, preprocessing and device. `engine`: of an ONNX file. Raises UserError."""
    hints = ArchitectureHints(**{name: resolved.explicit(name) for name in _HINTS})
    model = _open(resolved, path, hints, engine)
    for line in overruled(resolved, model.preprocessing):
        logger.info(line)
    return model


def evaluate_opened(
    resolved: Resolved[Any],
    model: ModelFile,
    path: str,
    *,
    tta: TestTimeAugmentation = "none",
    tune: Callable[[int], None] | None = None,
) -> tuple[Score, Source]:
    """The score of the model, opened from `path`, on the evaluation images that the options name, and these.

    `tune`: is told how many they are. Raises UserError as `evaluate_model`.
    """
    config = resolved.options
    source = _evaluation_split(resolved, model, path)
    if tune is not None:
        tune(len(source))
    threads = workers(config.num_parallel_workers)
    score = score_of(model, source, config.batch_size, threads, max_pixels=config.max_pixels, tta=tta)
    return score, source


def score_of(
    model: ModelFile,
    source: Source,
    batch_size: int,
    threads: int,
    *,
    ahead: int = 2,
    max_pixels: int = MAX_PIXELS,
    tta: TestTimeAugmentation = "none",
) -> Score:
    """Evaluate, and log how fast, and what of the folder is ignored; `tta`: test-time augmentation.

    Raises UserError (exit 1) where no image can be read.
    """
    if ignored := getattr(source, "ignored", None):
        logger.info(ignored_line(ignored, "the images"))
    runtime, preprocessing = augmented(model.runtime, model.preprocessing, tta)
    with Progress(len(source), "evaluate") as progress:
        score = evaluate(
            runtime,
            source,
            preprocessing,
            batch_size=batch_size,
            threads=threads,
            ahead=ahead,
            on_batch=progress.add,
            max_pixels=max_pixels,
        )
        rate = progress.rate
    check_any_readable(score, source)
    logger.info(f"{score.count} images, {rate:.1f} img/s")
    return score


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
    _tune(resolved, model, images, batch_size)
    return model


def predictions(
    resolved: Resolved[Any],
    model: ModelFile,
    images: Source,
    *,
    ahead: int = 2,
    indices: np.ndarray | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_crops: Callable[[np.ndarray, Sequence[Prediction]], None] | None = None,
    named: bool = True,
) -> Iterator[Prediction]:
    """A prediction per image, in their order, as `prediction.predict` has it.

    `named` False: classes without a name in the file keep their numbers. Raises UserError where embeddings are asked
    for and the file does not show them.
    """
    options = resolved.options
    return predict(
        model.runtime,
        images,
        model.preprocessing,
        names_of(model) if named else model.classes,
        batch_size=options.batch_size,
        threads=workers(options.num_parallel_workers),
        ahead=ahead,
        topk=options.topk,
        threshold=options.threshold,
        inside=model.inside() if options.embed else None,
        indices=indices,
        on_batch=on_batch,
        on_crops=on_crops,
        max_pixels=options.max_pixels,
    )


def features_of(
    resolved: Resolved[Any], model: ModelFile, images: Source, label: str = "look"
) -> tuple[np.ndarray, list[int], int]:
    """Feature vectors float32 [n, dim] of the images that can be read, their places, and how many cannot be read.

    Those are named. Raises UserError (exit 1) where none can be read, and for a file that does not show its inside.
    """
    options, inside = resolved.options, model.inside()
    vectors, places, bad = [], [], 0
    with Progress(len(images), label) as progress:
        for batch in read_batches(
            images,
            model.preprocessing,
            options.batch_size,
            threads=workers(options.num_parallel_workers),
            max_pixels=options.max_pixels,
        ):
            for index, reason in batch.bad:
                logger.warning(f"left out: {images.name(index)}: {reason}")
            bad += len(batch.bad)
            if len(batch.indices):
                vectors.append(inside.features(batch.images)[0])
                places += batch.indices.tolist()
            progress.add(len(batch.indices) + len(batch.bad))
    if not vectors:
        raise UserError("DATA: none of the images can be read", exit_code=RUN_FAILED)
    return np.concatenate(vectors), places, bad


def names_of(model: ModelFile) -> ClassMap | None:
    """The names of the classes: the file's, or ImageNet's for as many where it has none."""
    if model.classes is None and model.num_classes == len(imagenet_classes()):
        logger.info(f"the model names no classes; its {model.num_classes} are taken for ImageNet's")
        return imagenet_classes()
    return model.classes


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


def _tune(resolved: Resolved[Any], model: ModelFile, images: int | None, batch_size: int) -> None:
    from convmixer.backends.runtime import tune

    options = resolved.options
    is_required = resolved.is_explicit("execution") or resolved.is_explicit("compile")
    size = model.preprocessing.size
    tune(model.runtime, images, batch_size, size, options.requested_execution, is_required=is_required)


def _autocast(options: PrecisionOptions, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Maker of the context in which weights run in the precision of the options."""
    from convmixer.precision import Precision

    return Precision.of(options, device).autocast


def _evaluation_split(resolved: Resolved[Any], model: ModelFile, path: str) -> Source:
    """The evaluation images, labelled in the model's classes. Raises UserError where data and model do not fit."""
    config = resolved.options
    splits = find_splits(config)
    if splits.remark is not None:
        logger.info(splits.remark)
    if model.classes is None:
        source = open_unnamed(model.num_classes, splits.open_val, logger.info)
    else:
        source = splits.open_val(model.classes)
    wanted = config.num_classes if resolved.is_explicit("num_classes") else None
    for number, where in ((wanted, "--num_classes says"), (len(source.classes), "the data has")):
        if number is not None and number != model.num_classes:
            raise UserError(f"{path}: answers in {model.num_classes} classes, {where} {number}")
    if config.val_fraction is not None:
        source = splits.hold_out(source).val
    elif splits.val_dir is None:
        source = held_out_part(source, config.data_url, model.path, model.facts, logger.info)
    return seeded_subset(source, config.val_num_samples, config.seed)
