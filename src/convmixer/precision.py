"""What the model zoo's amp_level, keep_bn_fp32 and loss scale mean in torch, said as it is.

MindSpore's levels cast ever more of the network to fp16: O1 chosen operations, O2 all weights but BatchNorm's, O3 all.
torch's autocast keeps every weight, gradient and optimizer moment in fp32 and runs convolutions and matrix products in
a 16-bit type, which is nearest to O1 and loses least. Here O0 is fp32 and O1, O2, O3 are that one autocast.

BatchNorm under autocast takes and gives 16-bit values; between, its arithmetic, statistics and parameters are fp32:
the same numbers as BatchNorm in fp32 with a rounded result. So `keep_bn_fp32: True` holds at every level, and `False`,
or O3, cannot lower it. fp32 means torch's own: on a CUDA GPU its default lets convolutions use TF32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from convmixer.errors import RUN_FAILED, UserError
from convmixer.training.optimizer import honours_found_inf

AmpLevel = Literal["O0", "O1", "O2", "O3"]
AmpDtype = Literal["auto", "bf16", "fp16"]
ScalingMode = Literal["none", "fixed", "dynamic"]


class PrecisionOptions(Protocol):
    """The options that decide on the arithmetic, as the configuration has them."""

    @property
    def amp_level(self) -> AmpLevel: ...
    @property
    def amp_dtype(self) -> AmpDtype: ...
    @property
    def keep_bn_fp32(self) -> bool: ...
    @property
    def is_dynamic_loss_scale(self) -> bool: ...
    @property
    def loss_scale(self) -> float: ...


# Below this the gradients are not too large for fp16: they are not finite at any scale.
SMALLEST_SCALE = 2.0**-14


class LossScaler:
    """Multiplies the loss before the backward pass and divides the gradients after it: fp16 then keeps small ones.

    An optimizer step is: `scale(loss).backward()` for each accumulated batch, `unscale_(optimizer)` once, clip,
    `step(optimizer)`.

    * `none`: does nothing and never waits for the device.
    * `fixed`: always `loss_scale`. Gradients that are not finite come through, for the caller to see.
    * `dynamic`: torch's GradScaler from `loss_scale` on. A step whose gradients are not finite is skipped and halves
      the scale; 2000 good steps in a row double it.

    `value` is the scale of the next backward pass, a plain float.
    """

    def __init__(self, mode: ScalingMode = "none", loss_scale: float = 1.0, device_type: str = "cpu") -> None:
        assert loss_scale > 0
        self.mode = mode
        # As GradScaler holds it: a value that fp32 rounds down must not look like a scale that was halved.
        self.value = 1.0 if mode == "none" else torch.tensor(loss_scale, dtype=torch.float32).item()
        self._grad_scaler: torch.amp.GradScaler | None = None
        if mode == "dynamic":
            self._grad_scaler = torch.amp.GradScaler(device_type, init_scale=self.value)

    @property
    def skips_non_finite(self) -> bool:
        """Whether gradients that are not finite are this class's business and not the caller's."""
        return self._grad_scaler is not None

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, times the scale."""
        if self._grad_scaler is not None:
            scaled: torch.Tensor = self._grad_scaler.scale(loss)
            return scaled
        return loss if self.mode == "none" else loss * self.value

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, in place."""
        if self._grad_scaler is not None:
            self._grad_scaler.unscale_(optimizer)
        elif self.mode == "fixed":
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1.0 / self.value)

    def step(self, optimizer: torch.optim.Optimizer, found_inf: torch.Tensor | None = None) -> bool:
        """The optimizer's step; False when it was skipped.

        `found_inf`, a scalar on the device, not for `dynamic` and only for an optimizer that honours it: where it is 1
        nothing changes; that is not waited for, and counts as made. `dynamic` waits for the device: whether a step was
        skipped decides how the average is warmed up from there on. Raises UserError when a dynamic scale has been
        halved until nothing is left of it.
        """
        if self._grad_scaler is None:
            if found_inf is None:
                optimizer.step()
                return True
            assert honours_found_inf(optimizer), "its update would be made whatever the flag says"
            # As GradScaler tells it, and for one step only.
            told: Any = optimizer
            told.found_inf = found_inf
            try:
                optimizer.step()
            finally:
                del told.found_inf
            return True
        assert found_inf is None, "a dynamic scale finds out by itself"
        self._grad_scaler.step(optimizer)
        self._grad_scaler.update()
        before, self.value = self.value, self._grad_scaler.get_scale()
        if self.value < SMALLEST_SCALE:
            raise UserError(
                f"the loss scale fell to {self.value:g}: the gradients are not finite at any scale; "
                "lower base_lr, or use amp_level: O0 or amp_dtype: bf16.",
                exit_code=RUN_FAILED,
            )
        return self.value >= before

    def state_dict(self) -> dict[str, Any]:
        """The dynamic scale and its count of good steps; empty for the other modes, which have no state."""
        return {} if self._grad_scaler is None else self._grad_scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. One from a mode without state (a run that moved from bf16) leaves the scale as it is."""
        if self._grad_scaler is not None and state:
            self._grad_scaler.load_state_dict(state)
            self.value = self._grad_scaler.get_scale()


@dataclass(frozen=True)
class Precision:
    """The arithmetic of a run: `dtype` of convolutions and matrix products, the scaler, and one line that says so."""

    dtype: torch.dtype
    device_type: str
    description: str
    scaler: LossScaler = field(default_factory=LossScaler)

    @classmethod
    def of(cls, options: PrecisionOptions, device: torch.device) -> Precision:
        """`resolve` with the options of a run."""
        return cls.resolve(
            options.amp_level,
            options.amp_dtype,
            options.keep_bn_fp32,
            device,
            options.is_dynamic_loss_scale,
            options.loss_scale,
        )

    @classmethod
    def resolve(
        cls,
        amp_level: AmpLevel,
        amp_dtype: AmpDtype,
        keep_bn_fp32: bool,
        device: torch.device,
        is_dynamic_loss_scale: bool,
        loss_scale: float,
    ) -> Precision:
        """What the options mean on this device.

        `auto` is bf16 on a CPU and on a GPU that has it, else fp16. fp16 scales the loss, dynamically or by the fixed
        `loss_scale`; bf16 and fp32 have the range of fp32 and never do. Raises UserError for bf16 on a GPU without it.
        """
        if amp_level == "O0":
            ignored = "" if amp_dtype == "auto" else f"; amp_dtype: {amp_dtype} takes effect from O1 on"
            return cls(torch.float32, device.type, f"O0: fp32, no loss scaling needed{ignored}")
        dtype = _autocast_dtype(amp_dtype, device)
        if dtype == torch.bfloat16:
            scaler, scaling = LossScaler(), "no loss scaling needed"
        elif is_dynamic_loss_scale:
            scaler = LossScaler("dynamic", loss_scale, device.type)
            scaling = f"dynamic loss scale from {loss_scale:g}"
        else:
            scaler = LossScaler("fixed", loss_scale, device.type)
            scaling = f"fixed loss scale {loss_scale:g}"
        name = "bf16" if dtype == torch.bfloat16 else "fp16"
        lowest = amp_level == "O3" or not keep_bn_fp32
        kept = "parameters and BatchNorm in fp32" + (" all the same (autocast has no lower)" if lowest else "")
        return cls(dtype, device.type, f"{amp_level}: {name} autocast, {kept}; {scaling}", scaler)

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
