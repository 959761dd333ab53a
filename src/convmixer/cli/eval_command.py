"""`convmixer eval`: weights of any layout on a labelled split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convmixer.cli.train_command import default_recipe
from convmixer.config.loading import DEFAULT, Command, Resolved, parse
from convmixer.config.schema import Config
from convmixer.data.classes import ClassMap
from convmixer.data.sources import Source, open_split
from convmixer.errors import RUN_FAILED, UserError
from convmixer.evaluate import evaluate
from convmixer.inputs import preprocessing_for
from convmixer.metrics import Score
from convmixer.progress import Progress, note

COMMAND = Command("eval", "Evaluate the weights of --pretrained on the evaluation images.", Config, takes_config=True)


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv, default_recipe=default_recipe)
    config = resolved.options
    if config.pretrained is None:
        raise UserError("--pretrained: a weight file or a checkpoint folder is needed")
    from convmixer.runtime.devices import choose_device
    from convmixer.runtime.model_file import open_weights
    from convmixer.train.precision import Precision

    device, remark = choose_device(config.device_target, config.device_id, asked=resolved.asked("device_target"))
    if remark is not None:
        note(remark)
    precision = Precision.resolve(
        config.amp_level, config.amp_dtype, config.keep_bn_fp32, device, config.is_dynamic_loss_scale, config.loss_scale
    )
    model = open_weights(
        config.pretrained,
        None if resolved.origins["arch"] == DEFAULT else config.arch,
        lambda record, channels: preprocessing_for(resolved, record, channels),
        device,
        autocast=precision.autocast,
        kernel_size=config.kernel_size,
        patch_size=config.patch_size,
        activation=config.activation,
    )
    source = open_evaluation_split(resolved, model.classes, model.num_classes)
    with Progress(len(source), "evaluate") as progress:
        score = evaluate(
            model.runtime,
            source,
            model.preprocessing,
            batch_size=config.batch_size,
            threads=config.num_parallel_workers,
            on_batch=progress.add,
        )
        rate = progress.rate
    note(f"{score.count} images, {rate:.1f} img/s")
    print(f"eval results: {score.results()}")
    return name_bad_images(score, source)


def open_evaluation_split(resolved: Resolved[Config], classes: ClassMap | None, num_classes: int) -> Source:
    """The evaluation images, labelled in the model's classes. Raises UserError where data and model do not fit."""
    config = resolved.options
    source = open_split(
        config.set,
        config.data_url,
        config.val_dir,
        train=False,
        classes=classes,
        limit=config.val_num_samples,
        seed=config.seed,
    )
    wanted = config.num_classes if resolved.asked("num_classes") else None
    for number, where in ((wanted, "--num_classes says"), (len(source.classes), "the data has")):
        if number is not None and number != num_classes:
            raise UserError(f"{config.pretrained}: answers in {num_classes} classes, {where} {number}")
    return source


def name_bad_images(score: Score, source: Any) -> int:
    """Name the images that could not be read, and return the exit code."""
    for index, reason in score.bad:
        note(f"not evaluated: {source.name(index)}: {reason}")
    if score.bad:
        note(f"{len(score.bad)} of {len(score.bad) + score.count} images could not be read and are not in the results")
        return RUN_FAILED
    return 0
