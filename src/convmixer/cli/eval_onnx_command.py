"""`convmixer eval-onnx`: an ONNX file on a folder of labelled images; no torch."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from convmixer.cli.evaluation_output import check_outputs, tell
from convmixer.cli.onnx_file import open_named_model
from convmixer.config.command import Command
from convmixer.config.onnx import EvalOnnxOptions
from convmixer.config.resolved import Resolved
from convmixer.data.classes import ClassMap
from convmixer.data.folders import open_folder
from convmixer.data.source import Source
from convmixer.data.splits import FOLDERS, open_split, open_unnamed, source_of
from convmixer.errors import RUN_FAILED, UserError
from convmixer.machine import workers
from convmixer.model_evaluation import score_of

logger = logging.getLogger(__name__)

COMMAND = Command("eval-onnx", "Evaluate an ONNX model on labelled images.", EvalOnnxOptions, positional="dataset")


def run(resolved: Resolved[EvalOnnxOptions]) -> int:
    options = resolved.options
    if options.dataset is None:
        raise UserError("DATASET: a folder of images with one folder per class is needed")
    check_outputs(options)
    model = open_named_model(resolved)
    opener = partial(_open, options.dataset)
    source = opener(model.classes) if model.classes else open_unnamed(model.num_classes, opener, logger.info)
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
        workers(options.num_parallel_workers),
        ahead=options.prefetch,
        max_pixels=options.max_pixels,
        tta=options.tta,
    )
    print(f"eval results: { {name: value for name, value in score.results().items() if name != 'Loss'} }")
    return tell(score, source, options)


def _open(dataset: str, classes: ClassMap | None) -> Source:
    """The evaluation images: a folder of class folders, or what any other source knows for its own."""
    if source_of(FOLDERS, dataset, ".") == FOLDERS:
        return open_folder(Path(dataset), "DATASET", classes)
    return open_split(FOLDERS, dataset, "val", train=False, classes=classes)
