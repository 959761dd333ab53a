"""Every option of training, evaluation and export, declared once. The model zoo's keys keep their names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from convmixer.arch import Activation, parse_arch
from convmixer.augment.spec import parse_policy
from convmixer.config.options import Options, option
from convmixer.config.preprocessing import PreprocessingOptions
from convmixer.errors import UserError
from convmixer.optimizers import OptimizerName


class EntryOptions(Options):
    """Weights"""

    entry: str | None = option(
        None, "which network of a weight file that holds several, as state_dict, teacher or network"
    )


class ModelOptions(Options):
    """Model"""

    arch: str = option("convmixer_768_32", "network: a named variant or any convmixer_<dim>_<depth>", flags=("-a",))
    num_classes: int | None = option(None, "number of classes; left out: as many as the data has", ge=2)
    kernel_size: int | None = option(None, "side of the depthwise kernel; left out: the variant's", ge=1, le=99)
    patch_size: int | None = option(None, "side of a patch in pixels; left out: the variant's", ge=1, le=99)
    activation: Activation | None = option(None, "activation; left out: the variant's")
    in_chans: int = option(3, "image channels: 3 colour, 1 grey", ge=1, le=64)
    pretrained: str | None = option(None, "weight file or checkpoint folder to start from (weights only)", path=True)
    exclude_epoch_state: bool = option(True, "with pretrained the epoch is never taken over; kept for old YAML files")
    freeze: bool = option(False, "train the head only; the rest keeps its weights and statistics")

    @field_validator("arch")
    @classmethod
    def _arch_is_known(cls, value: str) -> str:
        return _as_value_error(parse_arch, value)


class DataOptions(Options):
    """Data"""

    set: Literal["ImageNet", "cifar10", "digits"] = option("ImageNet", "kind of data; ImageNet is any image folder")
    data_url: str | None = option(None, "folder of the data set", path=True)
    train_dir: str = option("train", "folder of the training images, below data_url", path=True)
    val_dir: str = option("val", "folder of the evaluation images, below data_url", path=True)
    train_num_samples: int | None = option(None, "use this many training images, chosen by seed", ge=1)
    val_num_samples: int | None = option(None, "use this many evaluation images, chosen by seed", ge=1)
    batch_size: int = option(128, "images per process and (micro-)batch", ge=1, le=65536)
    num_parallel_workers: int = option(4, "loader processes or decoding threads; 0: none", flags=("-j",), ge=0, le=256)


class DecodingOptions(Options):
    """Decoding"""

    max_pixels: int = option(
        89_478_485,
        "most pixels of an image; a JPEG file of up to four times as many is decoded at half its size",
        ge=1,
    )


class AugmentOptions(Options):
    """Augmentation"""

    hflip: float = option(0.5, "probability of a horizontal flip", ge=0, le=1)
    vflip: float = option(0.0, "probability of a vertical flip", ge=0, le=1)
    auto_augment: str | None = option(
        None,
        "policy of timm (rand-m9-mstd0.5-inc1, v0) or of torchvision (randaugment-n2-m9, augmix-m3)",
        flags=("--aa",),
    )
    aa_interpolation: Literal["random", "nearest", "bilinear", "bicubic"] | None = option(
        None, "resampling of the policy's turns; left out: as interpolation where it is one of these"
    )
    re_prob: float = option(0.0, "probability of random erasing", ge=0, le=1)
    re_mode: Literal["const", "rand", "pixel"] = option("const", "erased with zeros, one colour, or noise")
    re_count: int = option(1, "most erased areas an image", ge=1, le=100)
    mixup: float = option(0.0, "alpha of mixup; 0: none", ge=0)
    cutmix: float = option(0.0, "alpha of cutmix; 0: none", ge=0)
    mixup_prob: float = option(1.0, "probability that a batch (pair, image) is mixed", ge=0, le=1)
    mixup_mode: Literal["batch", "pair", "elem"] = option("batch", "one mixing a batch, a pair or an image")
    mixup_off_epoch: float = option(0.0, "no mixing from this epoch on; 0: never off", ge=0)
    switch_prob: float = option(0.5, "probability of cutmix where both are on", ge=0, le=1)
    label_smoothing: float = option(0.0, "share of a label spread over all classes", ge=0, lt=1)

    @field_validator("auto_augment")
    @classmethod
    def _policy_is_known(cls, value: str | None) -> str | None:
        return value if value is None else _as_value_error(parse_policy, value)


class OptimizerOptions(Options):
    """Optimizer and schedule"""

    optimizer: OptimizerName = option("adamw", "optimizer; sgd uses momentum too")
    base_lr: float = option(0.001, "peak learning rate", gt=0)
    warmup_lr: float = option(0.000007, "learning rate at the start of the warm-up", ge=0)
    min_lr: float = option(0.0, "the schedule never falls below", ge=0)
    lr_scheduler: Literal["cosine_lr", "onecycle", "multistep_lr", "exp_lr", "constant_lr"] = option(
        "cosine_lr", "schedule of the learning rate"
    )
    lr_gamma: float = option(0.97, "factor of exp_lr (an epoch) and multistep_lr (lr_adjust epochs)", gt=0, le=1)
    lr_adjust: float = option(30.0, "epochs in which multistep_lr falls by lr_gamma", gt=0)
    lr_scaling: Literal["none", "linear"] = option("none", "linear: base_lr times global batch / 512")
    warmup_length: float = option(0.0, "epochs of linear warm-up", ge=0)
    beta: tuple[float, float] = option((0.9, 0.999), "decay of AdamW's and Adam's moments")
    eps: float = option(1e-8, "term in AdamW's and Adam's denominator", gt=0)
    momentum: float = option(0.9, "momentum of sgd", ge=0, lt=1)
    weight_decay: float = option(0.0, "decay of convolution and head weights", flags=("--wd",), ge=0)
    decay_all: bool = option(False, "decay biases and BatchNorm's parameters too")
    use_clip_grad_norm: bool = option(False, "clip the norm of the gradient")
    clip_grad_norm: float = option(1.0, "greatest norm of the gradient", gt=0)
    with_ema: bool = option(False, "keep an average of the weights and evaluate, save and export it")
    ema_decay: float = option(0.9999, "decay of that average", ge=0, lt=1)

    @field_validator("beta")
    @classmethod
    def _betas_are_decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"is {value[0]:g} {value[1]:g}, both must be >= 0 and < 1")
        return value


class RunOptions(Options):
    """Run"""

    defaults: Literal["ours", "model_zoo"] = option(
        "ours", "whose defaults hold where neither YAML nor command line says: ours or the MindSpore model zoo's"
    )
    epochs: int = option(300, "epochs of the whole run", ge=1)
    start_epoch: int = option(0, "start the schedule and the order at this epoch", ge=0)
    seed: int = option(0, "seed of every random choice", ge=0, lt=2**32)
    resume: str | None = option(
        None, "checkpoint or run folder to continue, or auto for the newest of a like run", path=True
    )
    force_resume: bool = option(False, "go on in spite of other data, classes or options than the run was started with")
    accumulate: int = option(1, "micro-batches per step", ge=1)
    recompute: bool = option(
        False, "keep only each block's input and compute the rest again: less memory, a third more time"
    )
    eval_every: int = option(1, "epochs between evaluations; the last epoch is always evaluated", ge=1)
    keep_bn_fp32: bool = option(True, "BatchNorm in single precision under mixed precision")
    is_dynamic_loss_scale: bool = option(False, "fp16: adapt the loss scale")
    loss_scale: float = option(1024.0, "fp16: the loss scale, or where the dynamic one starts", gt=0)
    device_num: int = option(1, "number of processes, one for each device", ge=1)
    compile: bool = option(False, "the same as --execution compile")


class SafetyOptions(Options):
    """Safety"""

    max_bad_share: float = option(
        0.01, "stop when more than this share of the training images is unreadable", ge=0, le=1
    )
    loader_timeout: float = option(600.0, "seconds without a batch after which a loader is given up", gt=0)
    dist_timeout: float = option(600.0, "seconds after which a silent process is given up", gt=0)
    max_restarts: int = option(0, "times that a run of several processes is started again when one dies", ge=0)
    sync_bn: bool = option(False, "BatchNorm statistics over all processes")
    debug_nan: bool = option(False, "at a non-finite loss, name the layer that it comes from")


class ExecutionOptions(Options):
    """Execution"""

    execution: Literal["auto", "eager", "compile", "fused", "openvino"] = option(
        "auto", "way of running the network; auto: for long jobs the fastest of those measured, else eager"
    )
    amp_level: Literal["O0", "O1", "O2", "O3"] = option("O0", "O0 single precision; O1 to O3 mixed precision")
    amp_dtype: Literal["auto", "bf16", "fp16"] = option("auto", "type of mixed precision; auto: bf16 where it is had")


class DeviceOptions(Options):
    """Device"""

    device_target: Literal["GPU", "CPU", "Ascend"] | None = option(
        None, "where to run; left out: a GPU if there is one"
    )
    device_id: int = option(0, "number of the device", ge=0)


class OutputOptions(Options):
    """Output"""

    summary_root_dir: str = option("./runs/summary", "folder of run summaries: options, metrics, events", path=True)
    ckpt_root_dir: str = option("./runs/checkpoints", "folder of checkpoints", path=True)
    best_ckpt_root_dir: str = option("./runs/best", "folder of best weights", path=True)
    ckpt_keep_num: int = option(10, "checkpoints kept", ge=1)
    ckpt_save_every_step: int = option(0, "steps between checkpoints; 0: at the end of an epoch only", ge=0)
    ckpt_save_every_sec: float = option(
        0.0, "seconds between checkpoints; 0: at the end of an epoch only", also="ckpt_save_every_seconds", ge=0
    )
    print_loss_every: int = option(50, "steps between log lines", ge=1)
    summary_loss_collect_freq: int = option(10, "steps between entries of metrics.jsonl and the events", ge=1)
    model_postfix: str = option("", "added to the name of the run")
    collect_input_data: bool = option(False, "put a picture of the first training batch into the summary")
    dump_graph: bool = option(False, "put the graph of the model into the summary")
    file_format: Literal["ONNX", "MINDIR", "AIR"] = option("ONNX", "what export writes")


class Config(
    OutputOptions,
    DeviceOptions,
    SafetyOptions,
    ExecutionOptions,
    RunOptions,
    OptimizerOptions,
    AugmentOptions,
    DecodingOptions,
    PreprocessingOptions,
    DataOptions,
    EntryOptions,
    ModelOptions,
):
    """Options of `train`, `eval` and `export`, all groups in one flat name space."""

    @property
    def policy_interpolation(self) -> Literal["random", "nearest", "bilinear", "bicubic"]:
        """What `auto_augment` resamples with: `aa_interpolation`, or, as timm has it, that of the training crops."""
        if self.aa_interpolation is not None:
            return self.aa_interpolation
        # The others are of a resize only: Pillow turns images by these three.
        return self.interpolation if self.interpolation in ("nearest", "bilinear", "bicubic") else "random"


def _as_value_error(check: Any, value: str) -> str:
    """Run a check that raises UserError where pydantic wants a ValueError."""
    try:
        check(value)
    except UserError as error:
        raise ValueError(str(error)) from None
    return value
