"""What a report shows of a run's data and weights, where they are still there."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from shlex import quote
from typing import Any

from convmixer.arch import ArchitectureHints
from convmixer.config.loading import resolve
from convmixer.config.resolved import ARGUMENT
from convmixer.data.inspection.report import inspect
from convmixer.data.inspection.splits import Split
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import Source
from convmixer.errors import UserError
from convmixer.inputs import preprocessing_of
from convmixer.machine import usable_cores
from convmixer.model import ConvMixer
from convmixer.printable import printable
from convmixer.runs.record import RunRecord
from convmixer.runs.saved import TRAIN, saved_options
from convmixer.training.datasets import open_splits
from convmixer.weights.load import build, complete
from convmixer.weights.read import read_weights

logger = logging.getLogger(__name__)

_INSPECTED = 10_000  # images up to which the data are checked by the way
_FEW = 500  # that one process checks faster than several start
_CASES = 3


@dataclass(frozen=True)
class Opened:
    """A run's splits and its network; `index`: places of the evaluation images by their paths in predictions.csv."""

    train: Source
    val: Source
    index: dict[str, int]
    model: ConvMixer
    preprocessing: Preprocessing
    data_url: str | None


def open_run(record: RunRecord) -> Opened | str:
    """The data and the best weights of a run, or why they cannot be shown, in a few words."""
    weights = record.best_weights
    if weights is None:
        return "the best weights are not beside the run any more"
    try:
        # As a run that goes on, it has its own options and its own split.
        command = replace(TRAIN, saved=partial(saved_options, say=logger.debug))
        config = resolve(command, {"resume": record.checkpoints}, None, ARGUMENT).options
        splits = open_splits(config, None, lambda line: None)
        file = read_weights(weights)
        model = build(file, complete(file, ArchitectureHints())[0], ConvMixer).eval()
    except UserError as error:
        return str(error).splitlines()[0]
    start = "" if config.data_url is None else os.path.join(os.path.abspath(config.data_url), "")
    index = {splits.val.name(place).removeprefix(start): place for place in range(len(splits.val))}
    preprocessing = file.preprocessing or preprocessing_of(config, config.in_chans)
    return Opened(splits.train, splits.val, index, model, preprocessing, config.data_url)


def findings(opened: Opened) -> dict[str, Any]:
    """What check-data finds in the run's images, each with its first cases; nothing of large sets but their size."""
    count = len(opened.train) + len(opened.val)
    if opened.data_url is None:
        return {}
    if count > _INSPECTED:
        command = f"convmixer check-data {quote(opened.data_url)}"
        return {"images": count, "is_checked": False, "command": printable(command)}
    names = opened.train.classes.names
    folder = os.path.abspath(opened.data_url)
    splits = tuple(
        Split(name, folder, names, source) for name, source in (("train", opened.train), ("val", opened.val))
    )
    try:
        report = inspect(
            folder,
            splits,
            min_side=32,
            max_imbalance=10.0,
            workers=usable_cores() if count > _FEW else 0,
            on_done=lambda images: None,
        )
    except (UserError, OSError, TypeError) as error:
        logger.debug(f"report: the data could not be checked: {error}")
        return {}
    rows = [
        {
            "category": finding.category,
            "count": len(finding.items),
            "meaning": finding.meaning,
            "cases": [
                printable(", ".join(report.shown(path) for path in item.paths) or item.detail)
                for item in finding.items[:_CASES]
            ],
        }
        for finding in report.findings
    ]
    return {"images": count, "is_checked": True, "findings": rows}
