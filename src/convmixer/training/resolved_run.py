"""What a run is: its options and all that follows from them, known before anything of it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from convmixer.arch import Architecture
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.preprocessing import Preprocessing
from convmixer.distributed.processes import Processes
from convmixer.precision import Precision
from convmixer.training.datasets import TrainingData
from convmixer.training.intervals import Intervals
from convmixer.training.lr_schedule import LRSchedule
from convmixer.weights.read import WeightFile


@dataclass(frozen=True)
class ResolvedRun:
    """The options, with what the weights that the run starts from say, and all that follows from them.

    `command`: as it was typed, for the run's record; `weights`: those that the run starts from, if any.
    """

    resolved: Resolved[Config]
    command: str
    device: torch.device
    processes: Processes
    weights: WeightFile | None
    data: TrainingData
    architecture: Architecture
    sampler: BatchSampler
    precision: Precision
    schedule: LRSchedule
    intervals: Intervals

    @property
    def config(self) -> Config:
        return self.resolved.options

    @property
    def preprocessing(self) -> Preprocessing:
        return self.data.preprocessing

    @property
    def augments_on_host(self) -> bool:
        """Whether flips and the policy are done image by image where the crops are made, not by batch on the device.

        With Pillow's crops all is done as versions did that had no others, to the bit.
        """
        return self.device.type == "cpu" and self.config.resampler == "torch"

    @property
    def metadata(self) -> dict[str, Any]:
        """What every weight file of the run says of itself."""
        return {
            "architecture": self.architecture,
            "classes": self.data.classes,
            "preprocessing": self.data.preprocessing,
        }
