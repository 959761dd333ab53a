"""The two splits that a run reads and how, from its options; what does not fit together is refused here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.holdout import HeldOut, read_record, record_beside
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.data.source import Source, seeded_subset
from convmixer.data.splits import find_splits, open_unnamed
from convmixer.errors import UserError
from convmixer.inputs import overruled, preprocessing_for, preprocessing_of
from convmixer.training.loading.torch_resize import torch_resize
from convmixer.weights.read import WeightFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Both splits, with the labels of both counting in the training split's classes.

    `train_size`: side of the training crops, which may be smaller than those of evaluation: an object then has about
    the size in both, since training crops enlarge it (https://arxiv.org/abs/1906.06423).
    `held_out`: how the evaluation images were held out of the training images, where there were none.
    """

    train: Source
    val: Source
    preprocessing: Preprocessing
    train_size: int
    held_out: HeldOut | None = None

    @property
    def train_preprocessing(self) -> Preprocessing:
        return replace(self.preprocessing, size=self.train_size)

    @property
    def classes(self) -> ClassMap:
        return self.train.classes

    def fingerprint(self) -> str:
        """SHA-256 over the names and labels of the training images, in their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.labels).tobytes())
        if isinstance(self.train, Files):
            digest.update(self.train.paths.encoded)  # the same bytes, at once
            return digest.hexdigest()
        for index in range(len(self.train)):
            digest.update(self.train.name(index).encode(errors="surrogateescape") + b"\0")
        return digest.hexdigest()


@dataclass(frozen=True)
class OpenedSplits:
    """Both splits as they are opened, before it is known how their images are read."""

    train: Source
    val: Source
    held_out: HeldOut | None = None


def open_splits(config: Config, weights: WeightFile | None, say: Callable[[str], None] = logger.info) -> OpenedSplits:
    """Open both splits; `weights`: those that the run starts from. `say` gets lines on what is found.

    Raises UserError where a split is missing or something does not fit.
    """
    splits = find_splits(config)
    if splits.remark is not None:
        say(splits.remark)
    if weights is not None and weights.classes is None:
        whole = open_unnamed(weights.shape.num_classes, splits.open_train, say)
    else:
        whole = splits.open_train()
    held: HeldOut | None = None
    if splits.val_dir is None:
        record = None if config.resume is None else record_beside(Path(config.resume))
        held = splits.hold_out(whole, None if record is None else read_record(record))
        how = f"as in {record}" if record is not None else f"{held.fraction:g} of each class, by seed {held.seed}"
        say(f"{len(held.val)} of {len(whole)} images are held out for evaluation ({how})")
    train: Source = whole if held is None else held.train
    val: Source = splits.open_val(whole.classes) if held is None else held.val
    return OpenedSplits(
        seeded_subset(train, config.train_num_samples, config.seed),
        seeded_subset(val, config.val_num_samples, config.seed),
        held,
    )


def training_data(
    resolved: Resolved[Config],
    splits: OpenedSplits,
    weights: WeightFile | None = None,
    say: Callable[[str], None] = logger.info,
) -> TrainingData:
    """The splits with the preprocessing that options and weights ask for; `say` gets lines on what these decide.

    Raises UserError where they do not fit.
    """
    config = resolved.options
    if weights is None:
        preprocessing = preprocessing_of(config, config.in_chans)
    else:
        channels, wanted = weights.shape.in_chans, resolved.explicit("in_chans")
        if wanted not in (None, channels):
            raise UserError(f"in_chans: the weights take {channels} channels, the options say {wanted}")
        preprocessing = preprocessing_for(resolved, weights.preprocessing, channels)
        for line in overruled(resolved, preprocessing):
            say(line)
    train_size = config.train_image_size
    if weights is not None and weights.preprocessing is not None:
        train_size = resolved.explicit("train_image_size")
    return TrainingData(splits.train, splits.val, preprocessing, train_size or preprocessing.size, splits.held_out)


def check_class_count(resolved: Resolved[Config], classes: ClassMap) -> None:
    """Raises UserError where `num_classes` says another number than the data has."""
    wanted = resolved.options.num_classes
    if wanted is not None and wanted != len(classes):
        raise UserError(
            f"num_classes: is {wanted} ({resolved.origins['num_classes']}), the data has {len(classes)} classes; "
            f"pass --num_classes {len(classes)}, or the data that was meant"
        )


def train_reader(config: Config, data: TrainingData) -> TrainReader:
    """What makes the training crops."""
    return TrainReader(
        data.train,
        data.train_preprocessing,
        seed=config.seed,
        min_crop=config.min_crop,
        ratio=config.crop_ratio,
        interpolation=config.interpolation,
        max_pixels=config.max_pixels,
        resize=torch_resize if config.resampler == "torch" else None,
    )
