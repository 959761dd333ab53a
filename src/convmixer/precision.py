"""What the model zoo's amp_level and keep_bn_fp32 mean in torch.

MindSpore's levels cast ever more of the network to fp16: O1 chosen operations, O2 all weights but BatchNorm's, O3 all.
torch's autocast keeps every weight, gradient and optimizer moment in fp32 and runs convolutions and matrix products in
a 16-bit type, which is nearest to O1 and loses least. Here O0 is fp32 and O1, O2, O3 are that one autocast.

BatchNorm under autocast takes and gives 16-bit values; between, its arithmetic, statistics and parameters are fp32:
the same numbers as BatchNorm in fp32 with a rounded result. So `keep_bn_fp32: True` holds at every level, and `False`,
or O3, cannot lower it. fp32 means torch's own: on a CUDA GPU its default lets convolutions use TF32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from convmixer.errors import UserError

if TYPE_CHECKING:
    from convmixer.config.execution import AmpDtype, PrecisionOptions


@dataclass(frozen=True)
class Precision:
    """Of what type convolutions and matrix products are on a type of device, and a few words that say so."""

    dtype: torch.dtype
    device_type: str
    description: str

    @classmethod
    def of(cls, options: PrecisionOptions, device: torch.device) -> Precision:
        """What the options mean on this device.

        `auto` is bf16 on a CPU and on a GPU that has it, else fp16. Raises UserError for bf16 on a GPU without it.
        """
        level, amp_dtype = options.amp_level, options.amp_dtype
        if level == "O0":
            ignored = "" if amp_dtype == "auto" else f"; amp_dtype: {amp_dtype} takes effect from O1 on"
            return cls(torch.float32, device.type, f"O0: fp32{ignored}")
        dtype = _autocast_dtype(amp_dtype, device)
        name = "bf16" if dtype == torch.bfloat16 else "fp16"
        wants_lower = level == "O3" or not options.keep_bn_fp32
        kept = "parameters and BatchNorm in fp32" + (" all the same (autocast has no lower)" if wants_lower else "")
        return cls(dtype, device.type, f"{level}: {name} autocast, {kept}")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass. The backward pass follows its types by itself and stays outside."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)


def _autocast_dtype(amp_dtype: AmpDtype, device: torch.device) -> torch.dtype:
    if amp_dtype == "fp16":
        return torch.float16
    if device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return torch.bfloat16
        if amp_dtype == "bf16":
            raise UserError(
                f"amp_dtype: bf16 needs a GPU of compute capability 8.0 or more, this one has {major}.{minor}; "
                "use fp16 or auto."
            )
        return torch.float16
    return torch.bfloat16 if amp_dtype == "bf16" or device.type in ("cpu", "cuda") else torch.float16
