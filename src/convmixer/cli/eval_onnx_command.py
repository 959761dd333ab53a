"""`convmixer eval-onnx`: an ONNX file on a folder of labelled images; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.opening import detect_format, open_model
from convmixer.cli.eval_command import name_bad_images, score_of
from convmixer.config.loading import Command, Resolved, parse
from convmixer.config.onnx import EvalOnnxOptions
from convmixer.data.folders import open_folder
from convmixer.data.sources import open_unnamed
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inputs import preprocessing_for
from convmixer.terminal.progress import note

COMMAND = Command("eval-onnx", "Evaluate an ONNX model on labelled images.", EvalOnnxOptions, positional="dataset")


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv)
    options = resolved.options
    if options.dataset is None:
        raise UserError("DATASET: a folder of images with one folder a class is needed")
    model = open_named_model(resolved)
    opener = partial(open_folder, Path(options.dataset), "DATASET")
    source = opener(model.classes) if model.classes else open_unnamed(model.num_classes, opener, note)
    if len(source.classes) != model.num_classes:
        raise UserError(
            f"the model answers in {model.num_classes} classes and does not name them, "
            f"{options.dataset} has {len(source.classes)}",
            exit_code=RUN_FAILED,
        )
    score = score_of(
        model,
        source,
        options.batch_size,
        options.num_parallel_workers,
        ahead=options.prefetch,
        max_pixels=options.max_pixels,
    )
    print(f"eval results: { {name: value for name, value in score.results().items() if name != 'Loss'} }")
    return name_bad_images(score, source)


def open_named_model(resolved: Resolved[Any]) -> ModelFile:
    """The model of --onnx_path, else the only one in the current folder. Raises UserError where there is none."""
    options = resolved.options
    path = options.onnx_path or _only_onnx_file()
    if Path(path).exists() and detect_format(path) != "onnx":
        raise UserError(f"--onnx_path: {path} is not an ONNX file")
    is_explicit = resolved.is_explicit("device_target")
    request = DeviceRequest(options.device_target, options.device_id, is_explicit, options.engine, options.onnx_output)
    return open_model(path, partial(preprocessing_for, resolved), request)


def _only_onnx_file() -> str:
    found = sorted(str(path) for path in Path().glob("*.onnx"))
    if len(found) != 1:
        among = f"there are {len(found)} ({', '.join(found[:3])} ...)" if found else "there is none"
        raise UserError(f"--onnx_path: left out, it means the only .onnx file in the current folder, but {among}")
    return found[0]
