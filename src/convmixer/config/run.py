"""Options of a training run as a whole: its length in processes and memory, its safety, what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from convmixer.config.options import Options, option
from convmixer.plugins import names_in

if TYPE_CHECKING:
    LoggerName = str
else:
    LoggerName = Literal[names_in("training.logging.loggers")]


class RunOptions(Options):
    """Run"""

    defaults: Literal["ours", "model_zoo"] = option(
        "ours",
        "whose defaults hold where neither YAML nor command line says: ours or the MindSpore model zoo's",
        affects_training=False,
    )
    seed: int = option(0, "seed of every random choice", commands="train eval export", ge=0, lt=2**32)
    resume: str | None = option(
        None,
        "checkpoint or run folder to continue, or auto for the newest of a like run",
        path=True,
        other_names="continue",
        affects_training=False,
    )
    force_resume: bool = option(
        False,
        "go on in spite of other data, classes or options than the run was started with",
        affects_training=False,
    )
    accumulate: int = option(1, "micro-batches per step", other_names="grad_accum", affects_training=False, ge=1)
    recompute: bool = option(
        False,
        "keep only each block's input and compute the rest again: less memory, up to a third more time",
        affects_training=False,
    )
    eval_every: int = option(
        1, "epochs between evaluations; the last epoch is always evaluated", affects_training=False, ge=1
    )
    patience: int = option(
        0,
        "end the run after so many evaluations without a better top-1; 0: never",
        other_names="early_stopping early_stopping_patience early_stop",
        affects_training=False,
        ge=0,
    )
    device_num: int = option(
        1,
        "number of processes, one for each device",
        other_names="gpus num_gpus ngpus nproc nproc_per_node world_size devices",
        affects_training=False,
        ge=1,
    )
    sync_bn: bool = option(False, "BatchNorm statistics over all processes", other_names="sync_batchnorm")


class SafetyOptions(Options):
    """Safety"""

    max_bad_fraction: float = option(
        0.01,
        "stop when more than this fraction of the training images is unreadable",
        also="max_bad_share",
        affects_training=False,
        ge=0,
        le=1,
    )
    loader_timeout: float = option(
        600.0, "seconds without a batch after which a loader is given up", affects_training=False, gt=0
    )
    dist_timeout: float = option(
        600.0, "seconds after which a silent process is given up", affects_training=False, gt=0
    )
    max_restarts: int = option(
        0, "times that a run of several processes is started again when one dies", affects_training=False, ge=0
    )
    debug_nan: bool = option(False, "at a non-finite loss, name the layer that it comes from", affects_training=False)


class FolderOptions(Options):
    """Output"""

    summary_root_dir: str = option(
        "./runs/summary",
        "folder of run summaries: options, metrics, events",
        path=True,
        other_names="log_dir logdir logs",
        affects_training=False,
    )
    ckpt_root_dir: str = option(
        "./runs/checkpoints",
        "folder of checkpoints",
        path=True,
        other_names="output_dir output out out_dir save_dir o",
        affects_training=False,
    )
    best_ckpt_root_dir: str = option("./runs/best", "folder of best weights", path=True, affects_training=False)


class OutputOptions(FolderOptions):
    """Output"""

    ckpt_keep_num: int = option(
        10, "checkpoints kept", other_names="keep save_total_limit", affects_training=False, ge=1
    )
    ckpt_save_every_step: int = option(
        0,
        "steps between checkpoints; 0: at the end of an epoch only",
        other_names="save_steps save_every save_interval",
        affects_training=False,
        ge=0,
    )
    ckpt_save_every_sec: float = option(
        0.0,
        "seconds between checkpoints; 0: at the end of an epoch only",
        also="ckpt_save_every_seconds",
        affects_training=False,
        ge=0,
    )
    print_loss_every: int = option(
        50,
        "steps between log lines",
        other_names="log_interval log_every logging_steps print_freq",
        affects_training=False,
        ge=1,
    )
    summary_loss_collect_freq: int = option(
        10, "steps between entries of metrics.jsonl and of what log_to names", affects_training=False, ge=1
    )
    log_to: tuple[LoggerName, ...] = option(
        ("tensorboard",),
        "where metrics go beside metrics.jsonl, one or several",
        other_names="report_to log_with logger loggers tracker tensorboard wandb use_wandb log_wandb mlflow trackio",
        affects_training=False,
    )
    model_postfix: str = option(
        "", "added to the name of the run", other_names="name run_name experiment", affects_training=False
    )
    report: bool = option(True, "explain the run in report.html of its summary when it is done", affects_training=False)
    collect_input_data: bool = option(
        False, "put a picture of the first training batch into the summary", affects_training=False
    )
    dump_graph: bool = option(False, "put the graph of the model into the summary", affects_training=False)
