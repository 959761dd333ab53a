"""The options of `train`, which `eval` and `export` accept too. The model zoo's keys keep their names."""

from __future__ import annotations

from pydantic import field_validator

from convmixer.config.augment import AugmentOptions
from convmixer.config.benchmark import BenchmarkOptions
from convmixer.config.data import AUTO_BATCH, DataOptions, DecodingOptions, ShardOptions
from convmixer.config.evaluation import ScoreOptions
from convmixer.config.execution import DeviceOptions, ExecutionOptions, LossScaleOptions, PrecisionOptions
from convmixer.config.export import ExportOptions, FormatOptions
from convmixer.config.log import LogOptions
from convmixer.config.loss import LossOptions
from convmixer.config.model import ModelOptions
from convmixer.config.optimizer import OptimizerOptions, ScheduleOptions
from convmixer.config.planning import PlanOptions, RangeTestOptions
from convmixer.config.preprocessing import InputOptions
from convmixer.config.run import OutputOptions, RunOptions, SafetyOptions
from convmixer.errors import UserError
from convmixer.optimizers import refuse_missing


class Config(
    LogOptions,
    FormatOptions,
    OutputOptions,
    DeviceOptions,
    SafetyOptions,
    ExecutionOptions,
    LossScaleOptions,
    PrecisionOptions,
    RunOptions,
    ScheduleOptions,
    OptimizerOptions,
    LossOptions,
    AugmentOptions,
    InputOptions,
    DecodingOptions,
    ShardOptions,
    DataOptions,
    ModelOptions,
):
    """All groups in one flat name space. A component takes its group: a Config is each of them."""

    @property
    def trains_head_alone(self) -> bool:
        """Whether nothing but the head learns in the whole run."""
        return self.freeze or self.unfreeze_epoch >= self.epochs


def refuse_contradictions(config: Config) -> None:
    """Raises UserError for options of training that contradict each other, or need what is not installed."""
    if config.recompute and (config.compile or config.execution == "compile"):
        raise UserError(
            "--recompute: torch.compile decides by itself what it keeps and what it computes again; leave one out"
        )
    if config.freeze and config.resume is not None:
        raise UserError("--resume: --freeze is done in seconds, there is nothing to go on with; start it anew")
    if config.freeze and config.unfreeze_epoch:
        raise UserError("--freeze: trains the head alone to the end; leave it out, or --unfreeze_epoch")
    refuse_missing(config.optimizer)
    if config.with_ema and config.optimizer_averages:
        raise UserError(f"--with_ema: {config.optimizer} keeps an average of the weights itself; leave one out")


class EvalConfig(ScoreOptions, Config):
    """Options of `eval`."""

    @field_validator("batch_size")
    @classmethod
    def _measured_in_training_alone(cls, value: int) -> int:
        default: int = Config.model_fields["batch_size"].default
        return default if value == AUTO_BATCH else value


class ExportConfig(ExportOptions, Config):
    """Options of `export`."""


class LrFindConfig(RangeTestOptions, Config):
    """Options of `lr-find`."""


class PlanConfig(PlanOptions, Config):
    """Options of `plan`."""


class BenchmarkConfig(BenchmarkOptions, Config):
    """Options of `benchmark`."""
