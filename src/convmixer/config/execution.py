"""Options of the arithmetic, of how the network is run, and where."""

from __future__ import annotations

from typing import Literal

from convmixer.config.options import Options, option

Execution = Literal["auto", "eager", "compile", "fused", "openvino"]
AmpLevel = Literal["O0", "O1", "O2", "O3"]
AmpDtype = Literal["auto", "bf16", "fp16"]
DeviceTarget = Literal["GPU", "CPU", "Ascend"]


class PrecisionOptions(Options):
    """Precision"""

    amp_level: AmpLevel = option(
        "O0",
        "O0 single precision; O1 to O3 mixed precision",
        other_names="fp16 bf16 half mixed_precision",
        commands="train eval",
    )
    amp_dtype: AmpDtype = option(
        "auto", "type of mixed precision; auto: bf16 where it is supported", commands="train eval"
    )
    keep_bn_fp32: bool = option(True, "BatchNorm in single precision under mixed precision", commands="train eval")


class LossScaleOptions(Options):
    """Precision"""

    is_dynamic_loss_scale: bool = option(False, "fp16: adapt the loss scale")
    loss_scale: float = option(1024.0, "fp16: the loss scale, or where the dynamic one starts", gt=0)


class ExecutionOptions(Options):
    """Execution"""

    execution: Execution = option(
        "auto",
        "backend that runs the network; auto: for long runs the fastest of those measured, else eager",
        other_names="backend",
        commands="train eval",
        affects_training=False,
    )
    native_code: bool = option(
        False,
        "run a file that is machine code (.aoti.pt2), which can do whatever you can do",
        commands="eval",
        affects_training=False,
    )
    compile: bool = option(False, "the same as --execution compile", commands="train eval", affects_training=False)

    @property
    def requested_execution(self) -> Execution:
        """What both options together ask for."""
        return "compile" if self.compile else self.execution


class EngineOptions(Options):
    """Execution"""

    engine: Literal["onnxruntime", "openvino"] = option(
        "onnxruntime",
        "what runs an ONNX file; openvino is for CPUs and takes bf16 beside int8 where the processor has it",
    )


class DeviceOptions(Options):
    """Device"""

    device_target: DeviceTarget | None = option(
        None,
        "where to run; left out: a GPU if there is one",
        other_names="device gpu",
        commands="train eval",
        affects_training=False,
    )
    device_id: int = option(
        0, "number of the device", other_names="gpu_id", commands="train eval", affects_training=False, ge=0
    )
