"""`convmixer infer`: classify image files by weights of any layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convmixer.config.inference import InferOptions
from convmixer.config.loading import Command, parse
from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files, image_files
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inputs import preprocessing_for
from convmixer.predict import line_of, predict, printable, write_predictions
from convmixer.progress import Progress, note
from convmixer.runtime import Runtime

COMMAND = Command("infer", "Classify an image or a folder of images.", InferOptions, positional="data")


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv)
    options = resolved.options
    if options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    files = find_images(options)
    from convmixer.runtime.devices import choose_device
    from convmixer.runtime.model_file import open_weights

    device, remark = choose_device(options.device_target, options.device_id, asked=resolved.asked("device_target"))
    if remark is not None:
        note(remark)
    model = open_weights(
        options.checkpoint,
        options.arch,
        lambda record, channels: preprocessing_for(resolved, record, channels),
        device,
        activation=options.activation,
    )
    return answer(options, files, model.runtime, model.preprocessing, model.classes)


def find_images(options: Any) -> Files:
    """The images that the command line names. Raises UserError where there are none."""
    if options.data is None:
        raise UserError("DATA: an image or a folder of images is needed")
    return Files(image_files(options.data, recursive=options.recursive))


def answer(options: Any, files: Files, runtime: Runtime, preprocessing: Preprocessing, classes: ClassMap | None) -> int:
    """Classify the files, print and write the answers, and return the exit code."""
    full, answers = options.format == "full", []
    with Progress(len(files), "infer") as progress:
        for prediction in predict(
            runtime,
            files,
            preprocessing,
            batch_size=options.batch_size,
            threads=options.num_parallel_workers,
            topk=options.topk,
            on_batch=progress.add,
        ):
            answers.append(prediction)
            if prediction.fault is None:
                print(line_of(prediction, classes, full=full))
            else:
                note(f"not classified: {printable(prediction.path)}: {prediction.fault}")
        rate = progress.rate
    write_predictions(Path(options.output), answers, classes, full=full)
    faults = sum(prediction.fault is not None for prediction in answers)
    note(f"{len(answers) - faults} images, {rate:.1f} img/s; answers in {options.output}")
    if faults:
        note(f"{faults} of {len(answers)} images could not be read")
    return RUN_FAILED if faults else 0
