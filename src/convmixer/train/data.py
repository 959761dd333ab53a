"""The two splits that a run reads and how, from its options; what does not fit together is refused here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convmixer.config.loading import Resolved
from convmixer.config.schema import Config
from convmixer.data.classes import ClassMap
from convmixer.data.folders import refuse_nested
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.data.sources import Source, open_split
from convmixer.errors import UserError
from convmixer.inputs import preprocessing_of


@dataclass(frozen=True)
class TrainingData:
    """Both splits, with the labels of both counting in the training split's classes."""

    train: Source
    val: Source
    preprocessing: Preprocessing

    @property
    def classes(self) -> ClassMap:
        return self.train.classes

    def fingerprint(self) -> str:
        """SHA-256 over the names and labels of the training images, in their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.labels).tobytes())
        for index in range(len(self.train)):
            digest.update(self.train.name(index).encode(errors="surrogateescape") + b"\0")
        return digest.hexdigest()


def open_training_data(config: Config) -> TrainingData:
    """Open both splits. Raises UserError where one is missing or they do not fit."""
    if config.set == "ImageNet" and config.data_url is not None:
        refuse_nested(Path(config.data_url) / config.train_dir, Path(config.data_url) / config.val_dir)
    train = open_split(
        config.set, config.data_url, config.train_dir, train=True, limit=config.train_num_samples, seed=config.seed
    )
    val = open_split(
        config.set,
        config.data_url,
        config.val_dir,
        train=False,
        classes=train.classes,
        limit=config.val_num_samples,
        seed=config.seed,
    )
    return TrainingData(train, val, preprocessing_of(config, config.in_chans))


def class_count(resolved: Resolved[Config], classes: ClassMap) -> int:
    """Outputs of the network: as many as classes. Raises UserError where `num_classes` says another number."""
    wanted = resolved.options.num_classes
    if wanted is not None and wanted != len(classes):
        raise UserError(
            f"num_classes: is {wanted} ({resolved.origins['num_classes']}), the data has {len(classes)} classes; "
            f"pass --num_classes {len(classes)}, or the data that was meant"
        )
    return len(classes)


def train_reader(config: Config, data: TrainingData) -> TrainReader:
    """What makes the training crops."""
    return TrainReader(
        data.train,
        data.preprocessing,
        seed=config.seed,
        min_crop=config.min_crop,
        ratio=config.crop_ratio,
        interpolation=config.interpolation,
        max_pixels=config.max_pixels,
    )
