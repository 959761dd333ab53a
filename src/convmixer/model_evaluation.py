"""A model file on the evaluation images that the options name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convmixer.config.evaluation import TestTimeAugmentation
from convmixer.config.resolved import Resolved
from convmixer.config.schema import EvalConfig
from convmixer.data.folders import ignored_line
from convmixer.data.holdout import held_out_part
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.source import Source, seeded_subset
from convmixer.data.splits import find_splits, open_unnamed
from convmixer.errors import UserError
from convmixer.evaluation import check_any_readable, evaluate
from convmixer.machine import workers
from convmixer.metrics.score import Score
from convmixer.model_opening import open_for_evaluation, tune_for
from convmixer.terminal.progress import Progress
from convmixer.test_time_augmentation import augmented

if TYPE_CHECKING:
    from convmixer.backends.model_file import ModelFile

logger = logging.getLogger(__name__)


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
        tune=lambda images: tune_for(resolved, model, images, config.batch_size),
    )


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
