"""`convmixer infer`: classify image files by weights of any layout, an ONNX or a MINDIR file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmixer.config.inference import InferOptions
from convmixer.config.loading import Command, parse
from convmixer.data.folders import Files, ignored_line, open_files
from convmixer.data.imagenet import imagenet_classes
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inputs import preprocessing_for
from convmixer.predict import line_of, predict, write_predictions
from convmixer.printable import printable
from convmixer.progress import Progress, note
from convmixer.runtime import tune

if TYPE_CHECKING:
    import torch

    from convmixer.runtime.model_file import ModelFile

COMMAND = Command("infer", "Classify an image or a folder of images.", InferOptions, positional="data")


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv)
    options = resolved.options
    if options.checkpoint is None:
        raise UserError("--checkpoint: a weight file or a checkpoint folder is needed")
    files = find_images(options)
    # No engine is imported before the file tells which one it needs.
    from convmixer.runtime.model_file import DeviceWish
    from convmixer.runtime.opening import open_model

    model = open_model(
        options.checkpoint,
        partial(preprocessing_for, resolved),
        DeviceWish(options.device_target, options.device_id, resolved.asked("device_target")),
        arch=options.arch,
        autocast=partial(_autocast, options),
        activation=options.activation,
    )
    way, asked = options.execution, resolved.asked("execution")
    tune(model.runtime, len(files), options.batch_size, model.preprocessing.size, way, asked=asked)
    return answer(options, files, model)


def _autocast(options: InferOptions, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Maker of the context in which weights run in the precision of the options."""
    from convmixer.train.precision import Precision

    return Precision.resolve(options.amp_level, options.amp_dtype, True, device, False, 1.0).autocast


def find_images(options: Any) -> Files:
    """The images that the command line names. Raises UserError where there are none."""
    if options.data is None:
        raise UserError("DATA: an image or a folder of images is needed")
    files = open_files(options.data, recursive=options.recursive)
    if files.ignored:
        note(ignored_line(files.ignored, "the images"))
    return files


def answer(options: Any, files: Files, model: ModelFile, *, ahead: int = 2) -> int:
    """Classify the files, print and write the answers, and return the exit code."""
    full, answers = options.format == "full", []
    classes = model.classes
    if full and classes is None and model.num_classes == len(imagenet_classes()):
        classes = imagenet_classes()
        note(f"the model names no classes; its {len(classes)} are taken for ImageNet's")
    with Progress(len(files), "infer") as progress:
        for prediction in predict(
            model.runtime,
            files,
            model.preprocessing,
            batch_size=options.batch_size,
            threads=options.num_parallel_workers,
            ahead=ahead,
            topk=options.topk,
            on_batch=progress.add,
            max_pixels=options.max_pixels,
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
