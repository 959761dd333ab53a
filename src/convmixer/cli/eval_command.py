"""`convmixer eval`: weights of any layout, an ONNX or a MINDIR file on a labelled split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from convmixer.backends.runtime import tune
from convmixer.cli.train_command import FOLDER_RECIPE, default_recipe
from convmixer.config.loading import Command, Resolved, parse
from convmixer.config.schema import Config
from convmixer.data.classes import ClassMap
from convmixer.data.folders import ignored_line
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.sources import Source, open_split, open_unnamed
from convmixer.errors import RUN_FAILED, UserError
from convmixer.evaluation import check_any_readable, evaluate, name_unreadable
from convmixer.inputs import overruled, preprocessing_for
from convmixer.metrics import Score
from convmixer.terminal.progress import Progress, note

if TYPE_CHECKING:
    import torch

    from convmixer.backends.model_file import ModelFile

COMMAND = Command("eval", "Evaluate the weights of --pretrained on the evaluation images.", Config, takes_config=True)


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv, default_recipe=_data_recipe)
    config = resolved.options
    if config.pretrained is None:
        raise UserError("--pretrained: a weight file or a checkpoint folder is needed")
    # No engine is imported before the file tells which one it needs.
    from convmixer.backends.model_file import DeviceRequest
    from convmixer.backends.opening import open_model

    model = open_model(
        config.pretrained,
        partial(preprocessing_for, resolved),
        DeviceRequest(config.device_target, config.device_id, resolved.is_explicit("device_target")),
        arch=resolved.explicit("arch"),
        autocast=partial(_autocast, config),
        kernel_size=resolved.explicit("kernel_size"),
        patch_size=resolved.explicit("patch_size"),
        activation=resolved.explicit("activation"),
        entry=config.entry,
    )
    for line in overruled(resolved, model.preprocessing):
        note(line)
    source = open_evaluation_split(resolved, model.classes, model.num_classes)
    way = "compile" if config.compile else config.execution
    is_explicit = resolved.is_explicit("execution") or resolved.is_explicit("compile")
    tune(model.runtime, len(source), config.batch_size, model.preprocessing.size, way, is_explicit=is_explicit)
    score = score_of(model, source, config.batch_size, config.num_parallel_workers, max_pixels=config.max_pixels)
    print(f"eval results: {score.results()}")
    return name_bad_images(score, source)


def score_of(
    model: ModelFile, source: Source, batch_size: int, threads: int, *, ahead: int = 2, max_pixels: int = MAX_PIXELS
) -> Score:
    """Evaluate, and tell how fast, and what of the folder is ignored.

    Raises UserError (exit 1) where no image can be read.
    """
    if ignored := getattr(source, "ignored", None):
        note(ignored_line(ignored, "the images"))
    with Progress(len(source), "evaluate") as progress:
        score = evaluate(
            model.runtime,
            source,
            model.preprocessing,
            batch_size=batch_size,
            threads=threads,
            ahead=ahead,
            on_batch=progress.add,
            max_pixels=max_pixels,
        )
        rate = progress.rate
    check_any_readable(score, source)
    note(f"{score.count} images, {rate:.1f} img/s")
    return score


def _autocast(config: Config, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Maker of the context in which weights run in the precision of the options."""
    from convmixer.precision import Precision

    return Precision.of(config, device).autocast


def _data_recipe(given: Mapping[str, Any]) -> str | None:
    """As for training, but none for image folders: what the weights do not say of their input is then ImageNet's."""
    recipe = default_recipe(given)
    return None if recipe == FOLDER_RECIPE else recipe


def open_evaluation_split(resolved: Resolved[Config], classes: ClassMap | None, num_classes: int) -> Source:
    """The evaluation images, labelled in the model's classes. Raises UserError where data and model do not fit."""
    config = resolved.options

    def opener(classes: ClassMap | None) -> Source:
        limit, seed = config.val_num_samples, config.seed
        return open_split(
            config.set, config.data_url, config.val_dir, train=False, classes=classes, limit=limit, seed=seed
        )

    source = opener(classes) if classes is not None else open_unnamed(num_classes, opener, note)
    wanted = config.num_classes if resolved.is_explicit("num_classes") else None
    for number, where in ((wanted, "--num_classes says"), (len(source.classes), "the data has")):
        if number is not None and number != num_classes:
            raise UserError(f"{config.pretrained}: answers in {num_classes} classes, {where} {number}")
    return source


def name_bad_images(score: Score, source: Any) -> int:
    """Name the images that could not be read, and return the exit code."""
    if score.not_finite:
        note(f"{score.not_finite} of {score.count} images got logits that are no numbers; they count as wrong")
    name_unreadable(score.bad, score, source)
    return RUN_FAILED if score.bad or score.not_finite else 0
